"""The bilinear view: its quadratic form by brute force, planted token pairs, and what it is of."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from assets.activations.gated_mlp import GatedMlp, gated_mlp, norm_before_mlp
from assets.activations.hooks import record_sites
from assets.activations.sites import (
    ActivationSite,
    SiteError,
    block_parts,
    decoder_direction,
    norm_scale,
)
from assets.evidence.bilinear_view import (
    neuron_weights,
    top_eigenvectors,
    unreadable_because,
    view_bilinear,
)
from assets.evidence.tables import BILINEAR_VIEW
from tests.activations.tiny_models import ARCHITECTURES, D_MODEL, tiny_model, word_tokenizer

GATED = ("llama", "qwen2", "mistral", "gemma2", "gemma3")
PARTITION = {"site": "study:m@L1.mlp_hidden", "fit": "snmf-k004"}
GENERATOR = torch.Generator().manual_seed(0)


def random_mlp(d_mlp: int = 60, d_model: int = 24) -> GatedMlp:
    return GatedMlp(
        torch.randn(d_mlp, d_model, generator=GENERATOR),
        torch.randn(d_mlp, d_model, generator=GENERATOR),
    )


def interaction(mlp: GatedMlp, weights: Tensor) -> Tensor:
    """B, neuron by neuron; float64."""
    total = torch.zeros(mlp.first.shape[1], mlp.first.shape[1], dtype=torch.float64)
    for w, a, b in zip(weights.double(), mlp.first.double(), mlp.second.double(), strict=True):
        total += w * (torch.outer(a, b) + torch.outer(b, a)) / 2
    return total


@pytest.mark.parametrize("n_used", [1, 5, 60])
@pytest.mark.parametrize("n_eigenvectors", [2, 7, 24, 100])
def test_eigenvectors_are_those_of_the_matrix_formed_by_brute_force(
    n_used: int, n_eigenvectors: int
) -> None:
    mlp = random_mlp()
    weights = torch.zeros(60)
    weights[:n_used] = torch.randn(n_used, generator=GENERATOR)
    found = top_eigenvectors(mlp, weights, n_eigenvectors)
    assert found is not None
    matrix = interaction(mlp, weights)
    values, _ = torch.linalg.eigh(matrix)
    scale = float(values.abs().max())
    values = values[values.abs() > 1e-7 * scale]
    expected = values[values.abs().argsort(descending=True)][:n_eigenvectors]
    assert found.values == pytest.approx(expected.numpy(), abs=1e-8 * scale)
    assert found.frobenius_squared == pytest.approx(float(matrix.square().sum()), rel=1e-8)
    for value, vector in zip(found.values, found.vectors, strict=True):
        residual = matrix.numpy() @ vector - value * vector
        assert np.abs(residual).max() < 1e-7 * scale
    assert found.vectors @ found.vectors.T == pytest.approx(np.eye(len(expected)), abs=1e-7)
    shares = np.square(found.values) / found.frobenius_squared
    assert shares.sum() <= 1 + 1e-9
    if n_eigenvectors >= 24:
        assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("n_eigenvectors", [7, 100])
def test_eigenvectors_of_what_the_form_does_not_read_are_left_out(n_eigenvectors: int) -> None:
    """sym(a bᵀ) has rank 2, and rank 1 where a = b: the rest of the space is rounding."""
    mlp, weights = random_mlp(), torch.zeros(60)
    weights[3] = 0.7
    found = top_eigenvectors(mlp, weights, n_eigenvectors)
    assert found is not None and len(found.values) == len(found.vectors) == 2
    found = top_eigenvectors(GatedMlp(mlp.first, mlp.first), weights, n_eigenvectors)
    assert found is not None and len(found.values) == 1


def test_the_same_weights_give_the_same_eigenvectors_to_the_bit() -> None:
    mlp, weights = random_mlp(), torch.randn(60, generator=GENERATOR)
    one, two = (top_eigenvectors(mlp, weights, 3) for _ in range(2))
    assert one is not None and two is not None
    assert np.array_equal(one.vectors, two.vectors)


def test_a_form_that_is_zero_has_no_eigenvectors() -> None:
    mlp = random_mlp()
    assert top_eigenvectors(mlp, torch.zeros(60), 2) is None
    twice = GatedMlp(mlp.first[[0, 0]], mlp.second[[0, 0]])
    assert top_eigenvectors(twice, torch.tensor([1.0, -1.0]), 2) is None
    assert top_eigenvectors(twice, torch.tensor([1.0, -0.9]), 2) is not None


@pytest.mark.parametrize("architecture", GATED)
@pytest.mark.parametrize("kind", ["mlp_hidden", "mlp_out"])
def test_the_form_is_what_the_mlp_computes_without_its_activation(
    architecture: str, kind: str
) -> None:
    """The model's own modules, the activation function replaced by the identity."""
    model, site = tiny_model(architecture), ActivationSite(1, kind)
    parts = block_parts(model, 1)
    assert parts.mlp is not None
    parts.mlp.act_fn = nn.Identity()
    norm = norm_before_mlp(model, 1)
    mlp = gated_mlp(model, 1)
    assert norm is not None and mlp is not None
    width = 40 if kind == "mlp_hidden" else D_MODEL
    feature = torch.randn(1, width, generator=GENERATOR)
    stream = torch.randn(5, D_MODEL, generator=GENERATOR)
    hidden: list[Tensor] = []
    handle = parts.down_projection.register_forward_pre_hook(lambda _, a: hidden.append(a[0]))
    out = parts.mlp(norm(stream))
    handle.remove()
    if kind == "mlp_hidden":
        expected = hidden[0] @ feature[0]
    else:  # the norm after it divides by a token's own scale, which is left out
        scale = 1.0 if parts.mlp_post_norm is None else norm_scale(parts.mlp_post_norm)
        expected = (out * scale) @ feature[0]
    normalised = stream / stream.square().mean(dim=1, keepdim=True).sqrt()
    matrix = interaction(mlp, neuron_weights(model, site, feature)[0]).float()
    form = torch.einsum("ni,ij,nj->n", normalised, matrix, normalised)
    assert torch.allclose(form, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_an_mlp_out_direction_is_the_transpose_of_the_decoder_direction() -> None:
    model = tiny_model("gemma3")
    hidden = torch.randn(1, 40, generator=GENERATOR)
    direction = torch.randn(1, D_MODEL, generator=GENERATOR)
    weights = neuron_weights(model, ActivationSite(1, "mlp_out"), direction)
    written = decoder_direction(model, ActivationSite(1), hidden)
    assert float((weights * hidden).sum()) == pytest.approx(
        float((written * direction).sum()), rel=1e-4
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_gated_mlps_have_a_view_and_the_others_say_why(architecture: str) -> None:
    model = tiny_model(architecture)
    is_gated = architecture in (*GATED, "llama_biased")
    assert (gated_mlp(model, 0) is not None) == is_gated
    reason = unreadable_because(model, ActivationSite(0))
    assert reason is None if is_gated else "not gated" in str(reason)
    assert "not read by" in str(unreadable_because(model, ActivationSite(0, "resid_post")))
    if not is_gated:
        with pytest.raises(ValueError, match=r"L0\.mlp_hidden has no bilinear view"):
            view_bilinear(
                model,
                word_tokenizer(adds_bos=False),
                ActivationSite(0),
                torch.ones(1, 64),
                feature_ids=[0],
                n_eigenvectors=1,
                n_tokens=1,
            )
    with pytest.raises(SiteError, match="out of range"):
        gated_mlp(model, 9)


@pytest.mark.parametrize("architecture", GATED)
def test_the_norm_before_the_mlp_is_found_and_no_hook_stays(architecture: str) -> None:
    model = tiny_model(architecture)
    name = "pre_feedforward" if architecture.startswith("gemma") else "post_attention"
    block = block_parts(model, 1).block
    assert norm_before_mlp(model, 1) is getattr(block, f"{name}_layernorm")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with record_sites(model, [ActivationSite(1, "mlp_out")], lambda *_: None):
        assert norm_before_mlp(model, 1) is getattr(block, f"{name}_layernorm")


def planted_model(pair: tuple[int, int], neuron: int) -> nn.Module:
    """Neuron `neuron` of block 1 reads one token at its gate and the other at its up map."""
    model = tiny_model("llama")
    parts = block_parts(model, 1)
    assert parts.mlp is not None
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight  # pyright: ignore
        embedding.copy_(torch.randn(embedding.shape, generator=torch.Generator().manual_seed(3)))
        embedding[:, :2] *= 0.3  # among 16 dimensions chance alone would come close
        embedding[list(pair)] = 2 * torch.eye(D_MODEL)[:2]
        scale = norm_scale(parts.block.post_attention_layernorm)
        for row, token in zip((parts.mlp.gate_proj, parts.mlp.up_proj), pair, strict=True):
            row.weight[neuron] = embedding[token] / embedding[token].norm() / scale
    return model


@pytest.mark.parametrize("pair", [(10, 30), (44, 5)])
def test_a_planted_pair_of_tokens_is_what_its_feature_shows(pair: tuple[int, int]) -> None:
    model = planted_model(pair, neuron=7)
    planted = torch.zeros(40)
    planted[7] = 1
    control = torch.randn(40, generator=GENERATOR)
    control[7] = 0
    frame = view_bilinear(
        model,
        word_tokenizer(adds_bos=False),
        ActivationSite(1),
        torch.stack([planted, control, torch.zeros(40)]),
        feature_ids=[12, 4, 9],
        n_eigenvectors=2,
        n_tokens=2,
    )
    frame = BILINEAR_VIEW.conform(frame, PARTITION)
    assert frame["feature_id"].unique().sort().to_list() == [4, 12]  # 9 has no weights
    own = frame.filter(feature_id=12)
    # B = sym(u tᵀ): λ = (cos ± 1) / 2, with both tokens at one end, and one at each end.
    ends = {
        (row["eigenvalue"] > 0, row["side"]): set(row["token_id"])
        for row in own.group_by("eigenvalue", "side").agg("token_id").to_dicts()
    }
    firsts = own.filter(token_rank=0)
    both = [tokens for (is_positive, _), tokens in ends.items() if is_positive]
    assert set(pair) in both
    apart = firsts.filter(pl.col("eigenvalue") < 0)["token_id"].to_list()
    assert set(apart) == set(pair)
    share = own.group_by("eigen_rank").agg(pl.col("share_frobenius").first())["share_frobenius"]
    assert share.sum() == pytest.approx(1)
    shown = frame.filter(feature_id=4)
    assert (
        shown.group_by("eigen_rank").agg(pl.col("share_frobenius").first())["share_frobenius"].sum()
        < 0.9
    )
