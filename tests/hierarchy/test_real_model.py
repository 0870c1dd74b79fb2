"""The weekday experiment on SmolLM2-135M: what holds whatever the features mean."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from assets.activations.capture import capture_rows
from assets.activations.sites import ActivationSite
from assets.activations.suffix_forward import SuffixForward
from assets.activations.tokenization import tokenize_documents
from assets.corpus.bundled_corpus import BUNDLED_FOLDER, read_bundled_rows
from assets.detection.text_scores import max_cosine_scores
from assets.factorization.semi_nmf import SemiNMF
from assets.hierarchy.config import HierarchyConfig
from assets.hierarchy.group_members import concept_groups, group_members_frame, members_of
from assets.hierarchy.group_steering import (
    measured_tokens,
    plan_interventions,
    steer_groups,
    token_gains,
)
from assets.hierarchy.group_tables import GROUP_STEERING
from assets.hierarchy.tree_study import study_tree
from resources.subject_model import load_subject_model

SITE = ActivationSite(25)
PROMPTS = ("I think that", "Today is", "We will see you on")


@pytest.mark.slow
def test_the_weekday_experiment_on_a_real_model(cache_folder: Path) -> None:
    subject = load_subject_model("smollm2-135m-instruct", cache_folder=cache_folder / "models")
    rows = read_bundled_rows(BUNDLED_FOLDER / "weekdays.jsonl")
    documents = tokenize_documents(
        subject.tokenizer, [(str(i), row.text) for i, row in enumerate(rows)], 64
    )
    activations = capture_rows(subject.model, documents, SITE).float()
    number = torch.tensor([i for i, one in enumerate(documents) for _ in range(one.n_rows)])
    norms = activations.norm(dim=1)
    kept = norms <= 5 * norms.median()
    fit = SemiNMF(32, keep_fraction=0.05, max_iter=15).fit(activations[kept])
    dictionary = torch.as_tensor(fit.components_)
    concepts = [row.concept for row in rows]
    (group, *_) = concept_groups({"weekday": ()}, {row.concept: row.parent_concept for row in rows})
    assert len(group.concepts) == 7
    scores = max_cosine_scores([(activations[kept], number[kept])], dictionary, len(rows))
    members = group_members_frame(
        [group], scores, [str(i) for i in range(len(rows))], concepts, range(32), seed=0
    )
    days, ids = members_of(members, "weekday")
    assert len(set(ids)) == 7

    tokens = measured_tokens(subject.tokenizer, sorted(set(concepts)))
    assert not any(token.shared_with for token in tokens)
    assert {token.token for token in tokens} >= {f" {day}" for day in group.concepts}
    prompt_ids = [subject.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    zeros = torch.zeros(1, dictionary.shape[1])
    gains, base = token_gains(
        SuffixForward(subject.model, SITE, prompt_ids), zeros, [t.token_id for t in tokens]
    )
    assert gains.abs().max() < 1e-3 and (base < 0).all()

    plan = plan_interventions(
        "weekday", days, dictionary[ids], core_share=0.5, n_null_draws=1, seed=0
    )
    frame = GROUP_STEERING.conform(
        steer_groups(
            subject.model,
            SITE,
            plan,
            tokens,
            {"weekday": days},
            prompt_ids,
            target_kl_nats=0.5,
            tolerance=0.05,
            max_evaluations=48,
            max_strength_ratio=100.0,
        ),
        {"site": "weekdays:smollm2-135m-instruct@L25.mlp_hidden", "fit": "snmf-k032"},
    )
    assert len(frame) == 2 * 8 * 17
    measured = frame.filter(status="ok")
    assert len(measured) >= 0.8 * len(frame)
    assert ((measured["achieved_kl_nats"] - 0.5).abs() <= 0.026).all()
    assert measured["delta_logprob"].null_count() == 0
    assert frame.filter(pl.col("status") != "ok")["reason"].null_count() == 0
    assert frame.filter(intervention="exclusive", status="ok")["delta_logprob"].std() > 0.01

    tree = study_tree(
        dictionary,
        lambda: activations[kept],
        HierarchyConfig(n_starts=2, n_permutations=1, fine_tune_max_iter=15),
        penalty=0.03,
    )
    top = tree.rows.filter(permutation=0, level=1)
    assert top["tuning_objective_after"].item() < top["tuning_objective_before"].item()
    assert top["explained_variance_tuned"].item() > top["explained_variance"].item()
