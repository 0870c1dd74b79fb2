"""Neuron overlap against loops over pairs and sets."""

from __future__ import annotations

import itertools

import pytest
import torch

from assets.hierarchy.neuron_overlap import neuron_overlap_frame
from assets.hierarchy.tables import NEURON_OVERLAP

PARTITION = {"site": "demo:model@L1.mlp_hidden", "fit": "snmf-k010"}


@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_overlap_is_that_of_the_sets_of_neurons(density):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(10, 40, generator=generator)
    rows = rows * (torch.rand(10, 40, generator=generator) <= density)
    frame = NEURON_OVERLAP.conform(neuron_overlap_frame(rows), PARTITION)
    found = {
        (row["feature_id"], row["other_feature_id"]): row for row in frame.iter_rows(named=True)
    }
    n_pairs = 0
    for i, j in itertools.combinations(range(10), 2):
        left, right = (set(rows[f].nonzero().flatten().tolist()) for f in (i, j))
        if not left & right:
            assert (i, j) not in found
            continue
        n_pairs += 1
        row = found[i, j]
        assert row["n_shared"] == len(left & right)
        assert row["jaccard"] == pytest.approx(len(left & right) / len(left | right))
        cosine = torch.nn.functional.cosine_similarity(rows[i], rows[j], dim=0)
        assert row["cosine"] == pytest.approx(float(cosine), abs=1e-6)
    assert len(found) == n_pairs > 0


def test_shared_neurons_of_cosine_zero_are_still_shared():
    frame = neuron_overlap_frame(torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]]))
    assert frame.rows() == [(0, 1, 2, 1.0, 0.0)]


def test_nothing_shared_gives_no_rows():
    frame = NEURON_OVERLAP.conform(neuron_overlap_frame(torch.eye(4)), PARTITION)
    assert frame.is_empty()
    assert neuron_overlap_frame(torch.zeros(3, 5)).is_empty()
