"""Steered texts: sampled continuations while a vector is added at the site at all positions.

Batched over features, signs and strengths with a KV cache. A text does not depend on its batch
mates: prompts of one length share a batch, so there is no padding; every batch has exactly
`batch_rows` rows (the last one filled up with copies), so matrix products have one shape and round
alike; each text draws from a generator of its own seed. Texts with the same seed share their draws
over features and strengths, and strength 0 gives the base text exactly.

Sampling: temperature, then the top_k largest logits, then the smallest set of them that holds
top_p of the mass (nucleus sampling, Holtzman et al., arXiv 1904.09751), in float64.
Which strengths are steered with is calibration.py; what the texts are worth is judging.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.hooks import add_at_site
from assets.activations.sites import ActivationSite, locate_site

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SamplingSettings:
    """How texts are sampled, and how many rows every batch has."""

    max_new_tokens: int = 50
    top_k: int = 30
    top_p: float = 0.3
    temperature: float = 1.0
    batch_rows: int = 16

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.top_k < 1 or self.batch_rows < 1:
            raise ValueError(f"counts must be at least 1; found {self}")
        if not 0 < self.top_p <= 1 or not self.temperature > 0:
            raise ValueError(f"expected 0 < top_p <= 1 and temperature > 0; found {self}")


@dataclass(frozen=True, eq=False)
class SteeredRow:
    """One text to write: its key in `steered_texts`, prompt, scaled vector (None: base), seed."""

    feature_id: int
    sign: str
    target_kl_nats: float
    text_index: int
    prompt_ids: tuple[int, ...]
    vector: Float[Tensor, " d"] | None
    seed: int


def generate_steered(
    model: Any,
    tokenizer: Any,
    site: ActivationSite,
    rows: Sequence[SteeredRow],
    settings: SamplingSettings,
    *,
    on_progress: Progress | None = None,
) -> list[str]:
    """The continuation of each row, in the order of `rows`, special tokens left out.

    A text ends at the model's end-of-sequence token or after max_new_tokens.
    Raises ValueError for an empty prompt or a model in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    end_ids = end_token_ids(model, tokenizer)
    texts = [""] * len(rows)
    n_done = 0
    for batch in _batches(rows, settings.batch_rows):
        filled = [rows[batch[i % len(batch)]] for i in range(settings.batch_rows)]
        generated = _generate_batch(model, site, filled, settings, end_ids)
        for index, token_ids in zip(batch, generated, strict=False):
            texts[index] = _continuation(tokenizer, rows[index].prompt_ids, token_ids)
        n_done += len(batch)
        if on_progress is not None:
            on_progress(n_done, len(rows))
    return texts


def end_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a text, as the model's generation config and the tokenizer name them."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = named if isinstance(named, (list, tuple)) else [named]
    own = getattr(tokenizer, "eos_token_id", None)
    return frozenset(i for i in (*ids, own) if i is not None)


def sample_token(
    logits: Float[Tensor, " vocab"], settings: SamplingSettings, generator: torch.Generator
) -> int:
    """One token by top-k, top-p sampling; draws one number from `generator` (on the CPU)."""
    top = torch.topk(logits.float(), min(settings.top_k, logits.shape[-1]))
    probabilities = (top.values.double().cpu() / settings.temperature).softmax(-1)
    mass_before = probabilities.cumsum(0) - probabilities
    # The most likely token always stays: no mass lies before it.
    nucleus = probabilities * (mass_before < settings.top_p)
    draw = torch.rand(1, generator=generator, dtype=torch.float64) * nucleus.sum()
    place = torch.searchsorted(nucleus.cumsum(0), draw, right=True).item()
    last = int((nucleus > 0).sum()) - 1
    return int(top.indices[min(int(place), last)])


def _continuation(tokenizer: Any, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """What the new tokens add to the prompt's text, a leading space kept.

    Decoded together, since some tokenizers drop the space of whatever they decode first.
    """
    prompt = tokenizer.decode(list(prompt_ids), skip_special_tokens=True)
    whole = tokenizer.decode([*prompt_ids, *token_ids], skip_special_tokens=True)
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    return tokenizer.decode(list(token_ids), skip_special_tokens=True)


def _batches(rows: Sequence[SteeredRow], batch_rows: int) -> list[list[int]]:
    """Row indices in batches of one prompt length."""
    lengths: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        if not row.prompt_ids:
            raise ValueError(f"text {row.text_index} has an empty prompt; expected a token")
        lengths.setdefault(len(row.prompt_ids), []).append(index)
    return [
        indices[start : start + batch_rows]
        for _, indices in sorted(lengths.items())
        for start in range(0, len(indices), batch_rows)
    ]


@torch.no_grad()
def _generate_batch(
    model: Any,
    site: ActivationSite,
    rows: Sequence[SteeredRow],
    settings: SamplingSettings,
    end_ids: frozenset[int],
) -> list[list[int]]:
    """New token ids of each row, without the end token."""
    device = next(model.parameters()).device
    width = locate_site(model, site).width
    vectors = torch.stack(
        [torch.zeros(width) if row.vector is None else row.vector.float().cpu() for row in rows]
    ).to(device=device, dtype=next(model.parameters()).dtype)
    generators = [torch.Generator().manual_seed(row.seed) for row in rows]
    written: list[list[int]] = [[] for _ in rows]
    is_open = [True] * len(rows)
    tokens = torch.tensor([row.prompt_ids for row in rows], device=device)
    cache: Any = None
    with add_at_site(model, site, vectors):
        for _ in range(settings.max_new_tokens):
            output = model(input_ids=tokens, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            logits = output.logits[:, -1]
            chosen = [
                sample_token(logits[i], settings, generators[i]) if is_open[i] else 0
                for i in range(len(rows))
            ]
            for i, token in enumerate(chosen):
                is_open[i] = is_open[i] and token not in end_ids
                if is_open[i]:
                    written[i].append(token)
            if not any(is_open):
                break
            tokens = torch.tensor(chosen, device=device)[:, None]
    return written
