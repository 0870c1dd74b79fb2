"""The number of judge calls said beforehand is the number of requests that are made."""

from collections import Counter

import polars as pl
import pytest

from assets.steering.call_counts import judge_call_counts
from assets.steering.config import SteeringConfig
from assets.steering.judging import ConceptLabel, build_requests


@pytest.mark.parametrize("n_features", [0, 1, 5])
def test_as_many_calls_are_counted_as_are_made(n_features: int) -> None:
    config = SteeringConfig(target_kl_nats=(0.1, 0.5, 1.0), n_texts=4)
    cases = [("0", 0.0), *((s, kl) for s in config.signs for kl in config.target_kl_nats)]
    texts = pl.DataFrame(
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
            }
            for feature_id in range(n_features)
            for sign, kl in cases
            for index in range(config.n_texts)
        ]
    )
    labels = {i: ConceptLabel(f"label {i}", "input") for i in range(n_features)}
    made = build_requests(texts, labels, config.judge)
    counts = judge_call_counts(n_features, config)
    most = Counter({name: count.most for name, count in counts.items()})
    assert Counter(request.prompt_name for request in made) == most
    assert all(0 <= count.usual <= count.most for count in counts.values())
