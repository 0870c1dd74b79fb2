"""The hierarchy's part of a study: the tree's levels, their tuning, and groups of features."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(min_length=1, max_length=200)]
Prompt = Annotated[str, Field(min_length=1, max_length=2000)]
MembersBy = Literal["concept_auroc", "promoted_tokens"]


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
    seed: int = Field(
        default=0,
        ge=0,
        le=2**31 - 1,
        description="Seed of the levels' fits, the permutations and the draws of random neurons",
    )
    fine_tune: bool = Field(
        default=True,
        description="Tune all levels jointly on the activations; the fit's own features stay",
    )
    fine_tune_anchor: float = Field(
        default=0.3,
        ge=0,
        le=1_000,
        description="Weight of staying near the fit's features, as a share of a feature's energy "
        "in the activations; 0: the activations alone decide, as in the paper",
    )
    fine_tune_max_iter: int = Field(
        default=100, ge=1, le=100_000, description="Most iterations of the fine-tuning"
    )
    fine_tune_tol: float = Field(
        default=1e-4,
        ge=0,
        lt=1,
        description="Relative decrease of the objective below which the fine-tuning has converged",
    )
    n_permutations: int = Field(
        default=1,
        ge=0,
        le=100,
        description="Null trees, of dictionaries with each feature's neurons permuted",
    )
    groups: dict[Name, tuple[Name, ...]] = Field(
        default={},
        description="Groups to steer by, a name with its concepts; an empty list takes the "
        "concepts of the parent concept of that name. Other parent concepts get neuron_groups only",
    )
    members_by: MembersBy = Field(
        default="concept_auroc",
        description="How each concept of a group gets its feature: concept_auroc, the one that "
        "tells its documents best; promoted_tokens, the one whose vocabulary projection raises its "
        "token most (read it beside a fit of method permuted: the best of many does so by chance)",
    )
    core_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of a group's features that must use a neuron, with one sign, to make it "
        "core; two at least",
    )
    member_keep_fraction: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Share of neurons that a group's features are said to use, their strongest: "
        "gives dense methods neurons in common and of their own; sparse features keep all theirs",
    )
    group_prompts: tuple[Prompt, ...] = Field(
        default=(),
        description="Prompts that groups are steered on, beside steering.neutral_prompts",
    )
    group_target_kl_nats: float = Field(
        default=0.5,
        gt=0,
        le=20,
        description="KL(base‖steered) at the last prompt token that groups are steered with",
    )
    n_null_draws: int = Field(
        default=3,
        ge=0,
        le=100,
        description="Draws of random neurons beside each direction that a group is steered by",
    )

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

    @model_validator(mode="after")
    def _groups_list_a_concept_once(self) -> HierarchyConfig:
        for name, concepts in self.groups.items():
            twice = sorted({concept for concept in concepts if concepts.count(concept) > 1})
            if twice:
                raise ValueError(
                    f"groups.{name} lists {', '.join(map(repr, twice))} more than once; expected "
                    "each concept once: a concept has one feature in a group; remove the others"
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
