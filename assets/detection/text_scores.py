"""How strongly each feature fires on each text: the largest cosine over the text's tokens.

    score[text, j] = max over tokens t of the text of  cos(a_t, z_j)

with activations a_t at the fit's site and feature directions z_j (Gur-Arieh et al., the semi-NMF
MLP-features paper, concept detection). A text is a corpus document or a probe sentence. Capturing
the activations and what the scores mean belong elsewhere (capture, concept_statistics.py).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS_AT_ONCE = 8192


def max_cosine_scores(
    chunks: Iterable[tuple[Float[Tensor, "n_tokens d"], Int[Tensor, " n_tokens"]]],
    dictionary: Float[Tensor, "k d"],
    n_texts: int,
    dtype: torch.dtype = torch.float32,
) -> Float[np.ndarray, "n_texts k"]:
    """The score of every text and feature, to single precision, from products in `dtype`.

    A product of few rows is rounded otherwise than one of many: in float32 a text's score depends
    in its last digits on its company, in float64 it does not.

    `chunks` yields activations (token rows) with the number of the text, 0 to n_texts - 1, that
    each row belongs to; a text may spread over chunks. Pass only the tokens that count: special
    and massive ones left out. A text without tokens and a feature that is all zeros score NaN.
    Raises ValueError on a text number out of range or on widths that differ.
    """
    lengths = dictionary.to(dtype).norm(dim=1)
    directions = dictionary.to(dtype) / lengths.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    scores = directions.new_full((n_texts, len(dictionary)), -torch.inf)
    for activations, text_index in chunks:
        _check_chunk(activations, text_index, dictionary, n_texts)
        for start in range(0, len(activations), ROWS_AT_ONCE):
            rows = activations[start : start + ROWS_AT_ONCE].to(directions)
            index = text_index[start : start + ROWS_AT_ONCE].to(directions.device).long()
            # A row of zeros points nowhere: its cosine is 0 with every feature.
            cosines = torch.nn.functional.normalize(rows, dim=1, eps=1e-30) @ directions.T
            scores.scatter_reduce_(0, index[:, None].expand_as(cosines), cosines, "amax")
    scores[torch.isinf(scores)] = torch.nan
    scores[:, lengths == 0] = torch.nan
    return scores.float().double().cpu().numpy()


def _check_chunk(
    activations: Float[Tensor, "n_tokens d"],
    text_index: Int[Tensor, " n_tokens"],
    dictionary: Float[Tensor, "k d"],
    n_texts: int,
) -> None:
    if activations.shape[1] != dictionary.shape[1] or len(activations) != len(text_index):
        raise ValueError(
            f"activations {tuple(activations.shape)} with {len(text_index)} text numbers do not "
            f"fit a dictionary {tuple(dictionary.shape)}; expected [n_tokens, "
            f"{dictionary.shape[1]}] and a text number for each row"
        )
    if len(text_index) and not (int(text_index.min()) >= 0 and int(text_index.max()) < n_texts):
        raise ValueError(
            f"text numbers run from {int(text_index.min())} to {int(text_index.max())}; expected 0 "
            f"to {n_texts - 1}"
        )
