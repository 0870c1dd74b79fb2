"""What the estimator refuses, in words that say what was found and what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assets.factorization.inputs import FactorizationError
from assets.factorization.semi_nmf import SemiNMF
from tests.factorization.small_estimator import estimator


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_rows_are_named(planted, bad):
    activations = planted(n_tokens=100).activations
    activations[[3, 41]] = bad
    with pytest.raises(FactorizationError, match=r"2 of 100 activation rows \(rows 3, 41\)"):
        estimator().fit(activations)
    model = estimator().fit(planted().activations)
    with pytest.raises(ValueError, match="rows 3, 41"):
        model.transform(activations)


def test_a_rank_above_the_tokens_is_refused():
    with pytest.raises(ValueError, match=r"rank 200 exceeds the 120 tokens.*lower the rank"):
        SemiNMF(n_components=200).fit(torch.randn(120, 30))


def test_an_all_zero_matrix_is_refused():
    with pytest.raises(FactorizationError, match="all 20 activation rows are zero"):
        SemiNMF(n_components=2).fit(torch.zeros(20, 8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "newton"}, "solver 'newton' found; expected one of coordinate"),
        ({"init": "zeros"}, "init 'zeros' found; expected one of"),
        ({"keep_fraction": 0}, "keep_fraction 0 found"),
        ({"coefficient_penalty": -1}, "coefficient_penalty -1 found"),
        ({"max_iter": 0}, "max_iter 0 found"),
        ({"n_components": 0}, "rank 0 found"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(FactorizationError, match=message):
        estimator(**settings).fit(torch.randn(20, 8))


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (torch.randn(8), r"shape \[8\]"),
        (torch.randn(0, 8), r"shape \[0, 8\]"),
        (np.array([["a", "b"]]), "expected real numbers"),
        (torch.randn(20, 8, dtype=torch.complex64), "expected real numbers"),
    ],
)
def test_what_is_no_matrix_is_refused(activations, message):
    with pytest.raises(FactorizationError, match=message):
        estimator(n_components=2).fit(activations)


def test_transform_wants_the_width_of_the_fit():
    model = SemiNMF(n_components=2).fit(torch.randn(20, 8))
    with pytest.raises(FactorizationError, match="width 9; the dictionary was fitted on width 8"):
        model.transform(torch.randn(20, 9))
