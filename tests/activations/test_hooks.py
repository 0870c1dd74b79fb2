"""Hooks: what they read and change, that they go away, and that a stop really stops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assets.activations.hooks import (
    add_at_site,
    record_sites,
    replace_at_site,
    run_forward,
    stop_after,
)
from assets.activations.sites import (
    SITE_KINDS,
    ActivationSite,
    SiteError,
    locate_blocks,
    locate_site,
)
from tests.activations.tiny_models import ARCHITECTURES, N_LAYERS, tiny_model

INPUTS = {"input_ids": torch.tensor([[5, 9, 33, 12], [4, 40, 17, 50]])}
SITE = ActivationSite(1)


def logits(model: nn.Module) -> torch.Tensor:
    return run_forward(model, INPUTS).logits


def hook_count(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", SITE_KINDS)
def test_added_vectors_arrive_at_the_site_row_by_row(architecture: str, kind: str) -> None:
    model = tiny_model(architecture)
    site = ActivationSite(1, kind)
    width = locate_site(model, site).width
    vectors = torch.randn(2, width, generator=torch.manual_seed(3))
    seen: list[torch.Tensor] = []

    def keep(_: ActivationSite, activations: torch.Tensor) -> None:
        seen.append(activations.clone())

    with record_sites(model, [site], keep):
        plain = logits(model)
    with add_at_site(model, site, vectors), record_sites(model, [site], keep):
        moved = logits(model)
    before, after = seen
    assert before.shape == (2, 4, width)
    assert torch.equal(after, before + vectors[:, None])
    assert not torch.allclose(moved, plain)
    with add_at_site(model, site, vectors[0]):
        same_for_both = logits(model)
    torch.testing.assert_close(same_for_both[0], moved[0])
    assert not torch.allclose(same_for_both[1], moved[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", SITE_KINDS)
def test_strength_zero_changes_no_bit(architecture: str, kind: str) -> None:
    model = tiny_model(architecture)
    site = ActivationSite(1, kind)
    vectors = torch.randn(2, locate_site(model, site).width, generator=torch.manual_seed(3))
    plain = logits(model)
    with add_at_site(model, site, 0.0 * vectors):
        assert torch.equal(logits(model), plain)
    vectors[0] = 0
    with add_at_site(model, site, vectors):
        mixed = logits(model)
    assert torch.equal(mixed[0], plain[0])
    assert not torch.allclose(mixed[1], plain[1])


def test_adding_to_a_row_keeps_negative_zeros_of_rows_that_get_nothing() -> None:
    model = tiny_model("opt")
    seen: list[torch.Tensor] = []
    vectors = torch.zeros(2, locate_site(model, SITE).width)
    vectors[0] = 1
    with (
        replace_at_site(model, SITE, lambda x: torch.full_like(x, -0.0)),
        add_at_site(model, SITE, vectors),
        record_sites(model, [SITE], lambda _, x: seen.append(x.clone())),
    ):
        run_forward(model, INPUTS)
    assert (seen[0][0] == 1).all()
    assert torch.signbit(seen[0][1]).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_replacing_by_the_same_changes_nothing_and_by_zero_something(architecture: str) -> None:
    model = tiny_model(architecture)
    plain = logits(model)
    with replace_at_site(model, SITE, lambda x: x.clone()):
        assert torch.equal(logits(model), plain)
    with replace_at_site(model, SITE, torch.zeros_like):
        assert not torch.allclose(logits(model), plain)
    assert torch.equal(logits(model), plain)


def test_hooks_are_gone_after_an_exception() -> None:
    model = tiny_model("gpt2")
    assert hook_count(model) == 0

    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("in the middle of the forward pass")

    width = locate_site(model, SITE).width
    sites = [ActivationSite(0), ActivationSite(1, "resid_post"), ActivationSite(2, "attn_out")]
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        record_sites(model, sites, lambda *_: None),
        add_at_site(model, SITE, torch.ones(width)),
        stop_after(model, 2),
        replace_at_site(model, SITE, fail),
    ):
        assert hook_count(model) >= 8
        run_forward(model, INPUTS)
    assert hook_count(model) == 0


def test_hooks_are_gone_when_a_later_site_does_not_exist() -> None:
    model = tiny_model("gpt2")
    sites = [ActivationSite(0), ActivationSite(9)]
    with pytest.raises(SiteError), record_sites(model, sites, lambda *_: None):
        pass
    assert hook_count(model) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layer", range(N_LAYERS))
def test_stopping_runs_nothing_later_and_records_the_same(architecture: str, layer: int) -> None:
    model = tiny_model(architecture)
    sites = [ActivationSite(layer, kind) for kind in SITE_KINDS]
    full: dict[str, torch.Tensor] = {}
    with record_sites(model, sites, lambda site, x: full.update({site.key: x.clone()})):
        run_forward(model, INPUTS)
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(locate_blocks(model))
    ]
    head_calls: list[int] = []
    handles.append(
        model.get_output_embeddings().register_forward_hook(lambda *_: head_calls.append(1))
    )
    stopped: dict[str, torch.Tensor] = {}
    with record_sites(model, sites, lambda site, x: stopped.update({site.key: x.clone()})):
        assert run_forward(model, INPUTS, stop_layer=layer) is None
    assert ran == list(range(layer + 1))
    assert head_calls == []
    assert stopped.keys() == full.keys() == {site.key for site in sites}
    for key, activations in full.items():
        assert torch.equal(stopped[key], activations)
    for handle in handles:
        handle.remove()
    assert run_forward(model, INPUTS).logits.isfinite().all()


def test_nested_stops_end_at_the_earlier_layer() -> None:
    model = tiny_model("llama")
    ran: list[int] = []
    for i, block in enumerate(locate_blocks(model)):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    with stop_after(model, 0):
        assert run_forward(model, INPUTS, stop_layer=2) is None
        raise AssertionError("the outer stop should have ended this block")
    assert ran == [0]


def test_wrong_shapes_are_refused() -> None:
    model = tiny_model("llama")
    with (
        pytest.raises(SiteError, match=r"expected \[40\]"),
        add_at_site(model, SITE, torch.ones(16)),
    ):
        pass
    with (
        pytest.raises(SiteError, match="3 vectors for a batch of 2"),
        add_at_site(model, SITE, torch.ones(3, 40)),
    ):
        run_forward(model, INPUTS)
    with (
        pytest.raises(SiteError, match="replacement of shape"),
        replace_at_site(model, SITE, lambda x: x[:, :1]),
    ):
        run_forward(model, INPUTS)
    with pytest.raises(SiteError, match="out of range"), stop_after(model, N_LAYERS):
        pass
