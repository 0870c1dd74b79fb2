"""The batched path from the site on gives what full forwards with hooks give, by definition."""

from __future__ import annotations

from contextlib import ExitStack

import polars as pl
import pytest
import torch
from torch import Tensor, nn

from assets.ablation.plan import permuted_direction
from assets.ablation.targets import choose_targets
from assets.activations.hooks import record_sites, replace_at_site
from assets.activations.site_names import SITE_KINDS
from assets.activations.sites import (
    ActivationSite,
    final_norm,
    locate_blocks,
    norm_scale,
    unembedding,
)
from tests.ablation.planted import (
    CONFIG,
    FIRING_SHARE,
    PROMOTED,
    ablate,
    fit_at,
    strengths_of,
)
from tests.activations.tiny_models import ARCHITECTURES, N_LAYERS, tiny_model
from tests.faithfulness.planted import tokens_frame, whole_sample

# Feature 30 has no concept; of each concept one document measures, the other chose.
CONCEPTS = pl.DataFrame(
    {
        "document_id": ["a", "b", "c", "e"],
        "minhash": ["a", "b", "c", "e"],
        "concept": ["first", "second", "first", "second"],
    }
)
CONCEPT_OF = {10: "first", 20: "second"}


def outputs(
    model: nn.Module, ids: Tensor, edits: dict[ActivationSite, Tensor] | None = None
) -> dict[str, Tensor]:
    """Log-probabilities and every layer's activations of one full forward, rows put in at sites."""
    found: dict[str, Tensor] = {}
    sites = [
        ActivationSite(layer, kind)
        for layer in range(N_LAYERS)
        for kind in ("attn_out", "mlp_out", "resid_post")
    ]
    with torch.no_grad(), ExitStack() as stack:
        for site, rows in (edits or {}).items():
            stack.enter_context(replace_at_site(model, site, lambda _, rows=rows: rows[None]))
        stack.enter_context(
            record_sites(model, sites, lambda s, a: found.__setitem__(s.key, a[0].clone()))
        )
        logits = model(input_ids=ids[None]).logits[0]
    return found | {"logits": logits, "log_p": logits.double().log_softmax(-1)}


def frozen_later(clean: dict[str, Tensor], site: ActivationSite) -> dict[ActivationSite, Tensor]:
    """Clean rows of what writes into the stream after the site."""
    later = [
        ActivationSite(layer, kind)
        for layer in range(site.layer + 1, N_LAYERS)
        for kind in ("attn_out", "mlp_out")
    ]
    if site.kind == "attn_out":
        later.append(ActivationSite(site.layer, "mlp_out"))
    return {one: clean[one.key] for one in later}


def centred_drop(model: nn.Module, clean: Tensor, other: Tensor, token: int) -> float:
    """By the norm's definition, its scale that of `clean`, in double precision."""
    norm = final_norm(model)
    clean, change = clean.double(), other.double() - clean.double()
    if isinstance(norm, nn.LayerNorm):
        sigma = (clean.var(unbiased=False) + norm.eps).sqrt()
        change = change - change.mean()
    else:
        epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
        sigma = (clean.square().mean() + epsilon).sqrt()
    logits = unembedding(model).double() @ (norm_scale(norm).double() * change / sigma)
    return -float(logits[token] - logits.mean())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", SITE_KINDS)
def test_runs_equal_full_forwards_with_hooks(architecture: str, kind: str) -> None:
    model, site = tiny_model(architecture), ActivationSite(1, kind)
    fit = fit_at(model, site)
    measured = ablate(model, site, fit, study_documents=CONCEPTS, concept_of=CONCEPT_OF)
    documents = {one.document.document_id: one for one in whole_sample()}
    n_tokens = len(tokens_frame().filter(is_massive=False))
    last = ActivationSite(len(locate_blocks(model)) - 1, "resid_post").key
    effects = []
    for row in measured.runs.iter_rows(named=True):
        feature_id, one = row["feature_id"], documents[row["document_id"]]
        strengths = strengths_of(fit, feature_id)
        own, massive = strengths[row["document_id"]], torch.tensor(one.is_massive)
        usable = [
            float(s)
            for name, values in strengths.items()
            for s, is_out in zip(values, documents[name].is_massive, strict=True)
            if not is_out
        ]
        # Document "d" has one token, so it is in no sample, but in the mean.
        of_d = fit.coefficients.filter(feature_id=feature_id, row=15)["coefficient"].sum()
        largest = max(*usable, float(of_d))
        mean = float(f"{(sum(usable) + of_d) / n_tokens:.1e}")
        direction = fit.dictionary[fit.feature_ids.index(feature_id)]
        if row["is_null"]:
            direction = permuted_direction(direction, feature_id, CONFIG.seed)
        taken = own - (mean if row["ablation"] == "mean" else 0.0)
        taken[massive] = 0
        is_counted = ~massive
        is_counted[-1] = False
        is_strong = (own >= CONFIG.strong_share * largest) & is_counted
        is_silent = (own <= FIRING_SHARE * largest) & is_counted
        assert bool(is_strong.any()) or not row["is_on"]
        assert row["n_tokens"] == int(is_counted.sum())
        assert row["n_tokens_strong"] == int(is_strong.sum())
        assert row["n_tokens_silent"] == int(is_silent.sum())

        ids, first = torch.tensor(one.document.token_ids), one.document.n_special_prefix
        clean_rows: list[Tensor] = []
        with (
            torch.no_grad(),
            record_sites(model, [site], lambda _, a, kept=clean_rows: kept.append(a[0].clone())),
        ):
            model(input_ids=ids[None])
        ablated_rows = clean_rows[0].clone()
        ablated_rows[first:] -= taken[:, None] * direction
        clean = outputs(model, ids)
        ablated = outputs(model, ids, {site: ablated_rows})
        frozen = outputs(model, ids, {site: ablated_rows, **frozen_later(clean, site)})

        targets = ids[first + 1 :]
        delta = (clean["log_p"] - ablated["log_p"])[first:-1].gather(1, targets[:, None])[:, 0]
        kl = (clean["log_p"].exp() * (clean["log_p"] - ablated["log_p"])).sum(-1)[first:-1]
        expected = {
            "delta": delta[is_counted[:-1]].sum(),
            "kl": kl[is_counted[:-1]].sum(),
            "delta_strong": delta[is_strong[:-1]].sum(),
            "delta_silent": delta[is_silent[:-1]].sum(),
            "kl_strong": kl[is_strong[:-1]].sum(),
            "kl_silent": kl[is_silent[:-1]].sum(),
        }
        at = (is_strong.nonzero()[:, 0] + first).tolist()
        lost = (clean["log_p"] - ablated["log_p"])[at][:, PROMOTED[feature_id]].mean(-1).sum()
        expected["promoted_drop"] = lost
        for name, other in (("direct_effect", frozen), ("total_effect", ablated)):
            expected[name] = sum(
                centred_drop(
                    model, clean[last][i], other[last][i], int(clean["logits"][i].argmax())
                )
                for i in at
            )
        for name, value in expected.items():
            assert row[name] == pytest.approx(float(value), abs=1e-4), (name, row)
        effects.append(row["total_effect_own_norm"])
    assert len(measured.runs) >= 3 * 4 * 2 and max(map(abs, effects)) > 1e-3

    targets = choose_targets(
        fit.coefficients, tokens_frame(), fit.feature_ids, CONFIG, CONCEPTS, CONCEPT_OF
    )
    by_ablation = measured.runs.partition_by("feature_id", "ablation", "is_null", as_dict=True)
    assert len(by_ablation) == 3 * 2 * 2
    for (feature_id, *_), rows in by_ablation.items():
        drawn = targets[feature_id]
        expected_ids = {
            "is_on": drawn.on,
            "is_off": drawn.off,
            "is_of_concept": drawn.of_concept,
            "is_of_others": drawn.of_others,
        }
        for column, ids in expected_ids.items():
            assert sorted(rows.filter(column)["document_id"]) == sorted(ids), column
            is_drawn = column in ("is_on", "is_off") or feature_id in CONCEPT_OF
            assert bool(ids) == is_drawn, column
        assert set(rows["document_id"]) == set(drawn.documents)


def test_the_total_effect_by_the_models_own_norm_is_that_of_its_logits() -> None:
    model, site = tiny_model("llama"), ActivationSite(1)
    fit = fit_at(model, site)
    runs = ablate(model, site, fit).runs.filter(ablation="zero", is_null=False, is_on=True)
    documents = {one.document.document_id: one for one in whole_sample()}
    for row in runs.iter_rows(named=True):
        one, own = documents[row["document_id"]], strengths_of(fit, row["feature_id"])
        largest = fit.coefficients.filter(feature_id=row["feature_id"])
        massive_rows = tokens_frame().filter("is_massive")["row"].implode()
        usable = largest.filter(~largest["row"].is_in(massive_rows))["coefficient"].max()
        taken = own[row["document_id"]].clone()
        taken[torch.tensor(one.is_massive)] = 0
        ids, first = torch.tensor([one.document.token_ids]), one.document.n_special_prefix
        change = torch.zeros(1, ids.shape[1], fit.dictionary.shape[1])
        change[0, first:] = (
            taken[:, None] * fit.dictionary[fit.feature_ids.index(row["feature_id"])]
        )
        with torch.no_grad():
            clean = model(input_ids=ids).logits[0].double()
            with replace_at_site(model, site, lambda a, change=change: a - change):
                ablated = model(input_ids=ids).logits[0].double()
        drops = (clean - clean.mean(-1, keepdim=True)) - (ablated - ablated.mean(-1, keepdim=True))
        strong = (taken >= CONFIG.strong_share * usable)[:-1].nonzero()[:, 0] + first
        total = sum(float(drops[i, clean[i].argmax()]) for i in strong.tolist())
        assert row["total_effect_own_norm"] == pytest.approx(total, abs=1e-4)
    assert len(runs) >= 3
