"""Next-token logits under steering, computing only the blocks from the site on.

A vector added at layer L changes nothing before block L. So the residual stream that enters block
L is cached once per prompt, and each evaluation runs the model's own forward with blocks 0 … L − 1
replaced by the identity and block L fed from the cache. The model's code keeps choosing masks,
rotary embeddings and layer types by layer index, so every architecture stays itself. Construction
checks the claim: unsteered logits must equal the full forward's.

Which strengths are tried is strength_search.py; texts are generation.py, which needs a KV cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assets.activations.hooks import add_at_site
from assets.activations.sites import ActivationSite, locate_blocks, locate_site

_EQUALITY_TOLERANCE = 1e-4


class SuffixForwardError(RuntimeError):
    """The model cannot be evaluated from a block on, or not for the prompts given."""


@dataclass(frozen=True)
class PromptGroup:
    """Prompts of one length, with what enters the site's block and the unsteered prediction."""

    prompt_indices: tuple[int, ...]
    input_ids: Int[Tensor, "n_prompts n_tokens"]
    hidden: Float[Tensor, "n_prompts n_tokens d_model"]
    base_logits: Float[Tensor, "n_prompts vocab"]


class SuffixForward:
    """The part of a model from one site on, with the part before cached for given prompts.

    `layer_token_evaluations` counts blocks × token positions computed so far, caching included.
    """

    def __init__(
        self, model: Any, site: ActivationSite, prompt_ids: Sequence[Sequence[int]]
    ) -> None:
        """Raises SuffixForwardError for no or empty prompts, a model in training mode, or one
        whose logits cannot be reproduced from the cache."""
        if model.training:
            raise SuffixForwardError("the model is in training mode; call model.eval() first")
        if not prompt_ids or not all(len(ids) for ids in prompt_ids):
            raise SuffixForwardError(
                f"expected at least one prompt and no empty one; found token counts "
                f"{[len(ids) for ids in prompt_ids]}"
            )
        self.model = model
        self.site = site
        self.width = locate_site(model, site).width
        self.n_prompts = len(prompt_ids)
        self.layer_token_evaluations = 0
        self._blocks = locate_blocks(model)
        self.groups = [
            self._cache(indices, [prompt_ids[i] for i in indices])
            for indices in _by_length(prompt_ids)
        ]
        for group in self.groups:
            self._check(group)

    @torch.no_grad()
    def logits(
        self,
        group: PromptGroup,
        which: Int[Tensor, " n"],
        vectors: Float[Tensor, "n d"],
    ) -> Float[Tensor, "n vocab"]:
        """Logits after the last token of prompts `which` of the group, `vectors` added at the
        site at all positions (row i to row i)."""
        hidden = group.hidden[which]
        with (
            begin_at_block(self.model, self.site.layer, hidden),
            add_at_site(self.model, self.site, vectors.to(hidden.dtype)),
        ):
            logits = self._run(group.input_ids[which])
        n_blocks = len(self._blocks) - self.site.layer
        self.layer_token_evaluations += n_blocks * hidden.shape[0] * hidden.shape[1]
        return logits

    @torch.no_grad()
    def _cache(self, indices: Sequence[int], prompts: Sequence[Sequence[int]]) -> PromptGroup:
        device = next(self.model.parameters()).device
        input_ids = torch.tensor([list(ids) for ids in prompts], device=device)
        with record_entering(self.model, self.site.layer) as entered:
            logits = self._run(input_ids)
        self.layer_token_evaluations += len(self._blocks) * input_ids.numel()
        return PromptGroup(tuple(indices), input_ids, entered[0], logits)

    def _run(self, input_ids: Int[Tensor, "n n_tokens"]) -> Float[Tensor, "n vocab"]:
        options: dict[str, Any] = {"use_cache": False}
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            options["logits_to_keep"] = 1
        return self.model(input_ids=input_ids, **options).logits[:, -1].float()

    def _check(self, group: PromptGroup) -> None:
        everyone = torch.arange(len(group.prompt_indices), device=group.hidden.device)
        zeros = torch.zeros(len(everyone), self.width, device=group.hidden.device)
        difference = (self.logits(group, everyone, zeros) - group.base_logits).abs().max().item()
        scale = max(1.0, group.base_logits.abs().max().item())
        # Half precision rounds at its own grain, so the bound follows the model's.
        bound = max(_EQUALITY_TOLERANCE, 8 * torch.finfo(group.hidden.dtype).eps) * scale
        if not difference <= bound:
            raise SuffixForwardError(
                f"logits computed from block {self.site.layer} on differ from the full forward of "
                f"{type(self.model).__name__} by {difference:.2e}, expected at most {bound:.1e}; "
                "a layer of this architecture reads more than the residual stream"
            )


@contextmanager
def record_entering(model: Any, layer: int) -> Iterator[list[Tensor]]:
    """Each forward appends what enters block `layer`, [batch, sequence, d_model], a copy."""
    entered: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append((args[0] if args else kwargs["hidden_states"]).detach().clone())

    handle = locate_blocks(model)[layer].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield entered
    finally:
        handle.remove()


@contextmanager
def begin_at_block(
    model: Any, layer: int, hidden: Float[Tensor, "batch sequence d_model"]
) -> Iterator[None]:
    """Forwards skip the blocks before `layer`, which is fed `hidden` in place of its input.

    The forward's token ids must have the shape of `hidden` still; all they choose is positions.
    """
    blocks = locate_blocks(model)
    handle = blocks[layer].register_forward_pre_hook(_feed(hidden), with_kwargs=True)
    try:
        with _skipped(blocks, layer):
            yield
    finally:
        handle.remove()


def _by_length(prompt_ids: Sequence[Sequence[int]]) -> list[list[int]]:
    lengths: dict[int, list[int]] = {}
    for index, ids in enumerate(prompt_ids):
        lengths.setdefault(len(ids), []).append(index)
    return [lengths[length] for length in sorted(lengths)]


def _feed(hidden: Tensor) -> Any:
    """A pre-hook that hands the cached residual stream to the block in place of its input."""

    def replace(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": hidden}

    return replace


def _identity(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


@contextmanager
def _skipped(blocks: nn.ModuleList, n_skipped: int) -> Iterator[None]:
    """The first `n_skipped` blocks hand their input on, until the context ends."""
    before = [block.__dict__.get("forward") for block in list(blocks)[:n_skipped]]
    try:
        for block in list(blocks)[:n_skipped]:
            block.__dict__["forward"] = _identity
        yield
    finally:
        for block, forward in zip(blocks, before, strict=False):
            if forward is None:
                block.__dict__.pop("forward", None)
            else:
                block.__dict__["forward"] = forward
