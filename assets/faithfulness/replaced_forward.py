"""A batch of documents run once as they are, then from the site's block on with other rows.

The base run is the model's own full forward. It keeps the residual stream that enters the site's
block, the site's rows, and the next-token log-probabilities. Each later run begins at that block
(suffix_forward.begin_at_block) with the site's rows put in place of what the model computes there.
Rows are those of the document's own tokens: the special prefix and the padding keep what they had.

Losses are at the positions that have a row and a next token, in nats: the cross-entropy
−log p(next token), and KL(base‖replaced) = Σ_v p_base(v) (log p_base(v) − log p_replaced(v)).
Which rows are put in is replacements.py and ablation.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from assets.activations.batched_forward import padded_inputs
from assets.activations.hooks import record_sites, replace_at_site, run_forward
from assets.activations.sites import ActivationSite, locate_blocks, locate_site
from assets.activations.suffix_forward import begin_at_block, record_entering
from assets.activations.tokenization import TokenizedDocument


class FaithfulnessError(RuntimeError):
    """The model cannot be run from the site on, so that no replacement could be measured."""


@dataclass(frozen=True)
class Spent:
    """Token positions of forward runs, padding included, and blocks × positions: a run that begins
    at the site's block leaves out the blocks before it."""

    forward_tokens: int = 0
    layer_token_evaluations: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.forward_tokens + other.forward_tokens,
            self.layer_token_evaluations + other.layer_token_evaluations,
        )


@dataclass(frozen=True)
class TokenLosses:
    """Nats at each position; 0 where `DocumentBatch.is_predicted` is false. On the CPU."""

    cross_entropy: Float[Tensor, "n longest"]
    kl: Float[Tensor, "n longest"]


class DocumentBatch:
    """The base run of a few documents, and runs with other rows at the site.

    `rows` [batch, longest, width] are the site's own; `is_row` and `is_predicted`
    [batch, longest] say at which positions a row stands, and which of these has a next token.
    `spent` counts what was run so far.
    """

    @torch.no_grad()
    def __init__(
        self, model: Any, site: ActivationSite, documents: Sequence[TokenizedDocument]
    ) -> None:
        """Raises FaithfulnessError for a model in training mode, SiteError for an unknown site."""
        if model.training:
            raise FaithfulnessError("the model is in training mode; call model.eval() first")
        self.model, self.site = model, site
        self.documents = tuple(documents)
        self.width = locate_site(model, site).width
        self._n_blocks = len(locate_blocks(model))
        self._inputs = padded_inputs(model, [document.token_ids for document in documents])
        recorded: list[Tensor] = []
        with (
            record_entering(model, site.layer) as entered,
            record_sites(model, [site], lambda _, rows: recorded.append(rows.clone())),
        ):
            logits = self._forward(self._inputs)
        self._hidden, self.rows = entered[0], recorded[0]
        n_positions = self._inputs["input_ids"].numel()
        self.spent = Spent(n_positions, self._n_blocks * n_positions)
        self.is_row, self.is_predicted = self._masks()
        self._log_p = [
            logits[i, start:end].log_softmax(-1) for i, (start, end) in enumerate(self._spans())
        ]
        # Kept, since each later run asks for it again.
        self._p = [log_p.exp() for log_p in self._log_p]
        self.base = self._losses(range(len(self.documents)), self._log_p)

    @torch.no_grad()
    def losses(self, which: Sequence[int], rows: Float[Tensor, "n longest width"]) -> TokenLosses:
        """Documents `which` of the batch, each with its `rows` at the site, from its block on."""
        index = torch.tensor(list(which), device=self.rows.device)
        placed = torch.where(self.is_row.to(index.device)[index, :, None], rows, self.rows[index])
        inputs = {name: tensor[index] for name, tensor in self._inputs.items()}
        with (
            begin_at_block(self.model, self.site.layer, self._hidden[index]),
            replace_at_site(self.model, self.site, lambda _: placed),
        ):
            logits = self._forward(inputs)
        n_positions = placed[..., 0].numel()
        self.spent += Spent(n_positions, (self._n_blocks - self.site.layer) * n_positions)
        spans = self._spans()
        log_p = (logits[row, slice(*spans[i])].log_softmax(-1) for row, i in enumerate(which))
        return self._losses(which, log_p)

    def _losses(
        self, which: Sequence[int], log_p: Iterable[Float[Tensor, "n_predicted vocab"]]
    ) -> TokenLosses:
        """Losses of documents `which`, given the log-probabilities of each at its span."""
        longest = self.is_row.shape[1]
        cross_entropy = torch.zeros(len(which), longest, dtype=torch.float64)
        kl = torch.zeros_like(cross_entropy)
        spans = self._spans()
        for row, (i, given) in enumerate(zip(which, log_p, strict=True)):
            start, end = spans[i]
            targets = self._inputs["input_ids"][i, start + 1 : end + 1, None]
            cross_entropy[row, start:end] = -given.gather(1, targets)[:, 0].double().cpu()
            divergence = torch.linalg.vecdot(self._p[i], self._log_p[i] - given)
            # Rounding alone takes the sum below 0.
            kl[row, start:end] = divergence.clamp_min(0).double().cpu()
        return TokenLosses(cross_entropy, kl)

    def _forward(self, inputs: dict[str, Int[Tensor, "n longest"]]) -> Tensor:
        output = run_forward(self.model, inputs)
        assert output is not None
        return output.logits.float()

    def _spans(self) -> list[tuple[int, int]]:
        """(first, after last) predicted position of each document."""
        return [(d.n_special_prefix, len(d.token_ids) - 1) for d in self.documents]

    def _masks(self) -> tuple[Bool[Tensor, "batch longest"], Bool[Tensor, "batch longest"]]:
        is_row = torch.zeros(self._inputs["input_ids"].shape, dtype=torch.bool)
        is_predicted = torch.zeros_like(is_row)
        for i, document in enumerate(self.documents):
            is_row[i, document.n_special_prefix : len(document.token_ids)] = True
            is_predicted[i, document.n_special_prefix : len(document.token_ids) - 1] = True
        return is_row, is_predicted
