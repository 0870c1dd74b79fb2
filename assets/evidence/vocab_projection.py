"""What a feature writes into the residual stream, read as vocabulary tokens.

For each sign s: logits = unembed(final_norm(s · decoder_direction(feature))), the logit lens of
nostalgebraist (2020) applied to MLP value vectors as in Geva et al., arXiv 2203.14680. The negative
sign is computed by itself: for an RMS norm it is the mirror image, for a layer norm with a bias it
is not. Tokens are whole decoded tokens, leading space kept; special, unused, padding and
partial-character tokens are left out, since a reader can do nothing with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.activations.sites import (
    ActivationSite,
    decoder_direction,
    final_norm,
    has_decoder_direction,
    unembedding,
)
from assets.evidence.tables import VOCAB_PROJECTION

SIGN_FACTORS = {"+": 1.0, "-": -1.0}
_UNUSED = re.compile(
    r"[<\[]\|?(unused|reserved|extra|mask|pad|unk)[^\s>\]]*\|?[>\]]", re.IGNORECASE
)


def decode_vocabulary(tokenizer: Any, vocab_size: int) -> list[str | None]:
    """Each token's whole text, None for those that are no text of their own.

    None: special tokens, ids beyond the tokenizer's (padding rows of the unembedding), unused
    placeholders such as <unused7>, empty ones, and parts of a multi-byte character.
    """
    special = set(tokenizer.all_special_ids)
    n_known = min(vocab_size, len(tokenizer))
    texts: list[str | None] = []
    for token_id in range(n_known):
        text = None if token_id in special else tokenizer.decode([token_id])
        is_text = bool(text) and "\ufffd" not in str(text) and not _UNUSED.fullmatch(str(text))
        texts.append(text if is_text else None)
    return texts + [None] * (vocab_size - n_known)


def unprojectable_because(site: ActivationSite) -> str | None:
    """Why features of a site have no vocabulary projection; None where they have one."""
    if has_decoder_direction(site):
        return None
    return f"a direction at {site.kind} is read by the MLP alone and has no decoder direction"


@torch.no_grad()
def vocab_logits(
    model: Any, site: ActivationSite, features: Float[Tensor, "n d"], sign: str
) -> Float[Tensor, "n vocab"]:
    """Logits of the vocabulary under sign · decoder direction of each feature."""
    directions = SIGN_FACTORS[sign] * decoder_direction(model, site, features)
    normed = final_norm(model)(directions)
    return normed @ unembedding(model).T.to(normed.dtype)


@torch.no_grad()
def project_vocabulary(
    model: Any,
    tokenizer: Any,
    site: ActivationSite,
    dictionary: Float[Tensor, "k d"],
    *,
    n_vocab: int,
    feature_ids: Sequence[int] | None = None,
    signs: Sequence[str] = ("+", "-"),
    batch_features: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Rows of the table `vocab_projection`, without its partition columns.

    `feature_ids` name the rows of `dictionary` (0 … k − 1 without it).
    """
    ids = list(range(len(dictionary))) if feature_ids is None else list(feature_ids)
    if len(ids) != len(dictionary):
        raise ValueError(
            f"{len(ids)} feature ids for a dictionary of {len(dictionary)} rows; expected one each"
        )
    texts: list[str | None] | None = None
    columns: dict[str, list] = {
        name: []
        for name in VOCAB_PROJECTION.column_names
        if name not in VOCAB_PROJECTION.partition_by
    }
    for start in range(0, len(ids), batch_features):
        batch = dictionary[start : start + batch_features]
        for sign in signs:
            logits = vocab_logits(model, site, batch, sign).float()
            if texts is None:
                texts = decode_vocabulary(tokenizer, logits.shape[1])
            readable = _readable(texts, logits)
            count = min(n_vocab, int(readable.sum()))
            top = logits.masked_fill(~readable, float("-inf")).topk(count, dim=1)
            for offset, (values, tokens) in enumerate(
                zip(top.values.tolist(), top.indices.tolist(), strict=True)
            ):
                columns["feature_id"] += [ids[start + offset]] * count
                columns["sign"] += [sign] * count
                columns["rank_in_sign"] += range(count)
                columns["token_id"] += tokens
                columns["token"] += [texts[token] for token in tokens]
                columns["logit"] += values
        if on_progress is not None:
            on_progress(min(start + batch_features, len(ids)), len(ids))
    schema = {c.name: c.polars_type for c in VOCAB_PROJECTION.columns if c.name in columns}
    return pl.DataFrame(columns, schema=schema)


def _readable(texts: Sequence[str | None], logits: Tensor) -> Bool[Tensor, " vocab"]:
    return torch.tensor([text is not None for text in texts], device=logits.device)
