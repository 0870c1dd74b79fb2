"""The number of judge calls said beforehand is the number of requests that are made."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import polars as pl
import pytest

from assets.shared.call_count import UsualLabels
from assets.steering.call_counts import TEXTS_TO_JUDGE, judge_call_counts
from assets.steering.config import SteeringConfig
from assets.steering.judged_labels import JUDGED_KINDS, ConceptLabel
from assets.steering.judging import build_requests


@pytest.mark.parametrize("n_features", [0, 1, 5])
@pytest.mark.parametrize("signs", ["+-", "-"])
@pytest.mark.parametrize("judged", [("input",), ("output",), ("input", "output")])
def test_as_many_calls_are_counted_as_are_made(
    n_features: int, signs: str, judged: tuple[Literal["input", "output"], ...]
) -> None:
    config = SteeringConfig.model_validate(
        {
            "target_kl_nats": [0.1, 0.5, 1.0],
            "n_texts": 4,
            "signs": list(signs),
            "judged_labels": judged,
        }
    )
    texts = steered_texts(range(n_features), config)
    labels = {
        (i, kind): ConceptLabel(f"{kind} {i}", kind)
        for i in range(n_features)
        for kind in JUDGED_KINDS
    }
    # Without a feature there is not even a column of texts.
    made = build_requests(texts, labels, config.judge, judged) if n_features else []
    counts = judge_call_counts(n_features, config)
    most = Counter({name: count.most for name, count in counts.items()})
    assert Counter(request.prompt_name for request in made) == most
    assert all(0 <= count.usual <= count.most for count in counts.values())


def test_what_other_fits_ask_as_well_is_about_base_texts() -> None:
    config = SteeringConfig(target_kl_nats=(0.1, 0.5), n_texts=4)
    labels = {(i, "input"): ConceptLabel(f"label {i % 2}", "input") for i in range(4)}
    # The second fit was given the same two labels, and its steered texts are others.
    one, other = (
        {
            (request.prompt_name, str(request.messages))
            for request in build_requests(
                steered_texts(features, config), labels, config.judge, ("input",)
            )
        }
        for features in ([0, 1], [2, 3])
    )
    counts = judge_call_counts(2, config, labels=UsualLabels(as_other_fits=1.0))
    alike = Counter(name for name, _ in one & other)
    assert alike and alike == {
        name: count.as_other_fits / TEXTS_TO_JUDGE for name, count in counts.items()
    }
    unlike = judge_call_counts(2, config)
    assert [count.as_other_fits > 0 for count in unlike.values()] == [False, True]


def steered_texts(features: Iterable[int], config: SteeringConfig) -> pl.DataFrame:
    cases = [("0", 0.0), *((s, kl) for s in config.signs for kl in config.target_kl_nats)]
    return pl.DataFrame(
        [
            {
                "feature_id": feature_id,
                "sign": sign,
                "target_kl_nats": kl,
                "text_index": index,
                "prompt": "I think that",
                # A base text is the same for every feature.
                "text": f" text {index}" + (f" {feature_id} {sign} {kl}" if kl else ""),
                "status": "ok",
                "reason": None,
            }
            for feature_id in features
            for sign, kl in cases
            for index in range(config.n_texts)
        ]
    )
