"""The comparison part of a study: how sure intervals and tests over the fits of a site are."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ComparisonConfig(BaseModel):
    """How the fits of a site are compared with each other and with the null controls."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fdr: float = Field(
        default=0.05,
        gt=0.0,
        lt=1.0,
        description="False discovery rate: what has a q-value up to it is called significant",
    )
    n_bootstrap: int = Field(
        default=1000,
        ge=0,
        le=100_000,
        description="Resamples of pairs behind each interval of paired_tests; 0 for none",
    )
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0, description="Coverage of the intervals")
    seed: int = Field(default=0, ge=0, description="Seed of these resamples")
