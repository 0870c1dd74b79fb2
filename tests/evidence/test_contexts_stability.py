"""A document more or less changes the evidence of few features, and only where it must."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from assets.evidence.config import EvidenceConfig
from assets.evidence.contexts import build_contexts
from tests.evidence.changing_corpus import IDS, N_FEATURES, corpus, firing

CONFIG = EvidenceConfig(n_top=8, n_sampled=4, n_held_out=6, n_negative=6, window=4)
# What is shown or asked; `row` is the place in the corpus, which moves.
SHOWN = ("kind", "rank_in_kind", "document_id", "position", "coefficient", "marked_text")
LEFT_OUT = IDS[7:500:33]


def evidence(documents: list[str]) -> dict[int, pl.DataFrame]:
    contexts = build_contexts(*corpus(documents), CONFIG)
    parts = contexts.partition_by("feature_id", as_dict=True)
    return {int(key[0]): part.select(SHOWN) for key, part in parts.items()}


def changed(before: dict[int, pl.DataFrame], after: dict[int, pl.DataFrame]) -> set[int]:
    return {f for f in range(N_FEATURES) if not before[f].equals(after[f])}


WHOLE = evidence(IDS)


def test_a_new_document_changes_few_features_that_do_not_fire_in_it() -> None:
    silent, fired = [], []
    for document in LEFT_OUT:
        before = evidence([other for other in IDS if other != document])
        moved = changed(before, WHOLE)
        fires = firing(document, CONFIG.firing_share)
        silent += [feature in moved for feature in range(N_FEATURES) if feature not in fires]
        fired += [feature in moved for feature in fires]
    assert len(silent) > 400 and len(fired) > 50
    assert np.mean(silent) <= 0.05
    assert np.mean(fired) < 0.5


def test_a_feature_whose_evidence_changed_keeps_nearly_all_of_its_contexts() -> None:
    kept = []
    for document in LEFT_OUT:
        before = evidence([other for other in IDS if other != document])
        for feature in changed(before, WHOLE):
            sets = [set(e[feature].select("kind", "document_id").rows()) for e in (before, WHOLE)]
            kept.append(len(sets[0] & sets[1]) / len(sets[1]))
    assert np.mean(kept) > 0.85


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_the_order_of_the_corpus_changes_nothing(order: str) -> None:
    moved = IDS[::-1] if order == "reversed" else np.random.default_rng(0).permutation(IDS).tolist()
    assert not changed(evidence(moved), WHOLE)


def test_an_edited_document_changes_what_a_removed_and_an_added_one_do() -> None:
    without = [other for other in IDS if other != IDS[40]]
    edited = evidence([*without, "0badf00d"])
    moved = changed(edited, WHOLE)
    assert moved <= changed(evidence(without), WHOLE) | changed(evidence(without), edited)
    assert len(moved) < N_FEATURES / 3


def test_a_document_gone_and_back_leaves_no_trace() -> None:
    assert not changed(evidence([*IDS[1:], IDS[0]]), WHOLE)


def test_another_seed_is_the_control_and_changes_every_feature() -> None:
    other = build_contexts(*corpus(IDS), CONFIG.model_copy(update={"seed": 1}))
    parts = other.partition_by("feature_id", as_dict=True)
    seeded = {int(key[0]): part.select(SHOWN) for key, part in parts.items()}
    assert len(changed(seeded, WHOLE)) == N_FEATURES
