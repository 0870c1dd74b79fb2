"""The hierarchy's part of a study: ranks of the levels and when an edge counts."""

from __future__ import annotations

from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field, model_validator


class HierarchyConfig(BaseModel):
    """How the dictionary of a fit is factored again, and again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranks: tuple[int, ...] | None = Field(
        default=None,
        description="Rank of each level above the features, falling; None: a half, then a quarter "
        "of the features",
    )
    edge_threshold: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="Edges below this share of the child's strongest one are dropped",
    )
    coefficient_penalty: float = Field(
        default=0.03,
        ge=0,
        le=10,
        description="L1 penalty on the edges' weights, for dictionary rows of unit norm",
    )
    n_starts: int = Field(
        default=8,
        ge=1,
        le=1_000,
        description="Fits of a level from different starts, of which the best is kept",
    )
    max_iter: int = Field(default=200, ge=1, le=100_000, description="Most iterations of a fit")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the levels' fits")

    @model_validator(mode="after")
    def _ranks_fall(self) -> HierarchyConfig:
        ranks = self.ranks
        if ranks is None:
            return self
        if not ranks or min(ranks) < 1 or any(low >= high for high, low in pairwise(ranks)):
            raise ValueError(
                f"ranks {list(ranks)} found; expected falling numbers, each at least 1, such as "
                "[32, 16]"
            )
        return self

    def ranks_for(self, n_features: int) -> tuple[int, ...]:
        """The ranks of the levels above `n_features` features.

        Automatic ones halve twice and leave out levels that would have fewer than 2 parents.
        Raises ValueError if the first rank set is not below the number of features.
        """
        if self.ranks is None:
            return tuple(rank for rank in (n_features // 2, n_features // 4) if rank >= 2)
        if self.ranks[0] >= n_features:
            raise ValueError(
                f"hierarchy rank {self.ranks[0]} found for {n_features} features; expected fewer "
                "parents than features: lower hierarchy.ranks or raise the fit's rank"
            )
        return self.ranks
