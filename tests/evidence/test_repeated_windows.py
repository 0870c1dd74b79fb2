"""No window kept back repeats the words of one that is shown, however alike documents are."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from assets.corpus.halves import split_in_halves
from assets.evidence.config import EvidenceConfig
from assets.evidence.contexts import build_contexts
from assets.evidence.document_draws import DocumentDraws
from assets.evidence.repeated_windows import SeenWindows, TwoSides
from assets.labels.asked_texts import check_disjoint
from assets.labels.evidence_shown import SHOWN_KINDS
from assets.shared.word_runs import minhashes, normalised_words

CONFIG = EvidenceConfig(n_top=6, n_sampled=4, n_held_out=10, n_negative=10, window=8)
PLAIN = " ".join(f"plain{i}" for i in range(25))


@pytest.mark.parametrize(
    "repeated",
    [
        "The council voted on Monday, to close the old bridge over the river.",
        "the council VOTED on monday to close the old bridge over the river",
        "so the council voted on Monday to close the old harbour yesterday evening, "
        "and nobody from any of the villages came",
        "he voted on Monday to close the old bridge over",
    ],
)
def test_what_a_reader_has_seen_is_a_repeat(repeated: str) -> None:
    seen = SeenWindows(["The council voted on Monday to close the old bridge over the river"])
    assert seen.has_repeat(repeated)


@pytest.mark.parametrize(
    "other",
    [
        "The council voted on Monday to build a school beside the old mill",
        "on Monday",
        "The bridge over the river was closed by the old council that voted on Monday",
    ],
)
def test_a_turn_of_phrase_is_none(other: str) -> None:
    seen = SeenWindows(["The council voted on Monday to close the old bridge over the river"])
    assert not seen.has_repeat(other)
    assert not SeenWindows().has_repeat(other)


def test_a_template_with_other_numbers_is_a_repeat_and_a_list_of_numbers_is_not() -> None:
    seen = SeenWindows(["Order 8812 of 2024-03-01 was sent", "1 2 3 5 8 13 21 34 55"])
    assert seen.has_repeat("Order 17 of 2023-12-24 was sent")
    assert not seen.has_repeat("2 3 5 7 11 13 17 19 23")


def test_the_later_of_two_gives_way_and_the_next_is_taken() -> None:
    texts = ["a b c", "d e f", "A, b, c", "g h i", "d e f!", "j"]
    sides = TwoSides(lambda token: texts[token])
    assert sides.show([0, 1], 2).tolist() == [0, 1]
    assert sides.keep([2, 3, 4, 5], 2).tolist() == [1, 3]
    assert sides.n_left_out == 2
    assert sides.show([3, 0], 5).tolist() == [1]
    assert sides.keep([], 5).tolist() == sides.keep([5], 0).tolist() == []


def test_nothing_is_shown_of_which_a_kept_window_would_be_a_repeat() -> None:
    short, around = "come back again very soon", "please do come back again very soon to our house"
    # Of the seven runs of five words of the last, each of the others holds three.
    pieces = ["a b c d e f g", "d e f g h i j", "a b c d e f g h i j k"]
    texts = [short, around, *pieces, "other words"]
    sides = TwoSides(lambda token: texts[token])
    assert sides.keep([0], 1).tolist() == [0]
    assert sides.show([1, 5], 2).tolist() == [1]
    sides = TwoSides(lambda token: texts[token])
    assert sides.keep([4], 1).tolist() == [0]
    assert sides.show([2, 3], 2).tolist() == [0]
    assert sides.n_left_out == 1
    assert not any(SeenWindows([one]).has_repeat(pieces[2]) for one in pieces[:2])
    assert SeenWindows(pieces[:2]).has_repeat(pieces[2])


def corpus(texts: list[str], strengths: list[float]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Feature 0 fires at the ninth word of each text by its strength; feature 1 by 1 - strength."""
    words = [[f" {word}" for word in text.split()] for text in texts]
    tokens = pl.DataFrame(
        [
            (f"{i * 2654435761 % 2**32:08x}", position, token)
            for i, of_text in enumerate(words)
            for position, token in enumerate(of_text)
        ],
        schema={"document_id": pl.String, "position": pl.Int32, "token": pl.String},
        orient="row",
    ).with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    peaks = np.cumsum([0, *(len(of_text) for of_text in words)])[:-1] + 8
    values = np.array(strengths, dtype=np.float32)
    coefficients = pl.DataFrame(
        {
            "row": np.concatenate([peaks, peaks]).astype(np.int64),
            "feature_id": np.repeat(np.array([0, 1], dtype=np.int32), len(texts)),
            "coefficient": np.concatenate([values, (values < 0.3).astype(np.float32)]),
        }
    )
    return coefficients, tokens


def pairs(n: int, seed: int, length: int = 20) -> list[str]:
    """Two texts each, which differ in the last character."""
    rng = np.random.default_rng(seed)
    bodies = [" ".join(f"w{w}" for w in rng.integers(0, 3000, length)) for _ in range(n)]
    return [f"{body} end{last}" for body in bodies for last in "xy"]


def windows(contexts: pl.DataFrame, feature_id: int = 0) -> tuple[set, set]:
    of_feature = contexts.filter(feature_id=feature_id)
    is_shown = pl.col("kind").is_in(SHOWN_KINDS)
    shown, kept = (
        {normalised_words(text) for text in of_feature.filter(which)["text"]}
        for which in (is_shown, ~is_shown)
    )
    return shown, kept


@pytest.mark.parametrize("seed", range(6))
def test_of_20_pairs_that_differ_in_the_last_character_none_is_on_both_sides(seed: int) -> None:
    texts = pairs(20, seed)
    # A pair fires alike, so that it stands together in the walk from the strongest down.
    strengths = [1 - 0.01 * (i // 2) - 1e-4 * (i % 2) for i in range(40)]
    contexts = build_contexts(*corpus(texts, strengths), CONFIG)
    shown, kept = windows(contexts)
    assert len(contexts.filter(kind="held_out", feature_id=0)) >= 6
    assert not shown & kept
    # Nor are pairs of silent documents, shown as near misses and kept as hard negatives.
    texts, strengths = [*texts, *pairs(20, seed + 100)], [*strengths, *[0.0] * 40]
    config = CONFIG.model_copy(update={"n_negative": 4, "n_near_miss": 8, "n_hard_negative": 8})
    near = build_contexts(*corpus(texts, strengths), config, similar={0: [1]})
    assert {"near_miss", "hard_negative", "negative"} <= set(near["kind"])
    shown, kept = windows(near)
    assert not shown & kept


@pytest.mark.parametrize("length", [16, 20, 40])
def test_pairs_that_differ_in_the_last_character_go_to_one_half(length: int) -> None:
    texts = pairs(400, 0, length)
    ids = [f"id {i}" for i in range(800)]

    def share_together(halves: np.ndarray) -> float:
        return float(np.mean(halves[::2] == halves[1::2]))

    concepts = [f"concept {i // 2 % 8}" for i in range(800)]
    for seed in range(3):
        draws, control = (DocumentDraws(ids, of, seed) for of in (minhashes(texts), ids))
        assert share_together(draws.are_shown(np.arange(800), seed)) >= 0.9
        assert share_together(control.are_shown(np.arange(800), seed)) < 0.6
        assert share_together(split_in_halves(minhashes(texts), concepts, seed)) >= 0.9
        assert share_together(split_in_halves(ids, concepts, seed)) < 0.6


def test_a_near_miss_that_holds_a_short_kept_window_does_not_stop_labels() -> None:
    # Feature 0 fires in short documents, feature 1 where each of them is quoted.
    short = [" ".join(f"word{i}{letter}" for letter in "abcde") for i in range(12)]
    quoting = [f"please do {text} whoever asks{i}" for i, text in enumerate(short)]
    rows = [
        (f"{i:04x}", position, f" {word}")
        for i, text in enumerate([*short, *quoting])
        for position, word in enumerate(text.split())
    ]
    schema = {"document_id": pl.String, "position": pl.Int32, "token": pl.String}
    tokens = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("row")
    tokens = tokens.with_columns(pl.col("row").cast(pl.Int64))
    second = tokens.filter(pl.col("position") == 1).with_row_index("document")
    coefficients = second.select(
        "row",
        feature_id=(pl.col("document") >= len(short)).cast(pl.Int32),
        coefficient=pl.lit(1.0, pl.Float32),
    )
    config = CONFIG.model_copy(update={"n_negative": 0, "n_near_miss": 6, "n_hard_negative": 0})
    contexts = build_contexts(coefficients, tokens, config, similar={0: [1]})
    kept, misses = (
        contexts.filter(feature_id=0, kind=kind)["text"].to_list()
        for kind in ("held_out", "near_miss")
    )
    assert kept and misses
    assert not any(text.strip() in miss for text in kept for miss in misses)
    check_disjoint(contexts)


def test_boilerplate_leaves_fewer_and_every_row_of_the_feature_says_how_many() -> None:
    # Different documents, the same dozen words around every peak.
    foot = "subscribe to our letter and read all about the harbour each day"
    texts = [f"{foot} {PLAIN.replace('plain', f'other{i}x')}" for i in range(30)]
    strengths = [1 - 0.01 * i for i in range(30)]
    contexts = build_contexts(*corpus(texts, strengths), CONFIG.model_copy(update={"window": 6}))
    of_feature = contexts.filter(feature_id=0)
    assert set(of_feature["kind"]) == {"top", "sampled"}
    assert of_feature["n_repeats_left_out"].unique().item() > 5
    # The control: texts that have nothing to do with each other.
    free = [PLAIN.replace("plain", f"other{i}x") for i in range(30)]
    contexts = build_contexts(*corpus(free, strengths), CONFIG)
    assert set(contexts["n_repeats_left_out"]) == {0}
    assert len(contexts.filter(feature_id=0, kind="held_out")) == 10
