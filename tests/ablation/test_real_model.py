"""Ablation on SmolLM2-135M: features matter where they are strong, more than their nulls do."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from assets.ablation.config import AblationConfig
from assets.ablation.tables import ABLATION_RUNS
from assets.factorization.config import FitConfig
from assets.faithfulness.replaced_forward import Spent
from tests.ablation.real_fit import RealFit

CONFIG = AblationConfig(n_documents_on=3, n_documents_off=3)
N_FEATURES = 6


@pytest.mark.slow
def test_ablation_of_a_real_model(cache_folder: Path) -> None:
    fit = RealFit(
        cache_folder, 25, 120, FitConfig(method="snmf", rank=16, keep_fraction=0.02, max_iter=40)
    )
    measured = fit.ablate(N_FEATURES, CONFIG)
    ok = measured.effects.filter(status="ok")
    assert len(ok) == N_FEATURES * 2 * 2
    features, nulls = (ok.filter(is_null=is_null) for is_null in (False, True))
    assert features["kl_on"].median() > nulls["kl_on"].median()
    assert features["promoted_drop"].mean() > nulls["promoted_drop"].mean()
    assert ok["delta_concept"].null_count() == 0 and ok["concept"].n_unique() > 1
    with_off = ok.filter(pl.col("n_documents_off") > 0)
    assert (with_off["kl_on"] > with_off["kl_off"]).mean() > 0.8
    bracketed = ok.drop_nulls("delta_on_low")
    assert (bracketed["delta_on_low"] <= bracketed["delta_on"]).all()
    assert (bracketed["delta_on"] <= bracketed["delta_on_high"]).all()

    partition = {"site": "study:m@L25.mlp_hidden", "fit": "f"}
    previous = ABLATION_RUNS.conform(measured.runs, partition)
    again = fit.ablate(N_FEATURES, CONFIG, previous)
    assert again.spent == Spent() and again.effects.equals(measured.effects)
    # What is taken over and what is run anew are what all of it in one run is, to the bit.
    some = previous.filter(pl.col("feature_id") != features["feature_id"][0])
    mixed = fit.ablate(N_FEATURES, CONFIG, some)
    assert 0 < mixed.rows_computed < len(measured.runs)
    assert mixed.runs.equals(measured.runs) and mixed.effects.equals(measured.effects)
