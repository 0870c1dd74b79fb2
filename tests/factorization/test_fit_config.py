"""Keys and bounds of the factorization's part of a study."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from assets.factorization.config import FitConfig
from assets.factorization.methods import METHODS


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"rank": 64}, "snmf-k064"),
        ({"method": "permuted", "rank": 64}, "permuted-k064"),
        ({"method": "diff_means"}, "diff_means"),
        ({"rank": 4096}, "snmf-k4096"),
        ({"rank": 8, "name": "no-penalty"}, "snmf-k008-no-penalty"),
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
    ],
)
def test_what_makes_no_fit_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        FitConfig(**settings)


def test_controls_and_methods():
    assert {m for m in METHODS if _config(m).is_control} == {"random", "permuted"}
    assert {m for m in METHODS if _config(m).is_sparse} == {"snmf", "random", "permuted"}


def _config(method):
    return FitConfig(method=method, rank=None if method == "diff_means" else 4)
