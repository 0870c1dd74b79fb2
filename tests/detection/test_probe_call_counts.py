"""The number of calls said beforehand is the number of requests that are made."""

import pytest

from assets.detection.call_counts import probe_call_counts
from assets.detection.config import DetectionConfig
from assets.detection.probe_sentences import probe_requests


@pytest.mark.parametrize(("n_features", "n_activating"), [(0, 5), (1, 1), (7, 3)])
def test_as_many_calls_are_counted_as_are_made(n_features: int, n_activating: int) -> None:
    config = DetectionConfig(n_activating=n_activating)
    tasks = probe_requests({i: f"label {i}" for i in range(n_features)}, config)
    counts = probe_call_counts(n_features, config)
    assert sum(count.most for count in counts.values()) == len(tasks)
    assert all(0 <= count.usual <= count.most for count in counts.values())
    assert {task.request.prompt_name for task in tasks} <= set(counts)
