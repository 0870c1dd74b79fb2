"""One fit of a study: the method, its rank and its settings. No computation here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

CONTROL_METHODS = ("random", "permuted")
METHODS_WITHOUT_RANK = ("diff_means",)
SUPERVISED_METHODS = ("diff_means",)
# Methods whose coefficients come from the penalised non-negative solve on sparse rows.
SPARSE_METHODS = ("snmf", "random", "permuted")


class FitConfig(BaseModel):
    """How one dictionary is made at every site of the study; its `key` is the partition `fit`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["snmf", "diff_means", "pca", "random", "permuted"] = Field(
        default="snmf",
        description="snmf; the comparators diff_means and pca; the null controls random (random "
        "sparse directions) and permuted (an SNMF dictionary, each feature's neurons shuffled)",
    )
    rank: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Number of features; not for diff_means, which makes one a concept",
    )
    name: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,40}$",
        description="Added to the key, to tell apart two fits of one method and rank",
    )
    keep_fraction: float = Field(
        default=0.01, gt=0, le=1, description="Share of neurons a feature may use"
    )
    coefficient_penalty: float = Field(
        default=0.03,
        ge=0,
        le=10,
        description="L1 penalty on the coefficients, for activations divided by their mean row "
        "norm; the multiplicative solver knows none",
    )
    solver: Literal["coordinate", "multiplicative"] = Field(
        default="coordinate",
        description="coordinate: exact block-coordinate minimization; multiplicative: the paper's",
    )
    max_iter: int = Field(default=200, ge=1, le=100_000, description="Most iterations of a fit")
    tol: float = Field(
        default=1e-4,
        ge=0,
        lt=1,
        description="Relative decrease of the objective below which a fit has converged",
    )
    init: Literal["kmeans", "random", "svd"] = Field(
        default="kmeans", description="Where a fit starts"
    )
    seed: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Seed of all randomness of the fit"
    )

    @model_validator(mode="after")
    def _rank_fits_method(self) -> FitConfig:
        if self.method in METHODS_WITHOUT_RANK and self.rank is not None:
            raise ValueError(
                f"method {self.method!r} takes no rank (found {self.rank}): it makes one feature a "
                "concept; remove the rank"
            )
        if self.method not in METHODS_WITHOUT_RANK and self.rank is None:
            raise ValueError(f"method {self.method!r} needs a rank, the number of features")
        if self.method == "pca" and self.rank is not None and self.rank % 2:
            raise ValueError(
                f"method 'pca' needs an even rank (found {self.rank}): each component makes a "
                "positive and a negative feature"
            )
        return self

    @property
    def key(self) -> str:
        """Partition key: method, rank, name; e.g. snmf-k064, diff_means, snmf-k064-no-penalty."""
        parts = [self.method]
        if self.rank is not None:
            parts.append(f"k{self.rank:03d}")
        if self.name is not None:
            parts.append(self.name)
        return "-".join(parts)

    @property
    def is_control(self) -> bool:
        """Whether the fit is a null control, whose scores say what chance gives."""
        return self.method in CONTROL_METHODS

    @property
    def is_supervised(self) -> bool:
        """Whether the method sees concepts, so that it must leave out the half to measure on."""
        return self.method in SUPERVISED_METHODS

    @property
    def is_sparse(self) -> bool:
        """Whether features use at most keep_fraction of the neurons."""
        return self.method in SPARSE_METHODS

    @property
    def is_iterative(self) -> bool:
        """Whether an SNMF fit runs, so that solver and init mean something."""
        return self.method in ("snmf", "permuted")
