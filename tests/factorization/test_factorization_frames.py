"""Factorizations fit their tables, and come back from them unchanged."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from factorization.conftest import settings_for

from assets.factorization.config import FitConfig
from assets.factorization.frames import (
    FitHistory,
    activations_digest,
    coefficient_matrix,
    coefficients_frame,
    dictionary_frame,
    dictionary_matrix,
    factorization_frame,
    failed_factorization_frame,
    feature_ids_of,
    fitted_row,
)
from assets.factorization.methods import METHODS, factorize
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k006"}


def fitted(method="snmf", **settings):
    activations = torch.randn(90, 40, generator=torch.Generator().manual_seed(0))
    rank = {} if method == "diff_means" else {"rank": 6}
    fit = FitConfig(method=method, **settings_for(method, keep_fraction=0.1, **rank, **settings))
    is_massive = torch.zeros(90, dtype=torch.bool)
    is_massive[4] = True
    concepts = ["a", "b", None] * 30
    result = factorize(
        activations,
        fit,
        concepts=concepts,
        is_massive=is_massive,
        input_activations=activations if method == "transcoder" else None,
    )
    return result, fit


@pytest.mark.parametrize("method", sorted(METHODS))
def test_frames_fit_their_tables_and_come_back(method):
    result, fit = fitted(method)
    dictionary = DICTIONARY.conform(dictionary_frame(result), PARTITION)
    coefficients = COEFFICIENTS.conform(coefficients_frame(result), PARTITION)
    FACTORIZATIONS.conform(factorization_frame(result, fit), PARTITION)
    back = dictionary_matrix(dictionary, range(result.n_features), result.width)
    assert torch.equal(back, result.dictionary)
    assert len(coefficients) == int((result.coefficients > 0).sum())
    assert coefficients["coefficient"].min() > 0
    sparse = coefficient_matrix(coefficients, result.n_tokens, range(result.n_features))
    assert sparse.shape == (90, result.n_features)
    np.testing.assert_array_equal(sparse.toarray(), result.coefficients.numpy())


def test_matrices_do_not_depend_on_the_order_of_rows():
    result, _ = fitted()
    dictionary = dictionary_frame(result).sample(fraction=1, shuffle=True, seed=1)
    coefficients = coefficients_frame(result).sample(fraction=1, shuffle=True, seed=1)
    assert torch.equal(dictionary_matrix(dictionary, range(6), 40), result.dictionary)
    np.testing.assert_array_equal(
        coefficient_matrix(coefficients, 90, range(6)).toarray(), result.coefficients.numpy()
    )


def test_ids_that_are_not_contiguous_stand_for_rows_in_their_order():
    result, fit = fitted()
    ids = [7, 3, 41, 0, 12, 5]
    dictionary, coefficients = dictionary_frame(result, ids), coefficients_frame(result, ids)
    assert set(dictionary["feature_id"]) == set(ids)
    assert torch.equal(dictionary_matrix(dictionary, ids, 40), result.dictionary)
    in_order = sorted(ids)
    sorted_rows = result.dictionary[[ids.index(i) for i in in_order]]
    assert torch.equal(dictionary_matrix(dictionary, in_order, 40), sorted_rows)
    np.testing.assert_array_equal(
        coefficient_matrix(coefficients, 90, ids).toarray(), result.coefficients.numpy()
    )
    row = factorization_frame(result, fit, FitHistory(ids, 42)).row(0, named=True)
    assert feature_ids_of(row) == ids
    with pytest.raises(ValueError, match="one of its own"):
        dictionary_frame(result, [1, 1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="one of its own"):
        dictionary_frame(result, [1, 2])


def test_a_row_from_before_ids_were_kept_counts_them():
    result, fit = fitted()
    row = factorization_frame(result, fit).row(0, named=True)
    assert feature_ids_of(row | {"feature_ids": None}) == list(range(6))


def test_later_stages_learn_why_there_is_no_fit():
    result, fit = fitted()
    ok = FACTORIZATIONS.conform(factorization_frame(result, fit), PARTITION)
    assert fitted_row(ok)["n_features"] == 6
    with pytest.raises(ValueError, match="materialize `factorizations`"):
        fitted_row(ok.clear())
    failed = failed_factorization_frame(fit, "too few tokens", n_tokens=3, width=40)
    with pytest.raises(ValueError, match=r"status 'failed'.*too few tokens"):
        fitted_row(failed)


def test_a_fit_of_other_activations_is_refused():
    result, fit = fitted()
    history = FitHistory(list(range(6)), 6, activations_digest=activations_digest(["a", "b"]))
    frame = FACTORIZATIONS.conform(factorization_frame(result, fit, history), PARTITION)
    assert fitted_row(frame, ["a", "b"])["n_features"] == 6
    with pytest.raises(ValueError, match="made of other activations"):
        fitted_row(frame, ["b", "a"])


def test_the_row_of_a_fit():
    result, fit = fitted()
    row = factorization_frame(result, fit).row(0, named=True)
    assert row["method"] == "snmf"
    assert (row["n_tokens"], row["n_tokens_fit"], row["n_massive_excluded"]) == (90, 89, 1)
    assert (row["rank"], row["n_features"], row["width"]) == (6, 6, 40)
    assert row["objective_trace"] == result.objective_trace
    assert row["solver"] == "coordinate"
    assert row["coefficient_penalty"] == fit.coefficient_penalty
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
    with pytest.raises(ValueError, match="feature_id 5 found; expected one of the fit's 3"):
        dictionary_matrix(dictionary_frame(result), range(3), 40)
    with pytest.raises(ValueError, match="expected below 10"):
        coefficient_matrix(coefficients_frame(result), 10, range(6))


def test_an_empty_frame_is_a_matrix_of_zeros():
    empty = DICTIONARY.empty().drop("site", "fit")
    assert dictionary_matrix(empty, range(2), 3).sum() == 0
    none = COEFFICIENTS.empty().drop("site", "fit")
    assert isinstance(none, pl.DataFrame)
    assert coefficient_matrix(none, 4, range(2)).nnz == 0
