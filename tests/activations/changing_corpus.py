"""A corpus of numbered documents for tests of capture, and what two captures have in common."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from assets.activations import capture
from assets.activations.capture import CaptureResult, CaptureSettings
from assets.activations.shards import ActivationReader, shard_frame
from assets.activations.sites import ActivationSite
from assets.activations.tokenization import TokenizedDocument

FIRST, SECOND = SITES = (ActivationSite(0), ActivationSite(2, "resid_post"))


def documents_run(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Token ids of the documents that go through the model, in order; clear it between captures."""
    seen: list[tuple[int, ...]] = []
    forward = capture.forward_documents

    def noting(model, documents, *rest):
        seen.extend(document.token_ids for document in documents)
        return forward(model, documents, *rest)

    monkeypatch.setattr(capture, "forward_documents", noting)
    return seen


def content(number: int) -> tuple[int, ...]:
    """1 to 20 tokens of the document's own behind a BOS, different for each number."""
    drawn = random.Random(number)
    return (1, 4 + number % 60, 4 + number // 60, *drawn.choices(range(4, 64), k=number % 19))


def corpus(numbers: Sequence[int]) -> list[TokenizedDocument]:
    return [TokenizedDocument(f"d{i}", content(n), 1) for i, n in enumerate(numbers)]


def settings(folder: Path, **changes: object) -> CaptureSettings:
    return CaptureSettings(
        **{"folder": folder, "model_revision": "r1", "batch_tokens": 64, "shard_tokens": 60}
        | changes
    )


def stored(result: CaptureResult, site: ActivationSite, folder: Path) -> torch.Tensor:
    return ActivationReader(result.shards[site.key], folder).load()


def assert_same_capture(
    found: CaptureResult, folder: Path, expected: CaptureResult, scratch: Path
) -> None:
    assert found.n_rows == expected.n_rows
    assert found.shards.keys() == expected.shards.keys()
    for key in expected.shards:
        columns = shard_frame(expected.shards[key]).drop("sha256")
        assert shard_frame(found.shards[key]).drop("sha256").equals(columns)
        torch.testing.assert_close(  # float16 rounds to 2^-11
            stored(found, ActivationSite.parse(key), folder),
            stored(expected, ActivationSite.parse(key), scratch),
            atol=1e-5,
            rtol=1e-3,
        )
