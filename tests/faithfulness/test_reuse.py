"""A run made before is taken over where nothing behind it changed, else made; results are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import pytest
import torch

from assets.activations.sites import ActivationSite
from assets.faithfulness import runs
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.fit import Fit
from assets.faithfulness.measure import Measured, measure_faithfulness
from assets.faithfulness.replaced_forward import Spent
from assets.faithfulness.replacements import REPLACEMENTS
from assets.faithfulness.sample import SampledDocument
from assets.faithfulness.tables import FAITHFULNESS_DOCUMENTS
from tests.activations.tiny_models import tiny_model
from tests.faithfulness.changing_sample import (
    Forwards,
    counted_forwards,
    fit_on,
    sampled,
    strengths_of,
)

MODEL, SITE = tiny_model("llama"), ActivationSite(1)
CONFIG = FaithfulnessConfig(n_bootstrap=50, batch_tokens=24, n_documents_per_feature=2)
MADE_WITH = ("code", "revision", "float32")
PARTITION = {"site": "study:m@L1.mlp_hidden", "fit": "snmf-k004"}
NAMES = ["a", "b", "c", "m", "n"]
MORE = [*NAMES, "o"]


def measure(
    before: Measured | pl.DataFrame | None = None,
    names: Sequence[str] = NAMES,
    *,
    fit: Fit | None = None,
    ids: Sequence[int] | None = None,
    sample: list[SampledDocument] | None = None,
    made_with: tuple[str, ...] = MADE_WITH,
    n_documents: int = 100,
    config: FaithfulnessConfig = CONFIG,
) -> tuple[Measured, Forwards]:
    """What is measured with the rows of `before` in the lake, and what went through the model."""
    fit = fit or fit_on(names)
    previous = stored(before) if isinstance(before, Measured) else before
    with counted_forwards(MODEL) as forwards:
        measured = measure_faithfulness(
            MODEL,
            SITE,
            sample or sampled(names, n_documents),
            fit,
            list(fit.feature_ids) if ids is None else ids,
            config,
            made_with=made_with,
            previous=previous,
        )
    assert measured.work.spent.forward_tokens == forwards.n_tokens, "the count is not true"
    assert measured.work.rows_reused + measured.work.rows_computed == len(measured.documents)
    return measured, forwards


def stored(measured: Measured) -> pl.DataFrame:
    """The rows as a later run reads them from the lake: conformed, in key order."""
    table = FAITHFULNESS_DOCUMENTS
    return table.conform(measured.documents, PARTITION).sort(table.key)


def computed(measured: Measured, before: Measured) -> pl.DataFrame:
    """Rows whose fingerprint was not there before."""
    known = before.documents["row_fingerprint"].implode()
    return measured.documents.filter(~pl.col("row_fingerprint").is_in(known))


def assert_close(one: Measured, other: Measured) -> None:
    for name in ("documents", "replacements", "features"):
        a, b = getattr(one, name), getattr(other, name)
        for column in a.columns:
            if a[column].dtype.is_float():
                assert a[column].to_list() == pytest.approx(b[column].to_list(), abs=1e-4)
            else:
                assert a[column].to_list() == b[column].to_list(), column


def assert_same(one: Measured, other: Measured) -> None:
    for name in ("documents", "replacements", "features"):
        assert getattr(one, name).equals(getattr(other, name)), name


SAMPLE = sampled(NAMES)
FIRST = measure()[0]


@pytest.fixture
def no_filling_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: forwards hold nothing but what is asked for."""
    monkeypatch.setattr(runs, "ROWS_PER_THREAD", 0)


def test_the_same_again_runs_nothing_and_gives_the_same_rows() -> None:
    again, forwards = measure(FIRST)
    assert_same(again, FIRST)
    assert again.work.rows_computed == 0 and again.work.spent == Spent()
    assert not forwards.documents
    anew, forwards = measure()
    assert_same(anew, FIRST)
    assert anew.work.rows_computed == len(FIRST.documents) == 5 * len(NAMES) + 2 * 3
    assert forwards.documents and anew.work.spent.layer_token_evaluations > 0


def test_a_document_more_in_the_sample_is_its_own_runs_alone(no_filling_up: None) -> None:
    more, forwards = measure(FIRST, MORE)
    scratch, all_forwards = measure(names=MORE)
    assert_close(more, scratch)
    assert more.replacements["n_documents"].to_list() == [6] * 5
    anew = computed(more, FIRST)
    assert set(anew["document_id"]) == {"o"} and set(anew["replacement"]) >= set(REPLACEMENTS)
    # As it is, with each replacement (no token is massive: the last two are one), and without
    # each feature that is strongest there.
    n_ablated = more.documents.filter(document_id="o", replacement="ablation").height
    assert forwards.n_runs_of("o") == len(forwards.documents) == 1 + 4 + n_ablated
    assert len(all_forwards.documents) > 3 * len(forwards.documents)
    kept = more.documents.join(anew, on="row_fingerprint", how="anti")
    assert kept.equals(FIRST.documents.join(kept, on="row_fingerprint", how="semi"))


def test_a_document_that_puts_out_another_runs_where_features_lose_that_one() -> None:
    names = [f"d{i}" for i in range(14)]
    ids = [one.document.document_id for one in sampled(names, 8)]
    entered = ids[3]
    before_names = [name for name in names if name != entered]
    (gone,) = {o.document.document_id for o in sampled(before_names, 8)} - set(ids)
    before, _ = measure(names=before_names, n_documents=8)
    after, forwards = measure(before, names, n_documents=8)
    assert_close(after, measure(names=names, n_documents=8)[0])
    assert forwards.n_runs_of(gone) == 0
    anew = computed(after, before)
    others = anew.filter(pl.col("document_id") != entered)
    lost = before.documents.filter(document_id=gone, replacement="ablation")["feature_id"]
    assert set(others["replacement"]) <= {"ablation"}
    assert set(others["feature_id"]) <= set(lost)


def test_more_documents_asked_for_run_those_alone() -> None:
    names = [f"d{i}" for i in range(20)]
    eight, _ = measure(names=names, n_documents=8)
    twelve, forwards = measure(eight, names, n_documents=12)
    assert_close(twelve, measure(names=names, n_documents=12)[0])
    new = set(twelve.documents["document_id"]) - set(eight.documents["document_id"])
    assert len(new) == 4
    assert set(computed(twelve, eight)["document_id"]) == new
    assert len(forwards.documents) == sum(forwards.n_runs_of(name) for name in new)
    fewer, forwards = measure(twelve, names, n_documents=8)
    assert set(computed(fewer, twelve)["replacement"]) <= {"ablation"}
    assert_close(fewer, eight)


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


def test_documents_outside_the_sample_change_nothing() -> None:
    names = [f"d{i}" for i in range(14)]
    inside = {one.document.document_id for one in sampled(names, 3)}
    outside = next(name for name in names if name not in inside)
    before, _ = measure(names=[n for n in names if n != outside], n_documents=3)
    after, forwards = measure(before, names, n_documents=3)
    assert not forwards.documents
    assert_same(after, before)


def test_rows_moved_by_a_document_before_them_are_the_same_rows() -> None:
    backwards = list(reversed(NAMES))
    moved, forwards = measure(FIRST, backwards, fit=fit_on(backwards))
    assert not forwards.documents
    assert_same(moved, FIRST)


def test_documents_of_the_same_tokens_are_run_once(no_filling_up: None) -> None:
    names = [*NAMES, "b'"]
    twice, forwards = measure(names=names)
    own = twice.documents.filter(pl.col("document_id").is_in(["b", "b'"]))
    replaced = own.filter(pl.col("feature_id").is_null())
    one, other = replaced.partition_by("document_id", include_key=False)
    assert one.equals(other)
    n_ablated = own["feature_id"].drop_nulls().n_unique()
    assert n_ablated and forwards.n_runs_of("b") == 1 + 4 + n_ablated


def test_massive_tokens_count_only_where_they_are_kept(no_filling_up: None) -> None:
    def flagged(name: str, *places: int) -> list[SampledDocument]:
        return [
            replace(one, is_massive=tuple(i in places for i in range(one.document.n_rows)))
            if one.document.document_id == name
            else one
            for one in sampled(NAMES)
        ]

    more, forwards = measure(FIRST, sample=flagged("a", 0))
    assert len(forwards.documents) == 2 and forwards.n_runs_of("a") == 2
    assert computed(more, FIRST)["replacement"].to_list() == ["reconstruction_keep_massive"]
    assert_close(more, measure(sample=flagged("a", 0))[0])
    none, forwards = measure(FIRST, sample=flagged("m"))
    assert not forwards.documents, "with none massive it is the reconstruction"
    assert_close(none, measure(sample=flagged("m"))[0])


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
    for setting in ({"n_bootstrap": 60}, {"n_documents_per_feature": 1}):
        config = CONFIG.model_copy(update=setting)
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


def test_rows_of_unknown_origin_are_measured_anew() -> None:
    unknown = stored(FIRST).with_columns(pl.lit(None, dtype=pl.String).alias("row_fingerprint"))
    again, _ = measure(unknown)
    assert again.work.rows_reused == 0
    assert_same(again, FIRST)


def test_both_tables_are_sums_of_the_rows() -> None:
    zero = FIRST.documents.filter(replacement="zero")
    row = FIRST.replacements.row(by_predicate=pl.col("replacement") == "zero", named=True)
    assert row["n_tokens"] == zero["n_tokens"].sum() == sum(o.document.n_rows - 1 for o in SAMPLE)
    means = zero.select(pl.col("cross_entropy_base", "cross_entropy_replaced", "kl_nats").sum())
    assert [row["cross_entropy_base"], row["cross_entropy_zero"], row["kl_nats"]] == pytest.approx(
        [value / row["n_tokens"] for value in means.row(0)]
    )
    worth = dict(
        zero.select(
            "document_id", pl.col("cross_entropy_replaced") - pl.col("cross_entropy_base")
        ).iter_rows()
    )
    for of_feature in FIRST.features.filter(status="ok").iter_rows(named=True):
        own = FIRST.documents.filter(feature_id=of_feature["feature_id"])
        delta = (own["cross_entropy_replaced"] - own["cross_entropy_base"]).sum()
        assert of_feature["n_documents"] == len(own) == 2
        assert of_feature["delta_cross_entropy"] * own["n_tokens"].sum() == pytest.approx(delta)
        total = sum(worth[name] for name in own["document_id"])
        if total > 0:
            assert of_feature["share_of_zero_ablation"] == pytest.approx(delta / total)
        else:
            assert of_feature["share_of_zero_ablation"] is None
