"""Steered texts: strength 0 is the base text, and no text depends on its batch mates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from assets.activations.hooks import add_at_site
from assets.activations.sites import ActivationSite, locate_blocks, locate_site
from assets.steering.generation import (
    SamplingSettings,
    SteeredRow,
    generate_steered,
    sample_token,
)
from tests.activations.tiny_models import tiny_model

SITE = ActivationSite(1)
SETTINGS = SamplingSettings(max_new_tokens=12, top_k=20, top_p=0.9, batch_rows=4)


class NumberTokenizer:
    """Token i reads " i", but "i" at the beginning; `special` ids are left out."""

    eos_token_id: int | None = None
    special: frozenset[int] = frozenset()

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(str(i) for i in ids if i not in self.special)


def steered_row(
    index: int,
    vector: torch.Tensor | None,
    prompt: tuple[int, ...] = (5, 9, 33),
    seed: int | None = None,
) -> SteeredRow:
    return SteeredRow(index, "+", 0.1, index, prompt, vector, index if seed is None else seed)


def strong_vectors(model: nn.Module, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(n, locate_site(model, SITE).width, generator=generator)


def test_equals_a_naive_loop_without_cache() -> None:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = None
    vector = strong_vectors(model, 1)[0]
    ids, generator = [5, 9, 33], torch.Generator().manual_seed(8)
    with torch.no_grad(), add_at_site(model, SITE, vector):
        for _ in range(12):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            ids.append(sample_token(logits, SETTINGS, generator))
    (text,) = generate_steered(
        model, NumberTokenizer(), SITE, [steered_row(0, vector, seed=8)], SETTINGS
    )
    assert text == "".join(f" {i}" for i in ids[3:])


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3", "opt", "gpt_neox"])
def test_texts_do_not_depend_on_batch_mates(architecture: str) -> None:
    model = tiny_model(architecture)
    vectors = strong_vectors(model, 7)
    prompts = [(5, 9, 33), (4, 17, 50, 8, 30)]
    rows = [steered_row(i, vectors[i], prompts[i % 2]) for i in range(7)]
    together = generate_steered(model, NumberTokenizer(), SITE, rows, SETTINGS)
    reversed_order = generate_steered(model, NumberTokenizer(), SITE, rows[::-1], SETTINGS)[::-1]
    alone = [generate_steered(model, NumberTokenizer(), SITE, [row], SETTINGS)[0] for row in rows]
    assert together == alone == reversed_order
    assert len(set(together)) == 7


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_strength_zero_is_the_base_text_and_steering_is_not(architecture: str) -> None:
    model = tiny_model(architecture)
    vectors = strong_vectors(model, 6)
    base = [steered_row(i, None) for i in range(6)]
    zero = [steered_row(i, 0 * vectors[i]) for i in range(6)]
    steered = [steered_row(i, vectors[i]) for i in range(6)]
    mixed = [row for trio in zip(zero, steered, base, strict=True) for row in trio]
    texts = generate_steered(model, NumberTokenizer(), SITE, mixed, SETTINGS)
    unhooked = generate_steered(model, NumberTokenizer(), SITE, base, SETTINGS)
    assert texts[0::3] == texts[2::3] == unhooked
    assert all(a != b for a, b in zip(texts[1::3], unhooked, strict=True))


def test_the_seed_decides_the_text() -> None:
    model = tiny_model("llama")
    settings = replace(SETTINGS, top_p=1.0, temperature=1.5)
    rows = [steered_row(i, None, seed=seed) for i, seed in enumerate([1, 2, 1])]
    first, second, third = generate_steered(model, NumberTokenizer(), SITE, rows, settings)
    assert first == third != second


def test_the_end_token_stops_its_row_alone() -> None:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = None
    rows = [steered_row(i, v) for i, v in enumerate(strong_vectors(model, 4))]
    open_ended = generate_steered(model, NumberTokenizer(), SITE, rows, SETTINGS)
    tokenizer = NumberTokenizer()
    tokenizer.eos_token_id = int(open_ended[0].split()[3])
    tokenizer.special = frozenset([int(open_ended[0].split()[0])])
    ended = generate_steered(model, tokenizer, SITE, rows, SETTINGS)
    for text, whole in zip(ended, open_ended, strict=True):
        tokens = [int(t) for t in whole.split()]
        if tokenizer.eos_token_id in tokens:
            tokens = tokens[: tokens.index(tokenizer.eos_token_id)]
        assert text == "".join(f" {t}" for t in tokens if t not in tokenizer.special)
    assert ended[0] != open_ended[0]
    assert any(len(text.split()) > len(ended[0].split()) for text in ended)


def test_sampling_follows_top_k_and_top_p() -> None:
    probabilities = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15])
    generator = torch.Generator().manual_seed(0)

    def frequencies(**options: float) -> list[float]:
        settings = replace(SamplingSettings(top_p=1.0), **options)
        counts = torch.zeros(5)
        for _ in range(4000):
            counts[sample_token(probabilities.log(), settings, generator)] += 1
        return (counts / 4000).tolist()

    assert frequencies() == pytest.approx(probabilities.tolist(), abs=0.03)
    assert frequencies(top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7, 0], abs=0.03)
    assert frequencies(top_p=0.75) == pytest.approx([0, 0.47, 0, 0.35, 0.18], abs=0.03)
    assert frequencies(top_p=0.3) == [0, 1, 0, 0, 0]
    # 0.4/0.7 of the two kept already exceeds a top_p of 0.5.
    assert frequencies(top_k=2, top_p=0.5) == [0, 1, 0, 0, 0]
    sharp = frequencies(temperature=0.5)
    assert sharp[1] == pytest.approx(0.16 / (probabilities**2).sum().item(), abs=0.03)


def test_hooks_are_removed_after_an_exception() -> None:
    model = tiny_model("llama")
    handle = locate_blocks(model)[2].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate_steered(
            model, NumberTokenizer(), SITE, [steered_row(0, strong_vectors(model, 1)[0])], SETTINGS
        )
    handle.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_progress_and_errors() -> None:
    model = tiny_model("llama")
    seen: list[tuple[int, int]] = []
    rows = [steered_row(i, None) for i in range(6)]
    generate_steered(
        model, NumberTokenizer(), SITE, rows, SETTINGS, on_progress=lambda *a: seen.append(a)
    )
    assert seen == [(4, 6), (6, 6)]
    with pytest.raises(ValueError, match="empty prompt"):
        generate_steered(model, NumberTokenizer(), SITE, [steered_row(0, None, ())], SETTINGS)
    with pytest.raises(ValueError, match="top_p"):
        SamplingSettings(top_p=0.0)
    with pytest.raises(ValueError, match="training mode"):
        generate_steered(model.train(), NumberTokenizer(), SITE, rows, SETTINGS)
