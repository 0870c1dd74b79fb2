"""How strongly each feature promotes each concept's token: its logit among the whole vocabulary's.

    promotion[concept, j] = (logit_j(token) − mean_v logit_j(v)) / std_v logit_j(v)

with logit_j the vocabulary projection of +z_j (evidence/vocab_projection.py) and token the first of
" " + concept. Dividing by the deviation makes features of different size comparable. It looks at
the model's weights alone: no document and no prompt. The best of many features promotes something
by chance too, so a fit of method `permuted`, whose members are chosen in the same way, is its null.
Who becomes a member is group_members.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.sites import ActivationSite
from assets.evidence.vocab_projection import unprojectable_because, vocab_logits
from assets.hierarchy.group_steering import MeasuredToken

BATCH_FEATURES = 64


@dataclass(frozen=True, eq=False)
class ConceptPromotion:
    """`scores` [k] of each concept in standard deviations (NaN: a feature of zeros), or why none.

    A concept is in `scores` or in `reasons`, never in both.
    """

    scores: Mapping[str, Float[np.ndarray, " k"]]
    reasons: Mapping[str, str]


@torch.no_grad()
def concept_promotion(
    model: Any,
    site: ActivationSite,
    dictionary: Float[Tensor, "k d"],
    tokens: Sequence[MeasuredToken],
) -> ConceptPromotion:
    """The promotion of every concept's token by every feature.

    Concepts whose first token is another's too cannot be told from it and get a reason, and so do
    all at a site without decoder directions.
    """
    why_none = unprojectable_because(site)
    if why_none is not None:
        return ConceptPromotion({}, {token.concept: why_none for token in tokens})
    told = [token for token in tokens if not token.shared_with]
    reasons = {
        token.concept: f"the first token {token.token!r} is also that of "
        f"{', '.join(token.shared_with)}: what promotes one promotes the other"
        for token in tokens
        if token.shared_with
    }
    columns = [token.token_id for token in told]
    device = next(model.parameters()).device
    parts = []
    for rows in dictionary.split(BATCH_FEATURES):
        logits = vocab_logits(model, site, rows.to(device), "+").float()
        deviation, mean = torch.std_mean(logits, dim=1, keepdim=True)
        scores = (logits[:, columns] - mean) / deviation
        scores[~(rows != 0).any(dim=1)] = torch.nan
        parts.append(scores.double().cpu())
    table = torch.cat(parts).numpy()
    return ConceptPromotion(
        {token.concept: table[:, column] for column, token in enumerate(told)}, reasons
    )
