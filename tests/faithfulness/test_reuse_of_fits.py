"""The fit, a setting or the model changes: what hangs on it is run again, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
import torch

from tests.faithfulness.changing_sample import (
    fit_on,
    strengths_of,
)
from tests.faithfulness.measured_again import (
    CONFIG,
    FIRST,
    MADE_WITH,
    NAMES,
    assert_close,
    assert_same,
    computed,
    measure,
)


def test_a_dictionary_row_changed_runs_what_it_is_part_of() -> None:
    fit = fit_on(NAMES)
    dictionary = fit.dictionary.clone()
    dictionary[1] = -dictionary[1]
    fit = replace(fit, dictionary=dictionary)
    again, _ = measure(FIRST, fit=fit)
    assert_close(again, measure(fit=fit)[0])
    anew = computed(again, FIRST)
    assert set(anew["feature_id"].drop_nulls()) == {20}
    assert set(anew["replacement"]) == {
        "ablation",
        "reconstruction",
        "reconstruction_keep_massive",
    }
    # The silent feature's row is in no reconstruction, nor ablated.
    dictionary = fit_on(NAMES).dictionary.clone()
    dictionary[3] = -dictionary[3]
    silent, forwards = measure(FIRST, fit=replace(fit_on(NAMES), dictionary=dictionary))
    assert not forwards.documents
    assert_same(silent, FIRST)


def test_a_feature_is_rebuilt_only_in_documents_where_it_is_active() -> None:
    loud, quiet = ["a", "b", "c"], ["q", "qq", "q3"]
    names = loud + quiet
    assert all((strengths_of(name)[:, 0] > 0).any() for name in loud)
    before, _ = measure(names=names)
    fit = fit_on(names)
    dictionary = fit.dictionary.clone()
    dictionary[0] = -dictionary[0]
    after, forwards = measure(before, names, fit=replace(fit, dictionary=dictionary))
    assert {name for name in names if forwards.n_runs_of(name)} == set(loud)
    assert set(computed(after, before)["document_id"]) == set(loud)


def test_features_more_cost_their_own_runs_alone() -> None:
    fewer, _ = measure(ids=[10, 20])
    more, _ = measure(fewer)
    assert set(computed(more, fewer)["feature_id"]) == {30}
    assert more.work.rows_computed == 2
    assert_close(more, FIRST)
    again, forwards = measure(FIRST, ids=[10, 20])
    assert not forwards.documents
    assert_close(again, fewer)


def test_ids_are_those_of_the_fit_whatever_the_row_came_from() -> None:
    new_ids = {10: 7, 20: 8, 30: 9, 40: 11}
    fit = fit_on(NAMES)
    fit = replace(
        fit,
        feature_ids=list(new_ids.values()),
        coefficients=fit.coefficients.with_columns(pl.col("feature_id").replace(new_ids)),
    )
    renamed, forwards = measure(FIRST, fit=fit)
    assert not forwards.documents
    assert renamed.features["feature_id"].to_list() == [7, 8, 9, 11]
    assert renamed.features.drop("feature_id").equals(FIRST.features.drop("feature_id"))
    assert renamed.documents["feature_id"].equals(FIRST.documents["feature_id"].replace(new_ids))


@pytest.mark.parametrize("place", range(3))
def test_other_code_model_or_number_type_measures_anew(place: int) -> None:
    other = tuple("other" if i == place else part for i, part in enumerate(MADE_WITH))
    assert measure(FIRST, made_with=other)[0].work.rows_reused == 0


def test_settings_of_the_pooling_run_nothing() -> None:
    config = CONFIG.model_copy(update={"n_documents_per_feature": 1})
    again, forwards = measure(FIRST, config=config)
    assert not forwards.documents
    assert_close(again, measure(config=config)[0])
    wider, _ = measure(FIRST, config=CONFIG.model_copy(update={"n_documents_per_feature": 3}))
    assert set(computed(wider, FIRST)["replacement"]) == {"ablation"}
    assert wider.work.rows_computed == 3


def test_changed_coefficients_or_a_changed_mean_row_run_what_they_are_part_of() -> None:
    fit = fit_on(NAMES)
    louder = fit.coefficients.with_columns(
        pl.when(pl.col("feature_id") == 30)
        .then(pl.col("coefficient") * 1.01)
        .otherwise(pl.col("coefficient"))
    )
    again, _ = measure(FIRST, fit=replace(fit, coefficients=louder))
    anew = computed(again, FIRST)
    assert set(anew["feature_id"].drop_nulls()) == {30}
    assert not set(anew["replacement"]) & {"identity", "zero", "mean"}
    moved, _ = measure(FIRST, fit=replace(fit, mean_row=fit.mean_row + torch.tensor(1e-3)))
    anew = computed(moved, FIRST)
    assert anew["replacement"].to_list() == ["mean"] * len(NAMES)
    offset, _ = measure(FIRST, fit=replace(fit, offset=torch.full_like(fit.mean_row, 1e-3)))
    assert set(computed(offset, FIRST)["replacement"]) == {
        "reconstruction",
        "reconstruction_keep_massive",
    }
