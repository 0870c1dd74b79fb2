"""Taking one feature out: equal to a full forward with a hook, and nothing where it is silent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from assets.activations.hooks import replace_at_site
from assets.activations.site_names import SITE_KINDS
from assets.activations.sites import ActivationSite
from assets.faithfulness.ablation import plan_ablations
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.measure import measure_faithfulness
from tests.activations.tiny_models import ARCHITECTURES, tiny_model
from tests.faithfulness.planted import random_fit, rows_of_the_site, whole_sample

CONFIG = FaithfulnessConfig(batch_tokens=24)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", SITE_KINDS)
def test_ablation_equals_full_forwards_with_a_hook(architecture: str, kind: str) -> None:
    model, site = tiny_model(architecture), ActivationSite(1, kind)
    rows = rows_of_the_site(model, site)
    fit = random_fit(rows)
    values = torch.zeros(len(rows), 4)
    for row, feature_id, coefficient in fit.coefficients.iter_rows():
        values[row, feature_id // 10 - 1] = coefficient
    frame = measure_faithfulness(model, site, whole_sample(), fit, fit.feature_ids, CONFIG).features
    n_compared = 0
    for row in frame.filter(status="ok").iter_rows(named=True):
        feature = row["feature_id"] // 10 - 1
        deltas, actives, kls, zeros = [], [], [], []
        for one in whole_sample():
            own = values[one.first_row : one.first_row + one.document.n_rows, feature]
            if not (own[:-1] > 0).any():
                continue
            ids = torch.tensor([one.document.token_ids])
            first = one.document.n_special_prefix
            taken = torch.zeros(1, ids.shape[1], fit.dictionary.shape[1])
            taken[0, first:] = own[:, None] * fit.dictionary[feature]
            is_own = torch.arange(ids.shape[1])[None, :, None] >= first
            log_p = []
            with torch.no_grad():
                for edit in (
                    lambda a: a,
                    lambda a, taken=taken: a - taken,
                    lambda a, is_own=is_own: torch.where(is_own, 0.0, a),
                ):
                    with replace_at_site(model, site, edit):
                        logits = model(input_ids=ids).logits[0, first:-1]
                    log_p.append(logits.double().log_softmax(-1))
            base, without, zero = log_p
            targets = ids[0, first + 1 :, None]
            change = (base - without).gather(1, targets)[:, 0]
            start = int((own[:-1] > 0).nonzero()[0])
            assert change[:start].abs().max() < 1e-5 if start else True, "causality"
            deltas.append(change[start:])
            actives.append(own[start:-1] > 0)
            kls.append((base.exp() * (base - without)).sum(-1)[start:])
            zeros.append((base - zero).gather(1, targets).sum())
        delta, active, kl = torch.cat(deltas), torch.cat(actives), torch.cat(kls)
        assert row["n_tokens"] == len(delta) and row["n_tokens_active"] == int(active.sum())
        assert row["n_documents"] == row["n_documents_active"] == len(deltas)
        assert row["delta_cross_entropy"] == pytest.approx(delta.mean().item(), abs=2e-5)
        assert row["delta_at_active"] == pytest.approx(delta[active].mean().item(), abs=2e-5)
        if not active.all():
            assert row["delta_elsewhere"] == pytest.approx(delta[~active].mean().item(), abs=2e-5)
        assert row["kl_nats"] == pytest.approx(kl.mean().item(), abs=2e-5)
        if row["share_of_zero_ablation"] is not None:
            share = row["share_of_zero_ablation"] * torch.stack(zeros).sum().item()
            assert share == pytest.approx(delta.sum().item(), abs=2e-3)
        n_compared += 1
    assert n_compared == 3 and (frame["delta_cross_entropy"].drop_nulls().abs() > 1e-4).any()


def test_a_silent_feature_is_a_row_that_says_so_and_a_zero_direction_changes_nothing() -> None:
    model, site = tiny_model("llama"), ActivationSite(1)
    fit = random_fit(rows_of_the_site(model, site))
    dictionary = fit.dictionary.clone()
    dictionary[0] = 0
    fit = replace(fit, dictionary=dictionary)
    frame = measure_faithfulness(model, site, whole_sample(), fit, fit.feature_ids, CONFIG).features
    silent = frame.row(by_predicate=pl.col("feature_id") == 40, named=True)
    assert silent["status"] == "inactive" and "never active" in silent["reason"]
    assert silent["delta_cross_entropy"] is None and silent["n_documents"] == 0
    nothing = frame.row(by_predicate=pl.col("feature_id") == 10, named=True)
    assert nothing["status"] == "ok"
    assert nothing["delta_cross_entropy"] == pytest.approx(0, abs=1e-6)
    assert nothing["kl_nats"] == pytest.approx(0, abs=1e-6)


def test_features_beyond_the_cap_are_named_with_the_reason() -> None:
    model, site = tiny_model("llama"), ActivationSite(1)
    fit = random_fit(rows_of_the_site(model, site))
    measured = measure_faithfulness(model, site, whole_sample(), fit, [20], CONFIG, beyond="why")
    by_id = {row["feature_id"]: row for row in measured.features.to_dicts()}
    assert {i: by_id[i]["status"] for i in by_id} == {
        10: "not_measured",
        20: "ok",
        30: "not_measured",
        40: "inactive",
    }
    assert by_id[10]["reason"] == "why"


def test_each_feature_is_ablated_where_it_is_strongest() -> None:
    peaks = np.array([[0.0, 3.0, 1.0], [2.0, 1.0, 1.0], [5.0, 0.0, 1.0]])
    assert plan_ablations(peaks, [0, 1, 2], 1) == {2: [0], 0: [1, 2]}
    assert plan_ablations(peaks, [0], 5) == {2: [0], 1: [0]}
    assert plan_ablations(peaks, [], 5) == {}


def test_the_feature_that_the_model_needs_costs_most() -> None:
    """A planted dictionary: one direction carries the whole row, the other next to nothing."""
    model, site = tiny_model("gpt2"), ActivationSite(2)
    rows = rows_of_the_site(model, site)
    fit = random_fit(rows, n_features=2)
    main = rows.mean(dim=0) / rows.mean(dim=0).norm()
    other = torch.zeros_like(main)
    other[0] = 1
    everywhere = pl.DataFrame(
        {
            "row": [*range(len(rows))] * 2,
            "feature_id": [10] * len(rows) + [20] * len(rows),
            "coefficient": [*(10 * rows @ main).abs().tolist(), *[1e-4] * len(rows)],
        },
        schema=fit.coefficients.schema,
    )
    fit = replace(fit, dictionary=torch.stack([main, other]), coefficients=everywhere)
    frame = measure_faithfulness(model, site, whole_sample(), fit, [10, 20], CONFIG).features
    kl = dict(frame.select("feature_id", "kl_nats").iter_rows())
    assert kl[10] > 100 * max(kl[20], 1e-6)
