"""What the labeller gets to see of a feature, as text: words, contexts, vocabulary tokens.

Only contexts of kind top and sampled, and as contrast near_miss, are read here; those kept back
score the label (asked_texts.py). Wording of the prompts lives in prompts.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import polars as pl

ACTIVE_KINDS = ("top", "sampled")
CONTRAST_KIND = "near_miss"
SHOWN_KINDS = (*ACTIVE_KINDS, CONTRAST_KIND)
SUMMARY_WORDS = 5
# Words that come more than once are shown alone if together they make this share of the contexts.
DOMINANT_SHARE = 0.5

Row = Mapping[str, Any]


def shown_contexts(contexts: pl.DataFrame, n: int) -> dict[int, list[Row]]:
    """Feature → its first `n` contexts, top and sampled ones in turn, each strongest first."""
    by_feature: dict[int, dict[str, list[Row]]] = {}
    shown = contexts.filter(pl.col("kind").is_in(ACTIVE_KINDS)).sort("feature_id", "rank_in_kind")
    for row in shown.iter_rows(named=True):
        by_feature.setdefault(row["feature_id"], {}).setdefault(row["kind"], []).append(row)
    result: dict[int, list[Row]] = {}
    for feature_id, kinds in by_feature.items():
        in_turn = chain.from_iterable(zip_longest(*(kinds.get(kind, []) for kind in ACTIVE_KINDS)))
        result[feature_id] = [row for row in in_turn if row is not None][:n]
    return result


def contrast_contexts(contexts: pl.DataFrame, n: int) -> dict[int, list[Row]]:
    """Feature → its first `n` near misses, where a similar feature fires and it does not."""
    near = contexts.filter(pl.col("kind") == CONTRAST_KIND, pl.col("rank_in_kind") < n)
    result: dict[int, list[Row]] = {}
    for row in near.sort("feature_id", "rank_in_kind").iter_rows(named=True):
        result.setdefault(row["feature_id"], []).append(row)
    return result


def words_by_count(contexts: Sequence[Row]) -> list[tuple[str, int]]:
    """Peak words with how many contexts peak at them, most frequent first; case is not told apart.

    Ties keep the order of the contexts; a word is written as it first came.
    """
    words = [str(row["peak_token"]).strip() for row in contexts]
    counts = Counter(word.casefold() for word in words if word)
    written: dict[str, str] = {}
    for word in words:
        written.setdefault(word.casefold(), word)
    return [(written[key], count) for key, count in counts.most_common()]


def token_summary(contexts: Sequence[Row]) -> str | None:
    """The most frequent peak words, most frequent first: a label that needs no LLM."""
    words = [word for word, _ in words_by_count(contexts)[:SUMMARY_WORDS]]
    return ", ".join(words) or None


def telling_words(contexts: Sequence[Row]) -> list[str]:
    """The words to show a small LLM: the repeated ones where they are half of all, else all.

    A small model is led astray by the odd word in `Friday, clock, Friday, Friday`.
    """
    counted = words_by_count(contexts)
    repeated = [(word, count) for word, count in counted if count > 1]
    n_repeated, n_all = (sum(count for _, count in c) for c in (repeated, counted))
    is_dominant = bool(repeated) and n_repeated >= DOMINANT_SHARE * n_all
    return [word for word, _ in (repeated if is_dominant else counted)]


def peak_start(text: str, marked: str, word: str) -> int | None:
    """Place of the peak `word` in `text`, which `marked` marks; None where it marks no such word.

    Texts may hold « and » themselves: the peak is where `marked` without its marks is `text`.
    """
    mark = f"«{word}»"
    places = (place for place in range(len(marked)) if marked.startswith(mark, place))
    is_text = (p for p in places if marked[:p] + word + marked[p + len(mark) :] == text)
    return next(is_text, None)


def context_line(row: Row, max_words: int, *, is_marked: bool) -> str:
    """A context on one line, at most `max_words` words around its peak, with or without « »."""
    text, word = str(row["text"]), str(row["peak_token"])
    start = peak_start(text, str(row["marked_text"]), word)
    if start is None:
        return " ".join(text.split()[:max_words])
    peak = f"«{word}»" if is_marked else word
    n_before = max_words // 2
    left, right = text[:start].split(" "), text[start + len(word) :].split(" ")
    kept = " ".join(left[-n_before - 1 :]) + peak + " ".join(right[: max_words - n_before])
    return " ".join(kept.split())


def vocabulary_words(vocab: pl.DataFrame, n: int) -> dict[int, dict[str, list[str]]]:
    """Feature → sign → its first `n` different tokens, stripped, case not told apart."""
    result: dict[int, dict[str, list[str]]] = {}
    seen: set[tuple[int, str, str]] = set()
    ordered = vocab.sort("feature_id", "sign", "rank_in_sign")
    columns = ordered.select("feature_id", "sign", "token").iter_rows()
    for feature_id, sign, token in columns:
        word = token.strip()
        words = result.setdefault(feature_id, {}).setdefault(sign, [])
        key = (feature_id, sign, word.casefold())
        if word and key not in seen and len(words) < n:
            seen.add(key)
            words.append(word)
    return result
