"""One fit of a study: the method, its rank and its settings. No computation here.

Which settings may stand together is fit_checks.py, what methods have in common method_traits.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from assets.activations.site_names import SiteKind
from assets.factorization.fit_checks import check_settings_agree
from assets.factorization.method_traits import (
    CONTROL_METHODS,
    SPARSE_METHODS,
    SUPERVISED_METHODS,
    TRANSCODER_INPUT_KIND,
    TRANSCODER_KIND,
)


class FitConfig(BaseModel):
    """How one dictionary is made at every site of the study; its `key` is the partition `fit`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal[
        "snmf",
        "sae",
        "transcoder",
        "diff_means",
        "pca",
        "kmeans",
        "nmf",
        "neurons",
        "random",
        "permuted",
        "covariance",
    ] = Field(
        default="snmf",
        description="snmf; the comparators sae (TopK autoencoder, trained here or read from "
        "`path`), transcoder (from mlp_in to mlp_out), diff_means, pca, kmeans, nmf (of the "
        "positive parts) and neurons (the axes); the null controls random (random sparse "
        "directions), permuted (an SNMF dictionary, each feature's neurons shuffled) and "
        "covariance (random sparse directions that vary as the activations do)",
    )
    rank: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"] | None = Field(
        default=None,
        description="Number of features, or auto (snmf: chosen among rank_candidates); not for "
        "diff_means, which makes one a concept; for an sae read from `path` the most to keep "
        "(those of largest energy), all that fire when left out",
    )
    kinds: tuple[SiteKind, ...] | None = Field(
        default=None,
        min_length=1,
        description="Kinds of site the fit runs at; left out: all of the study's but mlp_in, and "
        "for a transcoder mlp_out",
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
        default=0.025,
        ge=0,
        le=10,
        description="Penalty on the coefficients, for activations divided by their mean row "
        "norm; the multiplicative solver knows none",
    )
    penalty_concavity: float = Field(
        default=0.7,
        ge=0,
        lt=1,
        description="How far the penalty lets go of large coefficients: 0 the L1 norm, near 1 a "
        "hard threshold",
    )
    row_scaling: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="How much quiet tokens are raised before the fit: 0 not at all, 1 to equal "
        "norm; the multiplicative solver knows none",
    )
    column_scaling: float = Field(
        default=0.55,
        ge=0,
        le=1,
        description="How much quiet neurons are raised before the fit: 0 not at all, 1 to equal "
        "energy; the multiplicative solver knows none",
    )
    solver: Literal["coordinate", "multiplicative"] = Field(
        default="coordinate",
        description="coordinate: exact block-coordinate minimization; multiplicative: the paper's",
    )
    max_iter: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Most iterations of a fit; epochs, for sae and transcoder",
    )
    tol: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Relative decrease of the objective below which a fit has converged; left "
        "out: 3e-4 for snmf and permuted, 1e-4 for the others",
    )
    active_features: int | None = Field(
        default=None,
        ge=1,
        description="sae, transcoder: most features active on a token; left out: a quarter of the "
        "rank, 1 to 32",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="sae, transcoder: step size of Adam; left out: 0.0256 / sqrt(rank), at most "
        "0.003",
    )
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="sae, transcoder: tokens in a step; left out: a sixteenth of them, 32 to 4096",
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="sae: folder of a public SAE in SAELens format (cfg.json and "
        "sae_weights.safetensors), or hf://<owner>/<repository>/<folder>; {layer} and {kind} stand "
        "for the site's",
    )
    init: Literal["kmeans", "random", "svd"] = Field(
        default="kmeans", description="Where a fit starts"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where snmf and the null controls are computed; auto: on a GPU where there is "
        "one; the others run on the processor",
    )
    max_memory_gib: float = Field(
        default=8.0,
        ge=0,
        description="Activations that would take more are not held in memory: snmf and the null "
        "controls then stream over the shards",
    )
    seed: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Seed of all randomness of the fit"
    )

    rank_candidates: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="rank: auto: the ranks to choose from; left out: powers of two from 8 to 256, "
        "as far as the tokens go",
    )
    rank_seeds: int = Field(
        default=3,
        ge=1,
        le=100,
        description="rank: auto: random halvings of the documents, two fits each for every rank",
    )
    stability_seeds: int = Field(
        default=0,
        ge=0,
        le=100,
        description="snmf: other seeds to fit with, to say how well each feature is found again; "
        "each costs a fit",
    )
    match_threshold: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Cosine from which on a feature is the same as one of another fit: it keeps "
        "its feature_id over a refit, and counts as reproduced in the choice of a rank",
    )
    split_threshold: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Cosine from which on a feature counts as part of one before (split, merged)",
    )
    warm_start: bool = Field(
        default=True,
        description="Refits of snmf and permuted go on from the last dictionary of the same "
        "settings; false: every fit starts from its seed and does not depend on those before",
    )
    on_new_tokens: Literal["auto", "refit", "project"] = Field(
        default="auto",
        description="When the tokens change: refit; project (keep dictionary and ids, and give "
        "new documents their coefficients in one pass; not for a public SAE); or auto: project "
        "while few tokens changed, else refit",
    )
    refit_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="on_new_tokens: auto: largest share of new or gone tokens, of those the "
        "dictionary was fitted on, up to which it is kept",
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> FitConfig:
        check_settings_agree(self)
        return self

    def runs_at(self, kind: str) -> bool:
        """Whether the fit is made at sites of a kind."""
        if self.method == "transcoder":
            return kind == TRANSCODER_KIND
        if self.kinds is None:
            return kind != TRANSCODER_INPUT_KIND
        return kind in self.kinds

    @property
    def kinds_needed(self) -> tuple[SiteKind, ...]:
        """Kinds that every model of a study with this fit must have."""
        if self.method == "transcoder":
            return (TRANSCODER_INPUT_KIND, TRANSCODER_KIND)
        return ()

    @property
    def input_kind(self) -> SiteKind | None:
        """Kind of the site that the fit reads beside its own; None where it reads no other."""
        return TRANSCODER_INPUT_KIND if self.method == "transcoder" else None

    @property
    def key(self) -> str:
        """Partition key: method, rank, name; e.g. snmf-k064, diff_means, snmf-k064-no-penalty."""
        parts = [self.method]
        if self.rank == "auto":
            parts.append("kauto")
        elif self.rank is not None:
            parts.append(f"k{self.rank:03d}")
        if self.name is not None:
            parts.append(self.name)
        return "-".join(parts)

    @property
    def tolerance(self) -> float:
        """`tol`, or the method's own."""
        if self.tol is not None:
            return self.tol
        return 3e-4 if self.is_iterative else 1e-4

    @property
    def projects_little_changes(self) -> bool:
        """Whether the dictionary stays while few tokens change; warm_start: false knows no past."""
        return self.on_new_tokens == "auto" and self.warm_start and self.path is None

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
