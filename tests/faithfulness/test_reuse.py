"""Documents come and go: what was run before is taken over, the rest is run; results are alike."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from assets.faithfulness import runs
from assets.faithfulness.replaced_forward import Spent
from assets.faithfulness.replacements import REPLACEMENTS
from assets.faithfulness.sample import SampledDocument
from tests.faithfulness.changing_sample import fit_on, sampled
from tests.faithfulness.measured_again import (
    FIRST,
    NAMES,
    assert_close,
    assert_same,
    computed,
    measure,
    stored,
)

MORE = [*NAMES, "o"]
SAMPLE = sampled(NAMES)


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
