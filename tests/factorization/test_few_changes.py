"""`on_new_tokens: auto`: few new or gone documents leave the dictionary, many make it anew."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from factorization.changing_documents import (
    SETTINGS,
    TOKENS_EACH,
    Corpus,
    fit_of,
    make,
    stored,
)
from polars.testing import assert_frame_equal

from assets.activations.shards import ActivationReader, ShardRecord, write_shard
from assets.factorization.comparison_tables import FEATURE_MATCHES, FIT_DOCUMENTS
from assets.factorization.fit_source import MatrixSource, ShardSource
from assets.factorization.fitting import MadeFit, make_fit
from assets.factorization.method_traits import ENCODED_METHODS
from assets.factorization.methods import METHODS
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, ENCODERS, FACTORIZATIONS


def row_of(made: MadeFit) -> dict:
    return made.frames[FACTORIZATIONS].row(0, named=True)


def coefficients_of(made: MadeFit, corpus: Corpus, numbers) -> pl.DataFrame:
    """Rows of `coefficients` of some documents, counted from the first of each."""
    rows = corpus.rows_of(numbers)
    places = pl.DataFrame(
        {"row": rows, "place": range(len(rows))}, schema_overrides={"row": pl.Int64}
    )
    return made.frames[COEFFICIENTS].join(places, on="row").drop("row").sort("place", "feature_id")


def assert_dictionary_stays(made: MadeFit, before: MadeFit) -> None:
    assert made.refit.start == "projected", made.refit.reason
    assert_frame_equal(made.frames[DICTIONARY], before.frames[DICTIONARY])
    for column in (
        "feature_ids",
        "next_feature_id",
        "n_tokens_fit",
        "activation_scale",
        "mean_row",
    ):
        assert row_of(made)[column] == row_of(before)[column], column
    assert set(made.frames[FEATURE_MATCHES]["kind"]) == {"kept"}


@pytest.mark.parametrize("method", METHODS)
def test_one_document_of_a_hundred_leaves_everything_else_to_the_byte(method):
    fit = fit_of(method)
    old, new = Corpus(range(100)), Corpus([*range(40), 110, *range(40, 100)])
    before = make(old, fit)
    made = make(new, fit, before)
    assert_dictionary_stays(made, before)
    assert_frame_equal(
        coefficients_of(made, new, range(100)), coefficients_of(before, old, range(100))
    )
    assert row_of(made)["n_tokens_changed"] == (
        TOKENS_EACH if 110 % 4 >= 2 or not fit.is_supervised else 0
    )
    assert row_of(made)["n_tokens"] == 101 * TOKENS_EACH
    assert made.factorization.stop_reason.startswith(
        f"dictionary kept; coefficients of {TOKENS_EACH} tokens solved"
    )
    assert row_of(made)["explained_variance"] != row_of(before)["explained_variance"]


@pytest.mark.parametrize("method", METHODS)
def test_new_tokens_get_what_the_fit_gave_tokens_like_them(method):
    """The same rows under another id: solved anew, they come out as they were."""
    corpus = Corpus(range(100))
    fit = fit_of(method, on_new_tokens="project")
    before = make(corpus, fit)
    corpus.inputs.documents[:] = [f"again-{name}" for name in corpus.inputs.documents]
    made = make(corpus, fit, before)
    assert made.factorization.stop_reason.startswith("dictionary kept; coefficients of 800 tokens")
    ours, theirs = made.factorization.coefficients, before.factorization.coefficients
    atol = 0.02 * float(theirs.max())
    if method == "nmf":
        atol *= 3  # solved to the violation that the library's tol allows
    assert torch.allclose(ours, theirs, atol=atol)


def test_changes_add_up_to_a_refit_and_then_begin_anew():
    fit = fit_of()
    made = make(Corpus(range(100)), fit)
    for n_new in (2, 4, 5):
        before, made = made, make(Corpus(range(100 + n_new)), fit, made)
        assert_dictionary_stays(made, before)
        assert row_of(made)["n_tokens_changed"] == n_new * TOKENS_EACH
        assert row_of(made)["started_from_snapshot"] == 7
    refitted = make(Corpus(range(106)), fit, made)
    assert refitted.refit.start == "warm"
    assert refitted.refit.reason == (
        "48 tokens changed since the dictionary was fitted on 800 (6.00%), more than refit_share "
        "0.05"
    )
    assert row_of(refitted)["n_tokens_changed"] == 0
    assert row_of(refitted)["n_tokens_fit"] == 106 * TOKENS_EACH
    assert make(Corpus(range(111)), fit, refitted).refit.start == "projected"


def test_documents_that_come_back_count_no_more():
    fit = fit_of()
    made = make(Corpus(range(100)), fit)
    without = make(Corpus(range(5, 100)), fit, made)
    assert (without.refit.start, row_of(without)["n_tokens_changed"]) == ("projected", 40)
    gone = without.frames[FIT_DOCUMENTS].filter(pl.col("first_row").is_null())
    assert set(gone["document_id"]) == {f"d{n}" for n in range(5)}
    assert (gone["n_tokens_fitted"] == TOKENS_EACH).all()
    back = make(Corpus(range(100)), fit, without)
    assert (back.refit.start, row_of(back)["n_tokens_changed"]) == ("projected", 0)
    assert_frame_equal(back.frames[DICTIONARY], made.frames[DICTIONARY])
    assert_frame_equal(back.frames[FIT_DOCUMENTS], made.frames[FIT_DOCUMENTS])
    # Documents that were gone have coefficients solved for them, the others those of the fit.
    old, now = Corpus(range(100)), Corpus(range(100))
    assert_frame_equal(
        coefficients_of(back, now, range(5, 100)), coefficients_of(made, old, range(5, 100))
    )


@pytest.mark.parametrize(("n_gone", "start"), [(5, "projected"), (6, "warm")])
def test_gone_documents_count_as_new_ones_do(n_gone, start):
    fit = fit_of()
    old, new = Corpus(range(100)), Corpus(range(n_gone, 100))
    before = make(old, fit)
    made = make(new, fit, before)
    assert made.refit.start == start
    if start == "projected":
        assert_frame_equal(
            coefficients_of(made, new, new.numbers), coefficients_of(before, old, new.numbers)
        )
        assert "coefficients of 0 tokens solved" in made.factorization.stop_reason


def test_an_edited_document_is_one_gone_and_one_new():
    fit = fit_of(refit_share=0.02)
    old = Corpus(range(100))
    before = make(old, fit)
    once = Corpus(range(100), edited={30})
    made = make(once, fit, before)
    assert_dictionary_stays(made, before)
    assert row_of(made)["n_tokens_changed"] == 2 * TOKENS_EACH
    others = [n for n in range(100) if n != 30]
    assert_frame_equal(coefficients_of(made, once, others), coefficients_of(before, old, others))
    assert not coefficients_of(made, once, [30]).equals(coefficients_of(before, old, [30]))
    assert make(Corpus(range(100), edited={30, 31}), fit, made).refit.start == "warm"


def test_other_activations_of_all_documents_are_a_refit():
    fit = fit_of()
    before = make(Corpus(range(100)), fit)
    assert make(Corpus(range(100), edited=range(100)), fit, before).refit.start == "warm"


def test_reordered_documents_take_their_coefficients_with_them():
    fit = fit_of()
    old, new = Corpus(range(100)), Corpus(reversed(range(100)))
    before = make(old, fit)
    made = make(new, fit, before)
    assert_dictionary_stays(made, before)
    assert_frame_equal(
        coefficients_of(made, new, range(100)), coefficients_of(before, old, range(100))
    )


def test_tokens_that_leave_the_fit_as_massive_count():
    fit = fit_of()
    before = make(Corpus(range(100)), fit)
    few = make(Corpus(range(100), massive=range(5)), fit, before)
    assert (few.refit.start, row_of(few)["n_tokens_changed"]) == ("projected", 40)
    assert row_of(few)["n_massive_excluded"] == 40
    assert make(Corpus(range(100), massive=range(6)), fit, before).refit.start == "warm"


def test_the_share_is_met_to_the_token():
    for share, n_new, start in (
        (0.29, 29, "projected"),
        (0.29, 30, "warm"),
        (0.0, 1, "warm"),
        (1.0, 30, "projected"),
    ):
        fit = fit_of(refit_share=share, max_iter=3)
        before = make(Corpus(range(100)), fit)
        made = make(Corpus(range(100 + n_new)), fit, before)
        assert made.refit.start == start, (share, n_new)


@pytest.mark.parametrize(
    ("settings", "change", "start"),
    [
        ({}, {"penalty_concavity": 0.3}, "cold"),
        ({}, {"split_threshold": 0.4}, "warm"),
        ({"on_new_tokens": "refit"}, {}, "warm"),
        ({"warm_start": False}, {}, "cold"),
    ],
)
def test_settings_still_decide(settings, change, start):
    fit = fit_of(max_iter=20, **settings)
    before = make(Corpus(range(100)), fit)
    changed = fit_of(max_iter=20, **settings | change)
    made = make(
        Corpus(range(101)), changed, before, settings=SETTINGS + repr(change) * bool(change)
    )
    assert made.refit.start == start


@pytest.mark.parametrize("method", ENCODED_METHODS)
def test_a_fit_from_before_encoders_were_recorded_is_made_anew(method):
    fit = fit_of(method, max_iter=20)
    before = make(Corpus(range(100)), fit)
    before.frames[ENCODERS] = before.frames[ENCODERS].clear()
    made = make(Corpus(range(101)), fit, before)
    assert made.refit.start == "cold"
    assert made.refit.reason == "the encoder of the fit before is not recorded"


def test_rank_auto_stays_with_the_dictionary_and_is_chosen_anew_with_it():
    fit = fit_of(rank="auto", rank_candidates=(5, 10), rank_seeds=1, max_iter=30)
    before = make(Corpus(range(100)), fit)
    made = make(Corpus(range(103)), fit, before)
    assert_dictionary_stays(made, before)
    assert made.rank_choice is None and made.fit.rank == before.fit.rank
    assert made.refit.start == "projected"
    refitted = make(Corpus(range(110)), fit, made)
    assert refitted.rank_choice is not None


def test_directions_of_other_concepts_are_made_anew():
    fit = fit_of("diff_means", refit_share=1.0)
    before = make(Corpus(range(100)), fit)
    assert make(Corpus(range(100), relabelled={3}), fit, before).refit.start == "cold"
    # Relabelled as its neighbour: the same concepts, one document gone and one new.
    same = Corpus(range(100))
    same.inputs.concepts[3 * TOKENS_EACH : 4 * TOKENS_EACH] = ["red"] * TOKENS_EACH
    made = make(same, fit, before)
    assert_dictionary_stays(made, before)
    assert row_of(made)["n_tokens_changed"] == 2 * TOKENS_EACH


def test_no_direction_is_measured_on_what_it_was_made_of():
    fit = fit_of("diff_means", refit_share=1.0)
    before = make(Corpus(range(100)), fit)
    made = make(Corpus(range(100), swapped={3}), fit, before)
    assert made.refit.start == "cold"
    assert made.refit.reason == "documents it was fitted on are now to be measured on (1)"
    # The other way round nothing leaks: a held-out document would now be fitted on.
    assert make(Corpus(range(100), swapped={0}), fit, before).refit.start == "projected"


def test_a_fit_from_before_documents_were_recorded_is_made_anew():
    fit = fit_of()
    corpus = Corpus(range(100))
    made = make(corpus, fit)
    made.frames[FIT_DOCUMENTS] = made.frames[FIT_DOCUMENTS].clear()
    again = make(Corpus(range(101)), fit, made)
    assert again.refit.start == "warm"
    assert again.refit.reason == "which documents it was fitted on is not recorded"


def test_a_dictionary_that_had_not_converged_does_not_come_to_by_projection():
    fit = fit_of(max_iter=1, tol=1e-9)
    before = make(Corpus(range(100)), fit)
    made = make(Corpus(range(101)), fit, before)
    assert not row_of(before)["is_converged"] and not row_of(made)["is_converged"]
    assert "the fit before had not converged" in row_of(made)["stop_reason"]


@pytest.mark.parametrize("method", ["snmf", "random", "covariance"])
def test_a_streamed_projection_keeps_coefficients_too(tmp_path, monkeypatch, method):
    monkeypatch.setattr("assets.activations.shards.ROW_GROUP_SIZE", 100)
    fit = fit_of(method)

    def shards(corpus: Corpus, name: str) -> tuple[ShardSource, Corpus]:
        records, first = [], 0
        for number, rows in enumerate(corpus.activations.split(300)):
            file = write_shard(tmp_path / f"{name}-{number}.parquet", rows)
            records.append(
                ShardRecord(**vars(file), shard=number, first_row=first, n_dropped_special=0)
            )
            first += len(rows)
        return ShardSource(ActivationReader(records, tmp_path), corpus.inputs, tmp_path), corpus

    old_source, old = shards(Corpus(range(100)), "old")
    new_source, new = shards(Corpus([*range(30), *range(31, 100), 120]), "new")
    before = make_fit(old_source, fit, old.inputs, None, settings=SETTINGS)
    made = make_fit(new_source, fit, new.inputs, stored(before), settings=SETTINGS)
    assert_dictionary_stays(made, before)
    kept = [n for n in range(100) if n != 30]
    assert_frame_equal(coefficients_of(made, new, kept), coefficients_of(before, old, kept))
    in_memory = MatrixSource(new_source._reader.load(), new.inputs)
    same = make_fit(in_memory, fit, new.inputs, stored(before), settings=SETTINGS)
    assert_frame_equal(made.frames[FIT_DOCUMENTS], same.frames[FIT_DOCUMENTS])
    assert_frame_equal(made.frames[COEFFICIENTS], same.frames[COEFFICIENTS])
    assert row_of(made)["explained_variance"] == pytest.approx(row_of(same)["explained_variance"])
