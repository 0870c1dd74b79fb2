"""Foils and shuffled labels: other features', never one's own, stable under change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assets.labels.other_labels import draw_foils, shuffled_labels
from assets.labels.score_prompts import SPARE_FOILS

LABELS = {feature: f"topic {feature}" for feature in range(30)}


@given(
    labels=st.dictionaries(st.integers(0, 50), st.sampled_from("abcdefgh"), max_size=30),
    n=st.integers(0, 40),
    seed=st.integers(0, 5),
)
def test_shuffled_labels_are_of_other_features_and_say_something_else(
    labels: dict[int, str], n: int, seed: int
) -> None:
    given_labels = shuffled_labels(labels, n, seed=seed)
    assert len(given_labels) <= min(n, len(labels) // 2)
    for feature_id, label in given_labels.items():
        assert label in labels.values() and label != labels[feature_id]
    if len(set(labels.values())) > 1:
        assert len(given_labels) == min(n, len(labels) // 2)


def test_shuffling_is_a_part_of_a_derangement_drawn_by_the_seed() -> None:
    draws = [shuffled_labels(LABELS, 15, seed=seed) for seed in range(3)]
    assert all(len(draw) == len(set(draw.values())) == 15 for draw in draws)
    assert draws[0] == shuffled_labels(dict(reversed(LABELS.items())), 15, seed=0)
    assert draws[0] != draws[1] != draws[2]


def test_a_feature_that_loses_its_label_moves_few_shuffled_ones() -> None:
    before = shuffled_labels(LABELS, 10, seed=0)
    for lost in LABELS:
        after = shuffled_labels({i: x for i, x in LABELS.items() if i != lost}, 10, seed=0)
        assert len(before.items() - after.items()) <= 2


def test_a_label_that_failed_changes_no_other_draw() -> None:
    whole = shuffled_labels(LABELS, 15, seed=0)
    for failed in LABELS:
        labels = {i: None if i == failed else x for i, x in LABELS.items()}
        drawn = shuffled_labels(labels, 15, seed=0)
        assert drawn.items() <= whole.items() and len(whole) - len(drawn) <= 2
        for feature_id in set(LABELS) - {failed}:
            avoid = [LABELS[feature_id]]
            before = draw_foils(LABELS, 3, avoid=avoid, salt=(0, feature_id))
            after = draw_foils(labels, 3, avoid=avoid, salt=(0, feature_id))
            assert after == [None if foil == LABELS[failed] else foil for foil in before]


def test_foils_avoid_what_they_must_and_fall_back_to_spare_ones() -> None:
    foils = draw_foils(LABELS, 20, avoid=["TOPIC 3", "topic 4"], salt=(0, 3, 1))
    assert len(set(foils)) == 20 and not {"topic 3", "topic 4"} & set(foils)
    assert draw_foils({1: "Weather"}, 3, avoid=["weather"], salt=(0,)) == draw_foils(
        {}, 3, avoid=["weather"], salt=(0,)
    )
    assert set(draw_foils({}, 99, avoid=[], salt=(0,))) == set(SPARE_FOILS)
