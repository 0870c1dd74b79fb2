"""Input score: do a feature's strongest tokens say the same as what it writes?

    input score = share of the feature's top contexts whose peak token is among the n tokens that
                  its vocabulary projection puts first

Arad et al., arXiv 2505.20063, sec. 3 (n = 20, up to 100 contexts, both as in their code). Near 1
for a token-like feature, which reads what it writes; near 0 for one that reads contexts. Tokens are
compared as decoded text, leading space kept. It needs no model; output_score.py does.

Of few contexts a share says little. Their code leaves out features with fewer than 10 contexts (of
up to 100, several a document). Here contexts are one a document and 10 by default
(`evidence.n_top`), so the least is half of these: of 5 misses the true share is below 0.46 with
95 % confidence (1 - 0.05^(1/5)), of 4 not even below a half. Below that there is no score.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

N_TOKENS = 20
N_CONTEXTS = 100
FEWEST_CONTEXTS = 5


@dataclass(frozen=True)
class InputScore:
    """The share of `n_contexts` peak tokens that are among the projected ones; None of too few."""

    value: float | None
    n_contexts: int


def input_scores(
    contexts: pl.DataFrame, projection: pl.DataFrame
) -> dict[tuple[int, str], InputScore]:
    """By feature and sign of the projected direction; features without either are left out.

    Of fewer than FEWEST_CONTEXTS contexts the score is not attempted: its value is None.
    `contexts` has feature_id, kind, rank_in_kind and token; `projection` has feature_id, sign,
    rank_in_sign and token.
    """
    peaks = (
        contexts.filter(pl.col("kind") == "top", pl.col("rank_in_kind") < N_CONTEXTS)
        .sort("feature_id", "rank_in_kind")
        .group_by("feature_id", maintain_order=True)
        .agg("token")
    )
    peaks_of = {int(i): tokens for i, tokens in peaks.iter_rows()}
    written = (
        projection.filter(pl.col("rank_in_sign") < N_TOKENS)
        .group_by("feature_id", "sign", maintain_order=True)
        .agg("token")
    )
    found = {}
    for feature_id, sign, tokens in written.iter_rows():
        if peak_tokens := peaks_of.get(feature_id):
            n = len(peak_tokens)
            share = sum(token in tokens for token in peak_tokens) / n
            score = InputScore(share if n >= FEWEST_CONTEXTS else None, n)
            found[int(feature_id), sign] = score
    return found


def first_tokens(projection: pl.DataFrame, n: int = N_TOKENS) -> dict[tuple[int, str], list[int]]:
    """Ids of the projection's first `n` tokens, by feature and sign; with the column token_id."""
    groups = (
        projection.filter(pl.col("rank_in_sign") < n)
        .sort("feature_id", "sign", "rank_in_sign")
        .group_by("feature_id", "sign", maintain_order=True)
        .agg("token_id")
    )
    return {(int(feature_id), sign): ids for feature_id, sign, ids in groups.iter_rows()}
