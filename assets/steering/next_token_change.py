"""What steering changes of the next token: KL and log-probabilities after the neutral prompts.

KL(α) = mean over the prompts of KL(base ‖ steered) at the last prompt token. Vectors go through
suffix_forward.py in batches of a fixed number of rows, the last one filled up: matrix products then
have one shape and round alike, so that a vector's numbers do not depend on its batch mates (on CPUs
to the last bit for multiples of 16 rows; elementwise kernels round a shorter tail in another way).
Which vectors are tried is calibration.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.hooks import record_sites, run_forward
from assets.activations.sites import ActivationSite
from assets.activations.suffix_forward import PromptGroup, SuffixForward


@dataclass(frozen=True)
class NextTokenChange:
    """Of one vector: KL in nats; the gain in log-probability of its tokens, None without any."""

    kl_nats: float
    token_gain: float | None


def next_token_changes(
    suffix: SuffixForward,
    vectors: Float[Tensor, "n d"],
    tokens: Sequence[Sequence[int]],
    batch_rows: int,
) -> list[NextTokenChange]:
    """What each vector changes, in one pass over the prompts.

    KL(base ‖ steered) at the last token, mean over the prompts; and the mean over the prompts and
    over `tokens[i]` of log p_steered − log p_base.
    """
    kls = torch.zeros(len(vectors), dtype=torch.float64)
    gains = torch.zeros(len(vectors), dtype=torch.float64)
    for rows, group, which, logits in evaluations(suffix, vectors, batch_rows):
        base = group.base_logits[which].log_softmax(-1)
        difference = logits.log_softmax(-1) - base
        kls.index_add_(0, rows, -(base.exp() * difference).sum(-1).double().cpu())
        for row, change in zip(rows.tolist(), difference, strict=True):
            if tokens[row]:
                gains[row] += change[list(tokens[row])].double().mean().cpu()
    # Rounding can leave a KL of nearly 0 a hair below it.
    mean_kls = [max(kl, 0.0) if kl == kl else kl for kl in (kls / suffix.n_prompts).tolist()]
    mean_gains = (gains / suffix.n_prompts).tolist()
    return [
        NextTokenChange(kl, gain if own else None)
        for kl, gain, own in zip(mean_kls, mean_gains, tokens, strict=True)
    ]


@torch.no_grad()
def median_activation_norm(
    model: Any, site: ActivationSite, prompt_ids: Sequence[Sequence[int]]
) -> float:
    """Median over the prompts' tokens of the activation's L2 norm at the site."""
    norms: list[Tensor] = []

    def keep(_: ActivationSite, activations: Tensor) -> None:
        norms.append(activations.float().norm(dim=-1).flatten().cpu())

    device = next(model.parameters()).device
    with record_sites(model, [site], keep):
        for ids in prompt_ids:
            run_forward(model, {"input_ids": torch.tensor([list(ids)], device=device)}, site.layer)
    return float(torch.cat(norms).median())


def evaluations(
    suffix: SuffixForward, vectors: Float[Tensor, "n d"], batch_rows: int
) -> Iterator[tuple[Tensor, PromptGroup, Tensor, Tensor]]:
    """(vector rows, group, prompts within it, logits), over all pairs of a vector and a prompt."""
    for group in suffix.groups if len(vectors) else ():
        n_prompts = len(group.prompt_indices)
        pairs = torch.arange(len(vectors) * n_prompts)
        for chunk in pairs.split(batch_rows):
            filled = chunk[torch.arange(batch_rows) % len(chunk)]
            rows, which = filled // n_prompts, (filled % n_prompts).to(group.hidden.device)
            chosen = vectors[rows.to(vectors.device)].to(group.hidden.device)
            logits = suffix.logits(group, which, chosen)
            n = len(chunk)
            yield rows[:n], group, which[:n], logits[:n]
