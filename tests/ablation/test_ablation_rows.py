"""What rows say: nothing changed where nothing was taken out, caps, drawn documents, nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from assets.ablation import ablated_batch
from assets.ablation.concept_documents import detected_concepts
from assets.ablation.plan import permuted_direction
from assets.ablation.tables import ABLATION_EFFECTS, ABLATION_RUNS
from assets.ablation.targets import choose_targets
from assets.activations.sites import ActivationSite
from assets.corpus.halves import split_in_halves
from assets.detection.config import DetectionConfig
from assets.detection.corpus_concepts import corpus_concept_rows
from assets.faithfulness.fit import Fit
from assets.faithfulness.replaced_forward import TokenLosses
from tests.ablation.planted import CONFIG, ablate, fit_at
from tests.activations.tiny_models import tiny_model
from tests.faithfulness.changing_sample import counted_forwards

SITE = ActivationSite(1)
PARTITION = {"site": "s:m@L1.mlp_hidden", "fit": "snmf-k004"}


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def test_a_zero_feature_changes_nothing_and_is_not_run() -> None:
    model = tiny_model("llama")
    fit = fit_at(model, SITE)
    fit.dictionary[0] = 0
    with counted_forwards(model) as forwards:
        measured = ablate(model, SITE, fit, [10])
    assert forwards.n_tokens == measured.spent.forward_tokens == 0
    effects = measured.effects.filter(feature_id=10)
    assert set(effects["status"]) == {"ok"} and (effects["n_tokens_on"] > 0).all()
    for name in ("delta_on", "kl_on", "promoted_drop", "direct_effect", "total_effect"):
        assert effects[name].to_list() == [0.0] * 4, name
    assert effects["self_repair"].null_count() == 4


def test_zero_ablation_changes_nothing_in_a_document_without_the_feature() -> None:
    model = tiny_model("llama")
    config = CONFIG.model_copy(update={"n_documents_off": 9})
    measured = ablate(model, SITE, fit_at(model, SITE), [20], config=config)
    runs = measured.runs.filter(document_id="c", is_null=False, is_off=True, is_on=False)
    kl = dict(runs.select("ablation", "kl").iter_rows())
    assert kl["zero"] == 0.0 and kl["mean"] > 1e-4
    set_to = dict(measured.effects.filter(feature_id=20).select("ablation", "set_to").iter_rows())
    assert set_to["zero"] == 0.0 < set_to["mean"]


def test_hooks_are_gone_after_a_run_and_after_an_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model("gpt2")
    fit = fit_at(model, SITE)
    ablate(model, SITE, fit)
    assert hooks_of(model) == 0

    losses = ablated_batch.DocumentBatch.losses

    def fails(*arguments: Any) -> TokenLosses:
        if hooks_of(model) > 0:
            raise RuntimeError("out of memory")
        return losses(*arguments)

    monkeypatch.setattr(ablated_batch.DocumentBatch, "losses", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        ablate(model, SITE, fit)
    assert hooks_of(model) == 0


def test_features_beyond_the_cap_and_silent_ones_say_so() -> None:
    model = tiny_model("llama")
    measured = ablate(model, SITE, fit_at(model, SITE), [20], beyond="why")
    statuses = dict(measured.effects.select("feature_id", "status").unique().iter_rows())
    assert statuses == {10: "not_measured", 20: "ok", 30: "not_measured", 40: "inactive"}
    assert len(measured.effects) == 4 * 2 * 2
    reasons = dict(measured.effects.select("feature_id", "reason").iter_rows())
    assert reasons[10] == "why" and "strong_share=0.5" in reasons[40]
    none = ablate(model, SITE, fit_at(model, SITE), [], beyond="none wanted")
    assert none.effects["reason"].str.contains("none wanted").any()
    assert none.runs.is_empty() and set(none.effects["status"]) == {"not_measured", "inactive"}
    ABLATION_RUNS.conform(measured.runs, PARTITION)
    ABLATION_EFFECTS.conform(measured.effects, PARTITION)


def test_a_feature_without_a_vocabulary_projection_has_no_drop_but_a_reason() -> None:
    model = tiny_model("llama")
    effects = ablate(model, SITE, fit_at(model, SITE), [10], promoted={}).effects
    ok = effects.filter(status="ok")
    assert ok["promoted_drop"].null_count() == len(ok) == 4
    assert ok["reason"].str.contains("no promoted_drop").all()


def test_the_null_has_the_features_weights_and_norm_on_other_neurons() -> None:
    direction = torch.randn(40)
    null = permuted_direction(direction, 7, seed=0)
    assert null.sort().values.equal(direction.sort().values) and not null.equal(direction)
    assert null.equal(permuted_direction(direction, 7, seed=0))
    assert not null.equal(permuted_direction(direction, 8, seed=0))
    assert not null.equal(permuted_direction(direction, 7, seed=1))


def test_a_rerun_takes_over_what_is_the_same() -> None:
    model = tiny_model("llama")
    fit = fit_at(model, SITE)
    first = ablate(model, SITE, fit, [10, 20])
    previous = ABLATION_RUNS.conform(first.runs, PARTITION)
    with counted_forwards(model) as forwards:
        again = ablate(model, SITE, fit, [10, 20], previous=previous)
    assert forwards.n_tokens == again.spent.forward_tokens == 0 == again.rows_computed
    assert again.runs.equals(first.runs) and again.effects.equals(first.effects)
    more = ablate(model, SITE, fit, [10, 20, 30], previous=previous)
    assert more.rows_reused == len(first.runs)
    assert set(more.runs.join(first.runs, on="row_fingerprint", how="anti")["feature_id"]) == {30}

    dictionary = fit.dictionary.clone()
    dictionary[0] *= 2
    other = Fit(fit.feature_ids, dictionary, fit.coefficients, None, fit.mean_row)
    moved = ablate(model, SITE, other, [10, 20], previous=previous)
    assert moved.rows_computed == len(first.runs.filter(feature_id=10))
    scratch = ablate(model, SITE, other, [10, 20])
    for name in ("delta_on", "direct_effect", "selectivity"):
        together, alone = moved.effects[name].to_list(), scratch.effects[name].to_list()
        assert together == pytest.approx(alone, abs=1e-5)
    assert ablate(model, SITE, fit, [10], previous=previous, made_with=("v2",)).rows_reused == 0


def corpus(n_documents: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents of four tokens; features 1 and 2 fire at the second token of every third one,
    feature 2 everywhere else at a tenth; the first token of each is massive and very strong."""
    rows = [
        {"row": 4 * d + p, "document_id": f"d{d:03}", "position": p, "is_massive": p == 0}
        for d in range(n_documents)
        for p in range(4)
    ]
    strengths = [
        {"row": 4 * d + p, "feature_id": feature, "coefficient": value}
        for d in range(n_documents)
        for feature in (1, 2)
        for p, value in ((0, 500.0), (1, 2.0 if d % 3 == 0 else 0.2 if feature == 2 else 0.0))
    ]
    schema = {"row": pl.Int64, "feature_id": pl.Int32, "coefficient": pl.Float32}
    return pl.DataFrame(strengths, schema=schema), pl.DataFrame(rows)


def test_documents_are_drawn_where_the_feature_is_strong_and_among_all() -> None:
    coefficients, tokens = corpus(60)
    config = CONFIG.model_copy(update={"n_documents_on": 5, "n_documents_off": 20})
    targets = choose_targets(coefficients, tokens, [1, 2, 3], config)
    for feature_id in (1, 2):
        one = targets[feature_id]
        assert one.largest == 2.0, "massive tokens are left out"
        assert len(set(one.on)) == 5 and all(int(i[1:]) % 3 == 0 for i in one.on)
        assert len(set(one.off)) == 20, "one that fires everywhere has them too"
        assert len({int(i[1:]) % 3 == 0 for i in one.off}) == 2, "whether it fires there or not"
    assert targets[1].on != targets[2].on, "each feature has a draw of its own"
    assert targets[1].off == targets[2].off, "documents off target are shared"
    assert targets[1].mean == pytest.approx(20 * 2 / 180, rel=0.05)
    assert targets[3].on == () and targets[3].largest == 0


def concepts_of(n_documents: int) -> pl.DataFrame:
    """A third of the documents is of one concept, and of the others every tenth of none."""
    concepts = [
        "third" if d % 3 == 0 else None if d % 10 == 1 else "even" if d % 2 == 0 else "odd"
        for d in range(n_documents)
    ]
    ids = [f"d{d:03}" for d in range(n_documents)]
    return pl.DataFrame({"document_id": ids, "minhash": ids, "concept": concepts})


def choosing(documents: pl.DataFrame, seed: int = 0) -> set[str]:
    """The documents that choose concepts, and so measure nothing."""
    ids, concepts = (documents[name].to_list() for name in ("document_id", "concept"))
    halves = split_in_halves(ids, concepts, seed)
    return {i for i, is_first in zip(ids, halves, strict=True) if is_first}


def test_documents_of_the_concept_and_of_others_are_of_the_half_that_did_not_choose_it() -> None:
    coefficients, tokens = corpus(60)
    documents = concepts_of(60)
    named = dict(documents.select("document_id", "concept").iter_rows())
    chooses = choosing(documents)
    config = CONFIG.model_copy(update={"n_documents_concept": 4, "n_documents_other": 6})
    background = DetectionConfig(documents_without_concept="negatives")
    for detection in (DetectionConfig(), background):
        targets = choose_targets(
            coefficients, tokens, [1, 2, 3], config, documents, {1: "third", 2: "odd"}, detection
        )
        for feature_id, concept in ((1, "third"), (2, "odd")):
            one = targets[feature_id]
            assert len(set(one.of_concept)) == 4 and len(set(one.of_others)) == 6
            assert all(named[i] == concept and i not in chooses for i in one.of_concept)
            assert all(named[i] != concept and i not in chooses for i in one.of_others)
            assert set(one.documents) == {*one.on, *one.off, *one.of_concept, *one.of_others}
            assert len(one.documents) == len(set(one.documents))
        assert targets[3].documents == ()
        every = config.model_copy(update={"n_documents_other": 60})
        (one,) = choose_targets(
            coefficients, tokens, [1], every, documents, {1: "third"}, detection
        ).values()
        # Of unknown concept: one of the others only where it is known to be none.
        assert (None in {named[i] for i in one.of_others}) == (detection is background)
    as_many = config.model_copy(update={"n_documents_other": None})
    one = choose_targets(coefficients, tokens, [1], as_many, documents, {1: "third"})[1]
    assert len(one.of_others) == 4
    nameless = choose_targets(coefficients, tokens, [1], config, documents, {})[1]
    assert nameless.of_concept == () == nameless.of_others


def test_the_halves_are_detections_of_all_documents_not_of_the_usable_ones() -> None:
    coefficients, tokens = corpus(60)
    documents = concepts_of(60)
    config = CONFIG.model_copy(update={"n_documents_concept": 60, "seed": 5})
    # Every fourth document has massive tokens only.
    lost = {f"d{d:03}" for d in range(0, 60, 4)}
    tokens = tokens.with_columns(pl.col("is_massive") | pl.col("document_id").is_in(list(lost)))
    thirds = set(documents.filter(concept="third")["document_id"])
    named = set(documents.drop_nulls()["document_id"])
    drawn = []
    for seed in (0, 1):
        detection = DetectionConfig(seed=seed)
        one = choose_targets(coefficients, tokens, [1], config, documents, {1: "third"}, detection)[
            1
        ]
        unused = choosing(documents, seed) | lost
        assert set(one.of_concept) == thirds - unused
        assert set(one.of_others) == named - thirds - unused
        drawn.append(set(one.of_concept))
    assert drawn[0] != drawn[1]


def test_one_document_more_puts_out_one_at_most() -> None:
    config = CONFIG.model_copy(update={"n_documents_on": 5, "n_documents_off": 6})
    before = choose_targets(*corpus(60), [1, 2], config)
    n_moved = 0
    for n in (61, 62):
        after = choose_targets(*corpus(n), [1, 2], config)
        for feature_id in (1, 2):
            assert len(set(before[feature_id].on) - set(after[feature_id].on)) <= 1
            n_moved += len(set(before[feature_id].off) - set(after[feature_id].off))
    assert n_moved <= 4
    means = [choose_targets(*corpus(n), [1], config)[1].mean for n in (600, 601)]
    assert means == [0.22, 0.22], "to two digits"


def test_the_concept_is_detections_whether_or_not_it_is_ablated_there() -> None:
    generator = np.random.default_rng(0)
    documents = concepts_of(60)
    columns = [documents[name].to_list() for name in ("minhash", "concept")]
    scores = generator.normal(size=(60, 8))
    scores[:, 7] = np.nan
    found = []
    for unnamed in ("left_out", "negatives"):
        detection = DetectionConfig(seed=3, documents_without_concept=unnamed)
        rows = corpus_concept_rows(scores, *columns, detection, feature_ids=range(10, 18))
        found.append(detected_concepts(scores, documents, range(10, 18), detection))
        assert found[-1] == dict(rows.drop_nulls("concept").select("feature_id", "concept").rows())
        assert set(found[-1]) == set(range(10, 17)), "a feature without a cosine has none"
    model = tiny_model("llama")
    effects = ablate(
        model, SITE, fit_at(model, SITE), [10, 40], concept_of={10: "a", 30: "b", 40: "c"}
    ).effects
    named = dict(effects.select("feature_id", "concept").iter_rows())
    assert named == {10: "a", 20: None, 30: "b", 40: "c"}
