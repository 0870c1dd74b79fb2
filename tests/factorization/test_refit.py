"""Refits: what is reused, projected, gone on from or started anew; ids go through all of them."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
import torch
from factorization.conftest import settings_for

from assets.activations.site_names import ActivationSite
from assets.factorization.config import FitConfig
from assets.factorization.encoder import Encoder
from assets.factorization.fit_documents import FitChange
from assets.factorization.fit_inputs import FitInputs
from assets.factorization.fit_source import MatrixSource
from assets.factorization.fitting import make_fit
from assets.factorization.inputs import FactorizationError
from assets.factorization.methods import factorize
from assets.factorization.metrics import match_features
from assets.factorization.projection import KeptFit, project_tokens
from assets.factorization.refit import PreviousFit, plan_refit, previous_fit
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS, TABLES

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k010"}
SETTINGS = "code-and-settings"


def inputs_for(n_tokens, shards=("sha",), n_massive=0, **more):
    is_massive = torch.zeros(n_tokens, dtype=torch.bool)
    is_massive[:n_massive] = True
    values = {
        "shards": shards,
        "documents": [f"d{i // 10}" for i in range(n_tokens)],
        "is_massive": is_massive,
        "concepts": [None] * n_tokens,
        "is_held_out": torch.zeros(n_tokens, dtype=torch.bool),
        "site": ActivationSite(1, "mlp_hidden"),
    }
    return FitInputs(**(values | more))


def stored(made, snapshot=7):
    """A made fit as the lake gives it back."""
    frames = {table: table.conform(frame, PARTITION) for table, frame in made.frames.items()}
    assert set(frames) == set(TABLES)
    read = {table: frames[table] for table in PreviousFit.TABLES}
    return previous_fit(read, snapshot, lambda: frames[COEFFICIENTS])


def make(activations, fit, previous=None, settings=SETTINGS, **inputs):
    read = inputs_for(len(activations), **inputs)
    return make_fit(MatrixSource(activations, read), fit, read, previous, settings=settings)


def snmf(data, **settings):
    values = {"rank": 10, "keep_fraction": data.keep_fraction, "max_iter": 200, "tol": 1e-6}
    return FitConfig(**settings_for(settings.get("method", "snmf"), **(values | settings)))


def test_a_warm_start_reaches_the_same_objective_in_fewer_iterations(planted):
    data = planted(n_tokens=900, noise=0.05)
    fit = snmf(data)
    before = make(data.activations[:700], fit)
    assert (before.refit.start, before.refit.snapshot) == ("cold", None)
    cold = make(data.activations, fit)
    warm = make(data.activations, fit, stored(before), shards=("other",))
    assert (warm.refit.start, warm.refit.snapshot) == ("warm", 7)
    assert warm.factorization.n_iter < cold.factorization.n_iter
    cold_end, warm_end = (m.factorization.objective_trace[-1] for m in (cold, warm))
    assert warm_end <= 1.01 * cold_end
    row = warm.frames[FACTORIZATIONS].row(0, named=True)
    assert (row["start"], row["started_from_snapshot"]) == ("warm", 7)


def test_ids_are_kept_over_a_refit_and_stand_in_all_frames(planted):
    data = planted(n_tokens=800, noise=0.05)
    fit = snmf(data, warm_start=False)
    before = stored(make(data.activations[:600], fit))
    # As though the ids had a history.
    history = {**before.row, "feature_ids": [i + 30 for i in range(10)], "next_feature_id": 99}
    features = before.features.__class__(
        before.features.dictionary, history["feature_ids"], 99, snapshot=7
    )
    before = replace(before, row=history, features=features)
    made = make(data.activations, fit.model_copy(update={"seed": 5}), before)
    match = match_features(made.factorization.dictionary, features.dictionary)
    for own, other, cosine in zip(match.own, match.other, match.cosine, strict=True):
        assert (made.identities.feature_ids[own] == 30 + other) == (cosine >= 0.7)
    assert made.identities.count("kept") >= 8
    ids = set(made.identities.feature_ids)
    assert set(made.frames[DICTIONARY]["feature_id"]) <= ids
    assert set(made.frames[COEFFICIENTS]["feature_id"]) <= ids
    assert made.frames[FACTORIZATIONS]["feature_ids"].to_list() == [made.identities.feature_ids]
    assert min(ids) >= 30


@pytest.mark.parametrize("method", ["snmf", "random", "permuted", "covariance"])
def test_a_projection_keeps_the_dictionary_and_old_tokens_their_coefficients(planted, method):
    data = planted(n_tokens=500, noise=0.05)
    fit = snmf(data, method=method, on_new_tokens="project")
    before = make(data.activations[:300], fit, n_massive=3)
    made = make(data.activations, fit, stored(before), n_massive=3, shards=("other",))
    assert made.refit.start == "projected"
    assert torch.equal(made.factorization.dictionary, before.factorization.dictionary)
    assert made.identities.feature_ids == before.identities.feature_ids
    old = made.factorization.coefficients[:300]
    assert torch.equal(old, before.factorization.coefficients)
    row = made.frames[FACTORIZATIONS].row(0, named=True)
    assert row["n_tokens_fit"] == 297 and row["n_tokens"] == 500
    assert row["activation_scale"] == before.frames[FACTORIZATIONS]["activation_scale"].item()
    assert row["explained_variance"] == made.factorization.explained_variance


def test_a_projection_is_that_of_the_estimator(planted):
    data = planted(n_tokens=300, noise=0.05)
    fit = snmf(data)
    whole = factorize(data.activations[:200], fit)
    scale = float(data.activations[:200].norm(dim=1).mean())
    projected = project_tokens(data.activations[:200], fit, KeptFit(whole.dictionary, scale))
    again = project_tokens(data.activations[:200].flip(0), fit, KeptFit(whole.dictionary, scale))
    assert torch.allclose(projected.coefficients, again.coefficients.flip(0), atol=1e-5)
    assert projected.explained_variance == pytest.approx(whole.explained_variance, abs=2e-3)


def test_what_cannot_be_projected_says_why(planted):
    data = planted(n_tokens=50)
    kept, fit = KeptFit(data.dictionary, 1.0), snmf(data)
    with pytest.raises(FactorizationError, match="no encoder found for a projection of sae-k004"):
        project_tokens(data.activations, FitConfig(method="sae", rank=4), kept)
    encoder = Encoder(torch.ones(4, 7), torch.zeros(4), n_active=2)
    with pytest.raises(FactorizationError, match="inputs of width 120; the encoder of sae-k004 re"):
        project_tokens(
            data.activations, FitConfig(method="sae", rank=4), replace(kept, encoder=encoder)
        )
    with pytest.raises(FactorizationError, match="public SAE 'some/folder' found"):
        project_tokens(data.activations, FitConfig(method="sae", path="some/folder"), kept)
    with pytest.raises(FactorizationError, match="width 120; the dictionary was fitted on width 5"):
        project_tokens(data.activations, fit, KeptFit(torch.eye(5), 1.0))
    with pytest.raises(FactorizationError, match="no activation_scale found"):
        project_tokens(data.activations, fit, KeptFit(data.dictionary))
    massive = torch.ones(50, dtype=torch.bool)
    with pytest.raises(FactorizationError, match="all 50 tokens are flagged massive"):
        project_tokens(data.activations, fit, kept, is_massive=massive)


def test_a_projection_needs_the_settings_of_the_fit_before(planted):
    data = planted(n_tokens=300)
    fit = snmf(data, on_new_tokens="project")
    before = stored(make(data.activations, fit))
    change = FitChange(300, 300)
    plan = plan_refit(before, fit, SETTINGS, rank=10, width=120, change=change)
    assert plan.start == "projected"
    other = plan_refit(before, fit, "other", rank=10, width=120, change=change)
    assert (other.start, other.reason) == ("warm", "code or settings changed")


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"rank": 11}, {"keep_fraction": 0.3}, {"init": "random"}, {"warm_start": False}],
)
def test_other_settings_start_cold(planted, change):
    data = planted(n_tokens=200)
    fit = snmf(data, max_iter=5)
    before = stored(make(data.activations, fit))
    changed = fit.model_copy(update=change)
    assert plan_refit(before, fit, SETTINGS, rank=10, width=120).start == "warm"
    assert plan_refit(before, changed, SETTINGS, rank=changed.rank, width=120).start == "cold"
    assert plan_refit(before, fit, SETTINGS, rank=10, width=121).start == "cold"
    assert plan_refit(None, fit, SETTINGS, rank=10, width=120).start == "cold"


def test_permuted_controls_go_on_from_the_dictionary_they_came_from(planted):
    data = planted(n_tokens=500, noise=0.05)
    fit = snmf(data, method="permuted")
    before = make(data.activations, fit)
    warm = make(data.activations, fit, stored(before), settings="other")
    assert warm.refit.start == "warm"
    assert warm.identities.feature_ids == list(range(10))
    assert warm.identities.count("kept") == 10


def test_rank_auto_is_chosen_recorded_and_kept_by_a_projection(planted):
    data = planted(n_features=6, n_tokens=400)
    fit = snmf(data, rank="auto", rank_candidates=(3, 6, 12), rank_seeds=1, max_iter=40)
    made = make(data.activations, fit)
    assert made.rank_choice is not None and made.rank_choice.rank == 6
    row = made.frames[FACTORIZATIONS].row(0, named=True)
    assert (row["rank"], row["n_features"]) == (6, 6)
    projecting = fit.model_copy(update={"on_new_tokens": "project"})
    later = make(data.activations[:350], projecting, stored(made), shards=("other",))
    assert (later.refit.start, later.rank_choice, later.fit.rank) == ("projected", None, 6)
    assert stored(later).rank_choices.equals(stored(made).rank_choices)
    again = make(data.activations[:360], fit, stored(made), shards=("other",))
    assert again.refit.start == "warm" and again.identities.count("kept") == 6


def test_stability_of_a_fixed_rank_is_recorded_by_feature(planted):
    data = planted(n_features=5, n_tokens=300)
    made = make(data.activations, snmf(data, rank=5, stability_seeds=1, max_iter=60))
    row = made.frames[FACTORIZATIONS].row(0, named=True)
    frame = stored(made).feature_stability
    assert row["stability"] == pytest.approx(frame["mean_cosine"].mean()) and len(frame) == 5


def test_the_fingerprint_changes_with_what_the_method_reads_and_with_nothing_else():
    fit = FitConfig(rank=4)
    base = inputs_for(20).fingerprint(SETTINGS, fit)
    assert inputs_for(20).fingerprint(SETTINGS, fit) == base
    assert base.startswith(SETTINGS + ":")
    concepts = ["red"] * 20
    for changed in (
        inputs_for(20, shards=("a", "b")),
        inputs_for(20, n_massive=1),
        inputs_for(20, input_shards=("x",)),
        inputs_for(20, sae_fingerprint="weights"),
    ):
        assert changed.fingerprint(SETTINGS, fit) != base
    assert inputs_for(20, concepts=concepts).fingerprint(SETTINGS, fit) == base
    assert inputs_for(20).fingerprint("other", fit) != base
    supervised = FitConfig(method="diff_means")
    assert inputs_for(20, concepts=concepts).fingerprint(SETTINGS, supervised) != inputs_for(
        20
    ).fingerprint(SETTINGS, supervised)
    auto, other = FitConfig(rank="auto"), inputs_for(20, documents=["one"] * 20)
    assert other.fingerprint(SETTINGS, fit) == base
    assert other.fingerprint(SETTINGS, auto) != inputs_for(20).fingerprint(SETTINGS, auto)


def test_a_failed_row_is_no_fit_to_go_on_from(planted):
    data = planted(n_tokens=100)
    made = make(data.activations, snmf(data, max_iter=3))
    frames = {table: table.conform(f, PARTITION) for table, f in made.frames.items()}
    failed = frames[FACTORIZATIONS].with_columns(status=pl.lit("failed"))
    for rows, snapshot in ((failed, 3), (failed.clear(), None)):
        read = frames | {FACTORIZATIONS: rows}
        assert previous_fit(read, snapshot, lambda: frames[COEFFICIENTS]) is None
