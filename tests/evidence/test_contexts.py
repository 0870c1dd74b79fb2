"""Contexts against brute force: strongest first, one a document, kinds disjoint by document."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from assets.evidence.config import EvidenceConfig
from assets.evidence.contexts import build_contexts
from assets.evidence.tables import CONTEXTS

PARTITION = {"site": "s", "fit": "f"}


def coefficients_frame(matrix: object, rows: np.ndarray | None = None) -> pl.DataFrame:
    """The long frame of a matrix's non-zeros; `rows` name its rows (0, 1, … without it)."""
    entries = sparse.coo_array(matrix)
    token_rows = np.arange(entries.shape[0]) if rows is None else rows
    return pl.DataFrame(
        {
            "row": token_rows[entries.row].astype(np.int64),
            "feature_id": entries.col.astype(np.int32),
            "coefficient": entries.data.astype(np.float32),
        }
    )


def make_tokens(lengths: list[int], massive_rows: tuple[int, ...] = ()) -> pl.DataFrame:
    rows = [
        (f"d{document:03d}", position, f" w{document}x{position}")
        for document, length in enumerate(lengths)
        for position in range(length)
    ]
    frame = pl.DataFrame(rows, schema=["document_id", "position", "token"], orient="row")
    return frame.with_row_index("row").with_columns(
        pl.col("row").cast(pl.Int64),
        pl.col("position").cast(pl.Int32),
        is_massive=pl.col("row").is_in(list(massive_rows)),
    )


def random_case(seed: int, k: int = 4, density: float = 0.3) -> tuple[np.ndarray, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, size=40).tolist()
    dense = rng.random((sum(lengths), k)) * (rng.random((sum(lengths), k)) < density)
    return dense.astype(np.float32), make_tokens(lengths)


CONFIG = EvidenceConfig(n_top=4, n_sampled=3, n_held_out=5, n_negative=4, window=2, seed=7)


@given(seed=st.integers(0, 10_000), density=st.sampled_from([0.02, 0.2, 0.9]))
@settings(max_examples=30, deadline=None)
def test_properties_of_any_corpus(seed: int, density: float) -> None:
    dense, tokens = random_case(seed, density=density)
    contexts = build_contexts(coefficients_frame(dense), tokens, CONFIG)
    CONTEXTS.conform(contexts, PARTITION)  # types, bounds, unique keys
    document_of = tokens["document_id"].to_numpy()
    for (feature,), rows in contexts.group_by("feature_id"):
        column = dense[:, feature]
        assert rows["document_id"].n_unique() == len(rows), "a document gives one context"
        by_document = {d: column[document_of == d].max() for d in set(document_of)}
        threshold = CONFIG.firing_share * column.max()
        for row in rows.iter_rows(named=True):
            assert row["coefficient"] == column[row["row"]]
            peak = by_document[row["document_id"]]
            if row["kind"] == "negative":
                assert peak <= threshold
            else:
                assert row["coefficient"] == peak > threshold
    never_firing = set(np.flatnonzero(dense.max(axis=0) == 0).tolist())
    assert never_firing.isdisjoint(contexts["feature_id"].to_list())


def test_top_and_held_out_are_the_strongest_documents_of_their_halves() -> None:
    dense, tokens = random_case(3, k=1)
    document_of = tokens["document_id"].to_numpy()
    strength = {d: dense[document_of == d, 0].max() for d in set(document_of)}
    brute = sorted(strength, key=lambda d: -strength[d])
    # With room for all, the halves show.
    whole = CONFIG.model_copy(update={"n_top": 50, "n_held_out": 100})
    halves = build_contexts(coefficients_frame(dense), tokens, whole)
    shown, kept = (
        halves.filter(kind=kind)["document_id"].to_list() for kind in ("top", "held_out")
    )
    assert shown[0] == brute[0] and kept[0] == brute[1]
    assert [d for d in brute if d in {*shown, *kept}] == brute[: len(shown) + len(kept)]
    contexts = build_contexts(coefficients_frame(dense), tokens, CONFIG)
    top, sampled, held_out = (
        contexts.filter(kind=kind).sort("rank_in_kind") for kind in ("top", "sampled", "held_out")
    )
    assert top["document_id"].to_list() == shown[:4]
    assert held_out["document_id"].to_list()[:3] == kept[:3]
    assert set(sampled["document_id"]) <= set(shown[4:])
    assert set(held_out["document_id"]) <= set(kept)
    assert held_out["coefficient"].is_sorted(descending=True)
    assert top["row"][0] == int(dense[:, 0].argmax())


def test_windows_stay_in_their_document_and_carry_their_coefficients() -> None:
    tokens = make_tokens([3, 6, 2])
    dense = np.zeros((11, 1), dtype=np.float32)
    dense[[3, 5, 6], 0] = [0.5, 2.0, 1.0]
    config = EvidenceConfig(n_top=1, n_sampled=0, n_held_out=0, n_negative=5, window=2)
    contexts = build_contexts(coefficients_frame(dense), tokens, config)
    top = contexts.row(0, named=True)
    assert (top["kind"], top["row"], top["document_id"], top["position"]) == ("top", 5, "d001", 2)
    assert top["text"] == " w1x0 w1x1 w1x2 w1x3 w1x4"
    assert top["marked_text"] == " w1x0 w1x1 «w1x2» w1x3 w1x4"
    assert (top["peak_token"], top["token"]) == ("w1x2", " w1x2")
    assert top["window_coefficients"] == [0.5, 0.0, 2.0, 1.0, 0.0]
    assert len(top["window_tokens"]) == 5
    negative = contexts.filter(pl.col("kind") == "negative")
    assert sorted(negative["document_id"].to_list()) == ["d000", "d002"]
    assert negative["coefficient"].to_list() == [0.0, 0.0]


def test_massive_tokens_are_text_but_never_a_peak() -> None:
    tokens = make_tokens([3, 3, 3], massive_rows=(0, 3))
    dense = np.zeros((9, 1), dtype=np.float32)
    dense[[0, 1, 3, 4], 0] = [90.0, 1.0, 80.0, 2.0]
    config = EvidenceConfig(n_top=5, n_sampled=0, n_held_out=0, n_negative=0, window=1)
    contexts = build_contexts(coefficients_frame(dense), tokens, config)
    assert contexts["row"].to_list() == [4, 1]
    assert contexts["window_tokens"][0].to_list() == [" w1x0", " w1x1", " w1x2"]


def test_rows_are_matched_by_number_not_by_place() -> None:
    dense, tokens = random_case(5)
    shifted = tokens.with_columns(pl.col("row") + 1000).sample(fraction=1.0, shuffle=True, seed=1)
    rows = np.arange(len(dense)) + 1000
    moved = build_contexts(coefficients_frame(sparse.csr_array(dense), rows), shifted, CONFIG)
    plain = build_contexts(coefficients_frame(dense), tokens, CONFIG)
    assert moved.with_columns(pl.col("row") - 1000).equals(plain)


def test_the_seed_decides_the_draws_and_only_them() -> None:
    dense, tokens = random_case(8)
    coefficients = coefficients_frame(dense)
    first = build_contexts(coefficients, tokens, CONFIG)
    other = build_contexts(coefficients, tokens, CONFIG.model_copy(update={"seed": 8}))
    assert first.equals(build_contexts(coefficients, tokens, CONFIG))
    assert not first.equals(other)
    # Where all documents in which a feature fires are shown, only the negatives are drawn.
    shows_all = {"n_top": 50, "n_held_out": 0}
    one, two = (
        build_contexts(coefficients, tokens, CONFIG.model_copy(update=shows_all | {"seed": seed}))
        for seed in (7, 8)
    )
    is_top = pl.col("kind") == "top"
    assert one.filter(is_top).equals(two.filter(is_top))
    assert not one.equals(two)


def test_one_feature_does_not_depend_on_the_others() -> None:
    dense, tokens = random_case(9)
    coefficients = coefficients_frame(dense)
    alone = build_contexts(coefficients.filter(pl.col("feature_id") == 2), tokens, CONFIG)
    together = build_contexts(coefficients, tokens, CONFIG)
    assert alone.equals(together.filter(pl.col("feature_id") == 2))


def test_no_coefficients_give_an_empty_table() -> None:
    _, tokens = random_case(1)
    contexts = build_contexts(coefficients_frame(np.zeros((len(tokens), 2))), tokens, CONFIG)
    assert contexts.is_empty()
    CONTEXTS.conform(contexts, PARTITION)


def test_rows_unknown_to_the_tokens_are_an_error() -> None:
    dense, tokens = random_case(1)
    with pytest.raises(ValueError, match="name token rows that the tokens lack"):
        build_contexts(coefficients_frame(dense), tokens.head(5), CONFIG)
    with pytest.raises(ValueError, match=r"lack the columns \['token'\]"):
        build_contexts(coefficients_frame(dense), tokens.drop("token"), CONFIG)
