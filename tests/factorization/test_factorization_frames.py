"""Factorizations fit their tables, and come back from them unchanged."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from assets.factorization.config import FitConfig
from assets.factorization.frames import (
    coefficient_matrix,
    coefficients_frame,
    dictionary_frame,
    dictionary_matrix,
    factorization_frame,
    failed_factorization_frame,
)
from assets.factorization.methods import METHODS, factorize
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k006"}


def fitted(method="snmf", **settings):
    activations = torch.randn(90, 40, generator=torch.Generator().manual_seed(0))
    rank = {} if method == "diff_means" else {"rank": 6}
    fit = FitConfig(method=method, keep_fraction=0.1, **(rank | settings))
    is_massive = torch.zeros(90, dtype=torch.bool)
    is_massive[4] = True
    concepts = ["a", "b", None] * 30
    return factorize(activations, fit, concepts=concepts, is_massive=is_massive), fit


@pytest.mark.parametrize("method", sorted(METHODS))
def test_frames_fit_their_tables_and_come_back(method):
    result, fit = fitted(method)
    dictionary = DICTIONARY.conform(dictionary_frame(result), PARTITION)
    coefficients = COEFFICIENTS.conform(coefficients_frame(result), PARTITION)
    FACTORIZATIONS.conform(factorization_frame(result, fit), PARTITION)
    back = dictionary_matrix(dictionary, result.n_features, result.width)
    assert torch.equal(back, result.dictionary)
    assert len(coefficients) == int((result.coefficients > 0).sum())
    assert coefficients["coefficient"].min() > 0
    sparse = coefficient_matrix(coefficients, result.n_tokens, result.n_features)
    assert sparse.shape == (90, result.n_features)
    np.testing.assert_array_equal(sparse.toarray(), result.coefficients.numpy())


def test_matrices_do_not_depend_on_the_order_of_rows():
    result, _ = fitted()
    dictionary = dictionary_frame(result).sample(fraction=1, shuffle=True, seed=1)
    coefficients = coefficients_frame(result).sample(fraction=1, shuffle=True, seed=1)
    assert torch.equal(dictionary_matrix(dictionary, 6, 40), result.dictionary)
    np.testing.assert_array_equal(
        coefficient_matrix(coefficients, 90, 6).toarray(), result.coefficients.numpy()
    )


def test_the_row_of_a_fit():
    result, fit = fitted()
    row = factorization_frame(result, fit).row(0, named=True)
    assert row["method"] == "snmf"
    assert (row["n_tokens"], row["n_tokens_fit"], row["n_massive_excluded"]) == (90, 89, 1)
    assert (row["rank"], row["n_features"], row["width"]) == (6, 6, 40)
    assert row["objective_trace"] == result.objective_trace
    assert row["solver"] == "coordinate"
    assert row["coefficient_penalty"] == 0.03
    assert (row["status"], row["reason"]) == ("ok", None)
    assert row["feature_names"] is None


def test_settings_without_meaning_are_null():
    result, fit = fitted("diff_means")
    row = factorization_frame(result, fit).row(0, named=True)
    for column in ("rank", "solver", "init", "keep_fraction", "coefficient_penalty"):
        assert row[column] is None
    assert row["objective_trace"] is None
    assert row["feature_names"] == ["a", "b"]
    result, fit = fitted("random")
    row = factorization_frame(result, fit).row(0, named=True)
    assert row["solver"] is None
    assert row["keep_fraction"] == 0.1
    result, fit = fitted("snmf", solver="multiplicative", max_iter=3)
    row = factorization_frame(result, fit).row(0, named=True)
    assert row["coefficient_penalty"] == 0
    assert row["is_converged"] is False
    result, fit = fitted("pca")
    assert len(factorization_frame(result, fit)["offset_vector"][0]) == 40


def test_a_failed_fit_is_a_row_with_its_reason():
    fit = FitConfig(method="snmf", rank=200)
    frame = failed_factorization_frame(fit, "rank 200 exceeds", n_tokens=120, width=40)
    row = FACTORIZATIONS.conform(frame, PARTITION).row(0, named=True)
    assert (row["status"], row["reason"]) == ("failed", "rank 200 exceeds")
    assert row["explained_variance"] is None
    assert row["n_features"] is None


def test_rows_of_another_fit_are_refused():
    result, _ = fitted()
    with pytest.raises(ValueError, match="feature_id 5 found; expected below 3"):
        dictionary_matrix(dictionary_frame(result), 3, 40)
    with pytest.raises(ValueError, match="expected below 10"):
        coefficient_matrix(coefficients_frame(result), 10, 6)


def test_an_empty_frame_is_a_matrix_of_zeros():
    empty = DICTIONARY.empty().drop("site", "fit")
    assert dictionary_matrix(empty, 2, 3).sum() == 0
    none = COEFFICIENTS.empty().drop("site", "fit")
    assert isinstance(none, pl.DataFrame)
    assert coefficient_matrix(none, 4, 2).nnz == 0
