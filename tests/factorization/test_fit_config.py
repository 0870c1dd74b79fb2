"""Keys and bounds of the factorization's part of a study."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from assets.activations.site_names import SITE_KINDS
from assets.factorization.config import FitConfig
from assets.factorization.methods import METHODS


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"rank": 64}, "snmf-k064"),
        ({"method": "permuted", "rank": 64}, "permuted-k064"),
        ({"method": "diff_means"}, "diff_means"),
        ({"rank": 4096}, "snmf-k4096"),
        ({"rank": "auto"}, "snmf-kauto"),
        ({"rank": 8, "name": "no-penalty"}, "snmf-k008-no-penalty"),
        ({"method": "sae", "rank": 64}, "sae-k064"),
        ({"method": "sae", "path": "saes/{layer}", "name": "public"}, "sae-public"),
        ({"method": "sae", "path": "saes/{layer}", "rank": 64}, "sae-k064"),
    ],
)
def test_keys(settings, key):
    assert FitConfig(**settings).key == key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "'snmf' needs a rank"),
        ({"method": "diff_means", "rank": 3}, "takes no rank"),
        ({"method": "pca", "rank": 7}, "needs an even rank"),
        ({"method": "magic", "rank": 7}, "method"),
        ({"rank": 0}, "rank"),
        ({"rank": 7, "keep_fraction": 0}, "keep_fraction"),
        ({"rank": 7, "name": "a|b"}, "name"),
        ({"rank": 7, "name": "a,b"}, "name"),
        ({"rank": 7, "name": "[x]"}, "name"),
        ({"rank": 7, "ranks": 7}, "ranks"),
        ({"rank": "auto", "method": "permuted"}, "takes no rank: auto"),
        ({"rank": "best"}, "rank"),
        ({"rank": 7, "rank_candidates": [4, 8]}, "expected rank: auto beside them"),
        ({"rank": "auto", "rank_candidates": [0, 8]}, "expected 1 or more"),
        ({"rank": 7, "method": "random", "stability_seeds": 2}, "expected only for snmf"),
        ({"path": "x", "method": "sae", "on_new_tokens": "project"}, "expected auto or refit"),
        ({"method": "sae"}, "'sae' needs a rank"),
        ({"method": "kmeans"}, "'kmeans' needs a rank"),
        ({"method": "pca", "rank": 4, "path": "x"}, "'pca' takes no path"),
        ({"method": "nmf", "rank": 4, "active_features": 2}, "active_features mean nothing for"),
        ({"method": "sae", "path": "x", "batch_tokens": 2}, "mean nothing for an sae read from"),
        ({"method": "sae", "rank": 4, "active_features": 5}, "active_features 5 exceeds the rank"),
        ({"method": "transcoder", "rank": 4, "kinds": ["mlp_in"]}, "live at mlp_out"),
        ({"rank": 4, "kinds": ["mlp_in", "mlp_in"]}, "names one twice"),
        ({"rank": 4, "kinds": []}, "kinds"),
        ({"rank": 4, "kinds": ["mlp"]}, "kinds"),
    ],
)
def test_what_makes_no_fit_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        FitConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"rank": 4}, {"mlp_hidden", "mlp_out", "attn_out", "resid_post"}),
        ({"rank": 4, "kinds": ["mlp_in", "attn_out"]}, {"mlp_in", "attn_out"}),
        ({"method": "transcoder", "rank": 4}, {"mlp_out"}),
        ({"method": "transcoder", "rank": 4, "kinds": ["mlp_out"]}, {"mlp_out"}),
    ],
)
def test_a_fit_runs_at_its_kinds_of_site(settings, kinds):
    fit = FitConfig(**settings)
    assert {kind for kind in SITE_KINDS if fit.runs_at(kind)} == kinds
    is_transcoder = fit.method == "transcoder"
    assert fit.kinds_needed == (("mlp_in", "mlp_out") if is_transcoder else ())
    assert fit.input_kind == ("mlp_in" if is_transcoder else None)


def test_controls_and_methods():
    assert {m for m in METHODS if _config(m).is_control} == {"random", "permuted", "covariance"}
    of_sparse_rows = {"snmf", "random", "permuted", "covariance"}
    assert {m for m in METHODS if _config(m).is_sparse} == of_sparse_rows


def _config(method):
    return FitConfig(method=method, rank=None if method == "diff_means" else 4)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"method": "pca", "rank": 4, "keep_fraction": 0.1}, "keep_fraction"),
        ({"method": "random", "rank": 4, "init": "svd"}, "init"),
        ({"method": "random", "rank": 4, "max_iter": 5}, "max_iter"),
        ({"method": "covariance", "rank": 4, "row_scaling": 0.1}, "row_scaling"),
        ({"rank": 4, "solver": "multiplicative", "column_scaling": 0.1}, "column_scaling"),
        ({"rank": 4, "rank_seeds": 2}, "rank_seeds"),
        ({"rank": 4, "on_new_tokens": "refit", "refit_share": 0.1}, "refit_share"),
        ({"path": "x", "method": "sae", "refit_share": 0.1}, "refit_share"),
        ({"rank": 4, "warm_start": False, "refit_share": 0.1}, "refit_share"),
        ({"method": "sae", "rank": 4, "device": "cuda"}, "device: cuda"),
    ],
)
def test_a_setting_without_effect_is_an_error(settings, named):
    with pytest.raises(ValidationError, match=rf"{named} found for method.*no effect; remove"):
        FitConfig(**settings)


def test_splits_need_no_closer_match_than_features_that_stay():
    with pytest.raises(ValidationError, match=r"split_threshold 0\.9 found above"):
        FitConfig(rank=4, split_threshold=0.9, match_threshold=0.5)
