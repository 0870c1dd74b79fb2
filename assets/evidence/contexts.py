"""Contexts of features: which token windows are shown to a labeller, and which are kept back.

Each document gives one context per feature, at the feature's strongest token there, so evidence is
varied and the kinds are disjoint by document. So are, by their words, the windows shown and those
kept back (repeated_windows.py). A feature fires in a document whose strongest coefficient is above
`firing_share` of the feature's largest. Firing documents go to two halves (document_draws.py), so
that both have strong ones and near-duplicates are not parted: shown (`top`, then `sampled` over the
strengths of the rest) and `held_out` (half its strongest, half over the strengths of the rest).
`negative` contexts are draws, document and token, from documents where it does not fire;
`near_miss` and `hard_negative` ones are where a similar feature fires instead (near_misses.py).
Mixing strong contexts with ones of all strengths follows the idea of Paulo et al., arXiv 2410.13928
(sec. 3); held-out scoring contexts must not be seen by the labeller. Massive tokens (`is_massive`)
are read as text but never are a peak.

What a labeller is told about contexts belongs to the labels stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from assets.evidence.config import EvidenceConfig
from assets.evidence.document_draws import DocumentDraws
from assets.evidence.near_misses import DocumentPeaks, near_misses
from assets.evidence.repeated_windows import TwoSides
from assets.evidence.tables import CONTEXTS
from assets.evidence.words import mark_word
from assets.shared.word_runs import minhashes

_PARTITION = ("site", "fit")


@dataclass(frozen=True)
class _Corpus:
    """The tokens in reading order, and for each its document's number and extent.

    Document numbers follow the order of the ids, whatever the order of the rows.
    """

    rows: Int[np.ndarray, " n_tokens"]
    document_ids: list[str]
    positions: Int[np.ndarray, " n_tokens"]
    tokens: list[str]
    eligible: Bool[np.ndarray, " n_tokens"]
    document: Int[np.ndarray, " n_tokens"]
    document_start: Int[np.ndarray, " n_documents"]
    document_end: Int[np.ndarray, " n_documents"]
    has_eligible: Bool[np.ndarray, " n_documents"]

    def window(self, peak: int, size: int) -> slice:
        """The tokens of the peak's document that are at most `size` tokens from it."""
        document = self.document[peak]
        start = max(int(self.document_start[document]), peak - size)
        return slice(start, min(int(self.document_end[document]), peak + size + 1))

    def draws(self, seed: int) -> DocumentDraws:
        extents = list(zip(self.document_start.tolist(), self.document_end.tolist(), strict=True))
        texts = ("".join(self.tokens[start:end]) for start, end in extents)
        return DocumentDraws([self.document_ids[i] for i, _ in extents], minhashes(texts), seed)


@dataclass(frozen=True)
class _Chosen:
    """Peak token indices of one kind, and the similar feature of each where there is one."""

    tokens: Int[np.ndarray, " n"]
    similar: Int[np.ndarray, " n"] | None = None


def build_contexts(
    coefficients: pl.DataFrame,
    tokens: pl.DataFrame,
    config: EvidenceConfig,
    *,
    similar: Mapping[int, Sequence[int]] | None = None,
) -> pl.DataFrame:
    """Rows of the table `contexts`, without its partition columns.

    `coefficients` has columns row, feature_id, coefficient (≥ 0; zeros may be left out); `tokens`
    has row, document_id, position, token (decoded text, white space kept) and perhaps is_massive.
    `similar` names each feature's similar ones (similar_features.py); without it there are no near
    misses. Features without an active token get no rows. Raises ValueError where a coefficient
    names a row that `tokens` lacks, or where a column is missing.
    """
    corpus = _read_corpus(tokens)
    index, features, values = _align(coefficients, corpus)
    columns: dict[str, list] = {
        name: [] for name in CONTEXTS.column_names if name not in _PARTITION
    }
    draws = corpus.draws(config.seed)
    dense = np.zeros(len(corpus.rows), dtype=np.float32)
    boundaries = np.flatnonzero(np.diff(features)) + 1
    parts = {
        int(features[part[0]]): part
        for part in np.split(np.arange(len(features)), boundaries)
        if len(part)
    }
    peaks = {
        feature_id: _document_peaks(index[part], values[part], corpus, config.firing_share)
        for feature_id, part in parts.items()
    }
    for feature_id, part in parts.items():
        dense[index[part]] = values[part]
        nearest = (similar or {}).get(feature_id, ())
        chosen, n_left_out = _choose(feature_id, peaks, nearest, corpus, config, draws)
        for kind, of_kind in chosen.items():
            others = of_kind.similar
            for rank, peak in enumerate(of_kind.tokens.tolist()):
                other = None if others is None else int(others[rank])
                _append(columns, corpus, dense, feature_id, kind, rank, peak, other, config.window)
        n_rows = len(columns["feature_id"]) - len(columns["n_repeats_left_out"])
        columns["n_repeats_left_out"] += [n_left_out] * n_rows
        dense[index[part]] = 0.0
    schema = {c.name: c.polars_type for c in CONTEXTS.columns if c.name not in _PARTITION}
    return pl.DataFrame(columns, schema=schema)


def _read_corpus(tokens: pl.DataFrame) -> _Corpus:
    missing = {"row", "document_id", "position", "token"} - set(tokens.columns)
    if missing:
        raise ValueError(f"the tokens lack the columns {sorted(missing)}; found {tokens.columns}")
    tokens = tokens.sort("document_id", "position")
    names = tokens["document_id"].to_list()
    document = (tokens["document_id"].rle_id()).to_numpy().astype(np.int64)
    start = np.searchsorted(document, np.arange(document[-1] + 1)) if len(names) else document
    end = np.append(start[1:], len(names)) if len(names) else document
    eligible = np.ones(len(names), dtype=bool)
    if "is_massive" in tokens.columns:
        eligible = ~tokens["is_massive"].fill_null(False).to_numpy()
    return _Corpus(
        rows=tokens["row"].to_numpy(),
        document_ids=names,
        positions=tokens["position"].to_numpy(),
        tokens=tokens["token"].to_list(),
        eligible=eligible,
        document=document,
        document_start=start,
        document_end=end,
        has_eligible=np.bincount(document, weights=eligible, minlength=len(start)) > 0,
    )


def _align(
    coefficients: pl.DataFrame, corpus: _Corpus
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token index, feature and value of every eligible coefficient above 0, sorted by feature."""
    active = coefficients.filter(pl.col("coefficient") > 0).sort("feature_id", "row")
    rows = active["row"].to_numpy()
    order = np.argsort(corpus.rows, kind="stable")
    found = np.searchsorted(corpus.rows[order], rows)
    inside = found < len(order)
    known = np.zeros(len(rows), dtype=bool)
    known[inside] = corpus.rows[order[found[inside]]] == rows[inside]
    if not known.all():
        raise ValueError(
            f"{(~known).sum()} coefficients name token rows that the tokens lack, the first "
            f"{rows[~known][0]}; expected coefficients and tokens of the same site version"
        )
    index = order[found] if len(rows) else found
    keep = corpus.eligible[index]
    features = active["feature_id"].to_numpy()
    values = active["coefficient"].to_numpy().astype(np.float32)
    return index[keep], features[keep], values[keep]


def _document_peaks(
    where: Int[np.ndarray, " n_active"],
    values: Float[np.ndarray, " n_active"],
    corpus: _Corpus,
    firing_share: float,
) -> DocumentPeaks:
    """The strongest token of one feature in each document where it fires, strongest first."""
    strongest_first = np.lexsort((where, -values))
    documents = corpus.document[where[strongest_first]]
    _, first = np.unique(documents, return_index=True)
    entries = strongest_first[np.sort(first)]
    largest = values.max()
    firing = entries[values[entries] > firing_share * largest]
    peaks = where[firing]
    return DocumentPeaks(corpus.document[peaks], peaks, values[firing] / largest)


def _choose(
    feature_id: int,
    peaks_of: Mapping[int, DocumentPeaks],
    similar: Sequence[int],
    corpus: _Corpus,
    config: EvidenceConfig,
    draws: DocumentDraws,
) -> tuple[dict[str, _Chosen], int]:
    """Peak tokens of one feature by kind, strongest first, negatives in the draw's order; and how
    many windows were left out because they repeat one of the other side.
    """
    of_feature = peaks_of[feature_id]
    documents, peaks, shares = of_feature.documents, of_feature.tokens, of_feature.shares
    is_shown = np.ones(len(peaks), dtype=bool)
    if config.n_held_out:
        is_shown = draws.are_shown(documents, feature_id)
    shown, kept = np.flatnonzero(is_shown), np.flatnonzero(~is_shown)

    sides = TwoSides(lambda peak: "".join(corpus.tokens[corpus.window(peak, config.window)]))

    def spread(
        ordered: np.ndarray, count: int, take: Callable[[np.ndarray, int], np.ndarray]
    ) -> np.ndarray:
        drawn = ordered[
            draws.over_strengths(
                documents[ordered], shares[ordered], config.firing_share, count, feature_id
            )
        ]
        return np.sort(drawn[take(peaks[drawn], count)])

    top = shown[sides.show(peaks[shown], config.n_top)]
    sampled = spread(shown[config.n_top :], config.n_sampled, sides.show)
    n_strong = -(-config.n_held_out // 2)
    strong = kept[sides.keep(peaks[kept], n_strong)]
    # Those passed over before the last strong one repeat what is shown, and will not do here.
    rest = kept[kept > strong[-1]] if len(strong) == n_strong > 0 else kept[:0]
    held_out = np.concatenate([strong, spread(rest, config.n_held_out - n_strong, sides.keep)])
    is_free = corpus.has_eligible.copy()
    is_free[documents] = False
    negatives = _negatives(is_free, corpus, config.n_negative, draws, sides, feature_id)
    is_free[corpus.document[negatives]] = False
    misses, hard = near_misses(
        similar,
        peaks_of,
        is_free,
        draws,
        sides,
        feature_id,
        n_shown=config.n_near_miss,
        n_kept=config.n_hard_negative,
    )
    chosen = {
        "top": _Chosen(peaks[top]),
        "sampled": _Chosen(peaks[sampled]),
        "held_out": _Chosen(peaks[held_out]),
        "negative": _Chosen(negatives),
        "near_miss": _Chosen(misses.tokens, misses.similar),
        "hard_negative": _Chosen(hard.tokens, hard.similar),
    }
    return chosen, sides.n_left_out


def _negatives(
    is_silent: Bool[np.ndarray, " n_documents"],
    corpus: _Corpus,
    count: int,
    draws: DocumentDraws,
    sides: TwoSides,
    feature_id: int,
) -> Int[np.ndarray, " n_negative"]:
    """Drawn tokens of documents where the feature does not fire, one a document."""
    seen: list[int] = []

    def tokens() -> Iterator[int]:
        for document in draws.silent(np.flatnonzero(is_silent), feature_id).tolist():
            start, end = int(corpus.document_start[document]), int(corpus.document_end[document])
            extent = np.arange(start, end)
            extent = extent[corpus.eligible[extent]]
            place = draws.token(document, corpus.positions[extent], feature_id)
            seen.append(int(extent[place]))
            yield seen[-1]

    places = sides.keep(tokens(), count)
    return np.array(seen, dtype=np.int64)[places]


def _append(
    columns: dict[str, list],
    corpus: _Corpus,
    dense: Float[np.ndarray, " n_tokens"],
    feature_id: int,
    kind: str,
    rank: int,
    peak: int,
    similar_feature_id: int | None,
    window: int,
) -> None:
    span = corpus.window(peak, window)
    pieces = corpus.tokens[span]
    word, marked = mark_word(pieces, peak - span.start)
    row = {
        "feature_id": feature_id,
        "kind": kind,
        "rank_in_kind": rank,
        "row": int(corpus.rows[peak]),
        "document_id": corpus.document_ids[peak],
        "position": int(corpus.positions[peak]),
        "similar_feature_id": similar_feature_id,
        "coefficient": float(dense[peak]),
        "peak_token": word,
        "token": corpus.tokens[peak],
        "text": "".join(pieces),
        "marked_text": marked,
        "window_tokens": pieces,
        "window_coefficients": dense[span].tolist(),
    }
    for name, value in row.items():
        columns[name].append(value)
