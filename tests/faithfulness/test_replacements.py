"""Identity recovers everything, zero nothing, and runs from the block on equal full forwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assets.activations.hooks import replace_at_site
from assets.activations.site_names import SITE_KINDS
from assets.activations.sites import ActivationSite, locate_blocks, locate_site
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.measure import measure_faithfulness
from assets.faithfulness.replaced_forward import DocumentBatch, FaithfulnessError, Spent
from assets.faithfulness.tables import FAITHFULNESS, FAITHFULNESS_DOCUMENTS, FEATURE_FAITHFULNESS
from tests.activations.tiny_models import ARCHITECTURES, tiny_model
from tests.faithfulness.planted import (
    exact_fit,
    random_fit,
    rows_of_the_site,
    whole_sample,
)

PARTITION = {"site": "study:m@L1.mlp_hidden", "fit": "snmf-k004"}
CONFIG = FaithfulnessConfig(batch_tokens=24)
SITES = [ActivationSite(number % 3, kind) for number, kind in enumerate(SITE_KINDS)]


def losses_by_full_forwards(
    model: nn.Module, site: ActivationSite, rows: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """(cross-entropy, KL) summed over each document, one plain forward a document."""
    cross_entropies, kls = [], []
    for one, own in zip(whole_sample(), rows, strict=True):
        ids = torch.tensor([one.document.token_ids])
        first = one.document.n_special_prefix

        def edit(activations: Tensor, own: Tensor | None = own, first: int = first) -> Tensor:
            changed = activations.clone()
            if own is not None:
                changed[0, first:] = own
            return changed

        with torch.no_grad():
            base = model(input_ids=ids).logits[0, first:-1].double().log_softmax(-1)
            with replace_at_site(model, site, edit):
                log_p = model(input_ids=ids).logits[0, first:-1].double().log_softmax(-1)
        cross_entropies.append(-log_p.gather(1, ids[0, first + 1 :, None]).sum())
        kls.append((base.exp() * (base - log_p)).sum())
    return torch.stack(cross_entropies), torch.stack(kls)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.key)
def test_identity_is_one_zero_is_nothing_and_exact_is_one(
    architecture: str, site: ActivationSite
) -> None:
    model = tiny_model(architecture)
    rows = rows_of_the_site(model, site)
    for offset in (None, rows.mean(dim=0)):
        measured = measure_faithfulness(
            model, site, whole_sample(), exact_fit(rows, offset), [], CONFIG
        )
        frame = FAITHFULNESS.conform(measured.replacements, PARTITION)
        by_name = {row["replacement"]: row for row in frame.to_dicts()}
        identity, zero, exact = (by_name[n] for n in ("identity", "zero", "reconstruction"))
        assert identity["cross_entropy_replaced"] == identity["cross_entropy_base"]
        assert identity["kl_nats"] == 0.0
        assert zero["cross_entropy_replaced"] == zero["cross_entropy_zero"]
        assert zero["kl_nats"] > 1e-3, "zeroing had no effect"
        assert exact["cross_entropy_replaced"] == pytest.approx(
            exact["cross_entropy_base"], abs=2e-5
        )
        assert {row["n_tokens"] for row in by_name.values()} == {6 + 2 + 4 + 8}
        if zero["cross_entropy_zero"] > zero["cross_entropy_base"]:
            assert (identity["recovered"], zero["recovered"]) == (1.0, 0.0)
            assert identity["recovered_low"] is None, "documents that are all alike"
        else:
            assert {row["status"] for row in by_name.values()} == {"undefined"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.key)
def test_each_replacement_equals_full_forwards_with_a_hook(
    architecture: str, site: ActivationSite
) -> None:
    model = tiny_model(architecture)
    rows = rows_of_the_site(model, site)
    fit = random_fit(rows)
    sample = whole_sample()
    own = [rows[s.first_row : s.first_row + s.document.n_rows] for s in sample]
    values = torch.zeros(len(rows), 4)
    for row, feature_id, coefficient in fit.coefficients.iter_rows():
        values[row, feature_id // 10 - 1] = coefficient
    built = [values[s.first_row : s.first_row + s.document.n_rows] @ fit.dictionary for s in sample]
    kept = [
        torch.where(torch.tensor(s.is_massive)[:, None], a, b)
        for s, a, b in zip(sample, own, built, strict=True)
    ]
    expected = {
        "identity": own,
        "zero": [torch.zeros_like(a) for a in own],
        "mean": [fit.mean_row.expand(a.shape) for a in own],
        "reconstruction": built,
        "reconstruction_keep_massive": kept,
    }
    frame = measure_faithfulness(model, site, sample, fit, [], CONFIG).replacements
    for row in frame.iter_rows(named=True):
        cross_entropy, kl = losses_by_full_forwards(model, site, expected[row["replacement"]])
        assert row["cross_entropy_replaced"] == pytest.approx(
            cross_entropy.sum().item() / 20, abs=2e-5
        )
        assert row["kl_nats"] == pytest.approx(kl.sum().item() / 20, abs=2e-5)
    both = dict(frame.select("replacement", "cross_entropy_replaced").iter_rows())
    assert both["reconstruction"] != both["reconstruction_keep_massive"]


def test_batching_and_document_order_change_nothing_but_rounding() -> None:
    model, site = tiny_model("gemma3"), ActivationSite(1)
    fit = random_fit(rows_of_the_site(model, site))
    ids = fit.feature_ids[:3]
    alone, together = (
        measure_faithfulness(
            model, site, whole_sample(), fit, ids, CONFIG.model_copy(update={"batch_tokens": n})
        )
        for n in (1, 4096)
    )
    for name in ("replacements", "features"):
        a, b = getattr(alone, name), getattr(together, name)
        for column in a.columns:
            if a[column].dtype.is_float():
                assert a[column].to_list() == pytest.approx(b[column].to_list(), abs=2e-5)
            else:
                assert a[column].to_list() == b[column].to_list()


def test_only_blocks_from_the_site_on_are_run_again_and_counted() -> None:
    model, site = tiny_model("llama"), ActivationSite(2)
    batch = DocumentBatch(model, site, [one.document for one in whole_sample()])
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(block.self_attn for block in locate_blocks(model))
    ]
    before = batch.spent
    batch.losses([1], batch.rows[[1]])
    for handle in handles:
        handle.remove()
    assert ran == [2]
    assert before == Spent(4 * 10, 3 * 4 * 10) and batch.spent == before + Spent(10, 10)


def test_an_exception_leaves_no_hook_behind() -> None:
    model, site = tiny_model("gpt2"), ActivationSite(1)
    documents = [one.document for one in whole_sample()]
    batch = DocumentBatch(model, site, documents)

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle of a forward")

    handle = locate_blocks(model)[2].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        batch.losses([0], batch.rows[[0]])
    with pytest.raises(RuntimeError, match="in the middle"):
        DocumentBatch(model, site, documents)
    handle.remove()
    modules = [*locate_blocks(model), locate_site(model, site).module]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert not any("forward" in m.__dict__ for m in modules)


def test_a_model_that_reads_more_than_the_stream_is_refused() -> None:
    model = tiny_model("llama")
    blocks = locate_blocks(model)
    memory: list[Tensor] = []
    blocks[0].register_forward_hook(lambda _, args, out: memory.append(out + args[0]))
    blocks[2].register_forward_hook(lambda _, args, out: out + memory[-1])
    fit = random_fit(rows_of_the_site(model, ActivationSite(1)))
    with pytest.raises(FaithfulnessError, match="reads more than the residual stream"):
        measure_faithfulness(model, ActivationSite(1), whole_sample(), fit, [], CONFIG)
    with pytest.raises(FaithfulnessError, match=r"call model.eval\(\)"):
        DocumentBatch(tiny_model("llama").train(), ActivationSite(1), [whole_sample()[0].document])


def test_rows_conform_to_the_tables_and_are_the_same_each_time() -> None:
    model, site = tiny_model("llama"), ActivationSite(1)
    fit = random_fit(rows_of_the_site(model, site))
    one, two = (
        measure_faithfulness(model, site, whole_sample(), fit, fit.feature_ids, CONFIG)
        for _ in range(2)
    )
    assert one.replacements.equals(two.replacements) and one.features.equals(two.features)
    assert one.documents.equals(two.documents)
    assert len(FAITHFULNESS_DOCUMENTS.conform(one.documents, PARTITION)) == one.work.rows_computed
    assert len(FAITHFULNESS.conform(one.replacements, PARTITION)) == 5
    assert len(FEATURE_FAITHFULNESS.conform(one.features, PARTITION)) == 4
