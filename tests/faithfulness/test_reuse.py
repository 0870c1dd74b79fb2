"""What was measured before is taken over where nothing behind it changed, else measured anew."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import polars as pl
import pytest
import torch

from assets.activations.sites import ActivationSite
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.fit import Fit
from assets.faithfulness.measure import Measured, measure_faithfulness
from assets.faithfulness.replaced_forward import Spent
from assets.faithfulness.reuse import Previous
from assets.faithfulness.sample import SampledDocument, sample_documents
from assets.faithfulness.tables import FAITHFULNESS, FEATURE_FAITHFULNESS
from tests.activations.tiny_models import tiny_model
from tests.faithfulness.planted import (
    BOS,
    random_fit,
    rows_of_the_site,
    tokens_frame,
    whole_sample,
)

MODEL, SITE = tiny_model("llama"), ActivationSite(1)
CONFIG = FaithfulnessConfig(n_bootstrap=50, batch_tokens=24, n_documents_per_feature=2)
FIT = random_fit(rows_of_the_site(MODEL, SITE))
MADE_WITH = ("code", "revision", "float32")
PARTITION = {"site": "study:m@L1.mlp_hidden", "fit": "snmf-k004"}


def measure(
    previous: Previous | None = None,
    fit: Fit = FIT,
    ids: list[int] | None = None,
    config: FaithfulnessConfig = CONFIG,
    sample: list[SampledDocument] | None = None,
) -> Measured:
    wanted = list(fit.feature_ids) if ids is None else ids
    before = previous or replace(Previous.none(), made_with=MADE_WITH)
    return measure_faithfulness(
        MODEL, SITE, sample or whole_sample(), fit, wanted, config, previous=before
    )


def stored(measured: Measured, made_with: tuple[str, ...] = MADE_WITH) -> Previous:
    """The rows as a later run reads them from the lake: conformed, in key order."""
    frames = [
        table.conform(frame, PARTITION).sort(table.key)
        for table, frame in (
            (FAITHFULNESS, measured.replacements),
            (FEATURE_FAITHFULNESS, measured.features),
        )
    ]
    return Previous(frames[0], frames[1], made_with)


@contextmanager
def forbidden_forward():
    def fail(*_: object) -> None:
        raise AssertionError("the model was run")

    handle = MODEL.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def assert_close(one: Measured, other: Measured) -> None:
    for name in ("replacements", "features"):
        a, b = getattr(one, name), getattr(other, name)
        for column in a.columns:
            if a[column].dtype.is_float():
                assert a[column].to_list() == pytest.approx(b[column].to_list(), abs=2e-5)
            else:
                assert a[column].to_list() == b[column].to_list(), column


FIRST = measure()


def test_the_same_again_runs_nothing_and_gives_the_same_rows() -> None:
    with forbidden_forward():
        again = measure(stored(FIRST))
    assert again.replacements.equals(FIRST.replacements)
    assert again.features.equals(FIRST.features)
    works = (again.replacements_work, again.features_work)
    assert [(w.rows_reused, w.rows_computed, w.spent) for w in works] == [
        (5, 0, Spent()),
        (3, 0, Spent()),
    ]
    first = (FIRST.replacements_work, FIRST.features_work)
    assert [(w.rows_reused, w.rows_computed) for w in first] == [(0, 5), (0, 3)]
    assert all(w.spent.forward_tokens > 0 for w in first)
    with pytest.raises(AssertionError, match="the model was run"), forbidden_forward():
        measure()


def test_one_direction_changed_ablates_that_feature_alone() -> None:
    dictionary = FIT.dictionary.clone()
    dictionary[1] = -dictionary[1]
    fit = replace(FIT, dictionary=dictionary)
    again, scratch = measure(stored(FIRST), fit), measure(fit=fit)
    assert (again.features_work.rows_reused, again.features_work.rows_computed) == (2, 1)
    # The reconstruction is of the whole dictionary.
    assert again.replacements_work.rows_computed == 5
    assert_close(again, scratch)
    kept = pl.col("feature_id") != 20
    assert again.features.filter(kept).equals(FIRST.features.filter(kept))
    assert not again.features.filter(~kept).equals(FIRST.features.filter(~kept))


def test_a_feature_more_costs_its_own_runs_alone() -> None:
    fewer = measure(ids=[10, 20])
    more = measure(stored(fewer))
    assert more.replacements_work.spent == Spent() and more.replacements_work.rows_reused == 5
    assert (more.features_work.rows_reused, more.features_work.rows_computed) == (2, 1)
    assert more.features_work.spent.forward_tokens > 0
    assert_close(more, FIRST)


def test_documents_outside_the_sample_change_nothing_and_one_inside_what_it_is_part_of() -> None:
    tokens = tokens_frame()
    config = CONFIG.model_copy(update={"n_documents": 3})
    drawn = {
        name: [
            one.document.document_id
            for one in sample_documents(tokens.filter(pl.col("document_id") != name), BOS, 3, 0)
        ]
        for name in "abce"
    }
    whole = sample_documents(tokens, BOS, 3, 0)
    ids = [one.document.document_id for one in whole]
    (outside,) = set("abce") - set(ids)
    assert drawn[outside] == ids
    before = measure(
        config=config,
        sample=sample_documents(tokens.filter(pl.col("document_id") != outside), BOS, 3, 0),
    )
    with forbidden_forward():
        again = measure(stored(before), config=config, sample=whole)
    assert again.features.equals(before.features)
    # A document of the sample gone, another in its place.
    gone = ids[0]
    fewer = sample_documents(tokens.filter(pl.col("document_id") != gone), BOS, 3, 0)
    changed = measure(stored(before), config=config, sample=fewer)
    assert changed.replacements_work.rows_computed == 5
    assert_close(changed, measure(config=config, sample=fewer))


def test_rows_moved_by_a_document_before_them_are_the_same_rows() -> None:
    moved = pl.concat(
        [
            tokens_frame().filter(document_id="d").with_columns(document_id=pl.lit("0new")),
            tokens_frame().with_columns(pl.col("row") + 1),
        ]
    ).with_row_index("moved")
    moved = moved.drop("row").rename({"moved": "row"})
    sample = sample_documents(moved, BOS, 100, 0)
    fit = replace(FIT, coefficients=FIT.coefficients.with_columns(pl.col("row") + 1))
    with forbidden_forward():
        assert measure(stored(FIRST), fit, sample=sample).features.equals(FIRST.features)


def test_ids_are_those_of_the_fit_whatever_the_row_came_from() -> None:
    new_ids = {10: 7, 20: 8, 30: 9, 40: 11}
    fit = replace(
        FIT,
        feature_ids=list(new_ids.values()),
        coefficients=FIT.coefficients.with_columns(pl.col("feature_id").replace(new_ids)),
    )
    with forbidden_forward():
        renamed = measure(stored(FIRST), fit)
    assert renamed.features["feature_id"].to_list() == [7, 8, 9, 11]
    assert renamed.features.drop("feature_id").equals(FIRST.features.drop("feature_id"))


@pytest.mark.parametrize("place", range(3))
def test_other_code_model_or_number_type_measures_anew(place: int) -> None:
    other = tuple("other" if i == place else part for i, part in enumerate(MADE_WITH))
    again = measure(stored(FIRST, other))
    assert again.replacements_work.rows_reused == again.features_work.rows_reused == 0


def test_settings_that_a_row_depends_on_measure_it_anew() -> None:
    more_resamples = measure(stored(FIRST), config=CONFIG.model_copy(update={"n_bootstrap": 60}))
    assert more_resamples.replacements_work.rows_computed == 5
    assert more_resamples.features_work.rows_reused == 3
    fewer_documents = measure(
        stored(FIRST), config=CONFIG.model_copy(update={"n_documents_per_feature": 1})
    )
    assert fewer_documents.replacements_work.rows_reused == 5
    assert fewer_documents.features_work.rows_computed == 3


def test_changed_coefficients_or_a_changed_mean_row_measure_anew() -> None:
    louder = FIT.coefficients.with_columns(
        pl.when(pl.col("feature_id") == 30)
        .then(pl.col("coefficient") * 1.01)
        .otherwise(pl.col("coefficient"))
    )
    again = measure(stored(FIRST), replace(FIT, coefficients=louder))
    assert (again.features_work.rows_reused, again.features_work.rows_computed) == (2, 1)
    moved = measure(stored(FIRST), replace(FIT, mean_row=FIT.mean_row + torch.tensor(1e-3)))
    assert moved.replacements_work.rows_computed == 5 and moved.features_work.rows_reused == 3


def test_rows_of_an_older_lake_are_measured_anew() -> None:
    before = stored(FIRST)
    unknown = pl.lit(None, dtype=pl.String).alias("row_fingerprint")
    old = Previous(
        before.replacements.with_columns(unknown), before.features.with_columns(unknown), MADE_WITH
    )
    again = measure(old)
    assert again.replacements_work.rows_reused == again.features_work.rows_reused == 0
    assert_close(again, FIRST)
