"""Max-cosine scores against a loop over tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assets.detection import text_scores
from assets.detection.text_scores import max_cosine_scores


def make(n_tokens: int = 60, d: int = 7, k: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(n_tokens, d, generator=generator)
    dictionary = torch.randn(k, d, generator=generator) * 3
    index = torch.randint(0, 9, (n_tokens,), generator=generator)
    return activations, index, dictionary


def brute_force(a: torch.Tensor, index: torch.Tensor, z: torch.Tensor, n: int) -> np.ndarray:
    scores = np.full((n, len(z)), np.nan)
    for t, text in enumerate(index.tolist()):
        for j in range(len(z)):
            cosine = float(a[t] @ z[j] / (a[t].norm() * z[j].norm()))
            scores[text, j] = np.nanmax([scores[text, j], cosine])
    return scores


@pytest.mark.parametrize("rows_at_once", [4, 8192])
def test_equals_a_loop_whatever_the_chunks(
    rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_scores, "ROWS_AT_ONCE", rows_at_once)
    activations, index, dictionary = make()
    expected = brute_force(activations, index, dictionary, 10)
    whole = max_cosine_scores([(activations, index)], dictionary, 10)
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    assert np.isnan(whole[9]).all()  # a text without tokens
    parts = [(activations[i : i + 13], index[i : i + 13]) for i in range(0, 60, 13)]
    np.testing.assert_allclose(max_cosine_scores(parts, dictionary, 10), expected, atol=1e-6)


def test_scale_of_activations_and_features_does_not_matter() -> None:
    activations, index, dictionary = make()
    base = max_cosine_scores([(activations, index)], dictionary, 9)
    scales = torch.arange(1.0, 61.0)[:, None] * 1e-3
    scaled = max_cosine_scores([(activations * scales, index)], dictionary * 1e-12, 9)
    np.testing.assert_allclose(base, scaled, atol=1e-5)


def test_zero_rows_score_zero_and_zero_features_nan() -> None:
    activations, index, dictionary = make()
    dictionary[2] = 0
    activations[:] = 0
    scores = max_cosine_scores([(activations, index)], dictionary, 9)
    assert np.isnan(scores[:, 2]).all()
    assert (scores[:, [0, 1, 3, 4]] == 0).all()


def test_what_does_not_fit_is_refused() -> None:
    activations, index, dictionary = make()
    with pytest.raises(ValueError, match="expected 0 to 3"):
        max_cosine_scores([(activations, index)], dictionary, 4)
    with pytest.raises(ValueError, match="do not fit a dictionary"):
        max_cosine_scores([(activations[:, :3], index)], dictionary, 9)


def test_in_double_precision_a_text_scores_the_same_in_any_company() -> None:
    activations, _, dictionary = make(n_tokens=200, d=1536, k=12)
    index = torch.arange(200) // 10
    together = max_cosine_scores([(activations, index)], dictionary, 20, torch.float64)
    for text in range(20):
        own = activations[index == text]
        alone = max_cosine_scores([(own, index[: len(own)])], dictionary, 1, torch.float64)
        assert np.array_equal(alone[0], together[text])
    single = max_cosine_scores([(activations, index)], dictionary, 20)
    np.testing.assert_allclose(single, together, atol=1e-6)
