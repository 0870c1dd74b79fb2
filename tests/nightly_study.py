"""A study of one fit whose LLM answers at once, and what its nights left in the ledger."""

from pathlib import Path
from typing import Any

import polars as pl
from mini_study import MINI_STUDY, write_study
from platform_of_test import Platform

from assets.shared.content_hash import data_version
from orchestration.recipes import OF_FIT, OF_SITE, OF_SITE_FITS, OF_STUDY
from resources.ledger import Ledger

# 11 LLM calls: 3 for labels, 2 for detection, 6 for steering.
NIGHTLY_STUDY: dict[str, Any] = {
    "corpus": {
        "path": "bundled:concepts",
        "concepts": ["Monday", "SQL"],
        "max_documents_per_concept": 8,
    },
    "fits": [{"method": "pca", "rank": 4}],
    "labels": {
        "max_features": 1,
        "n_held_out": 1,
        "kinds": ["input"],
        "score_methods": ["detection"],
        "score_negatives": ["random"],
    },
    "hierarchy": {"n_null_draws": 1, "n_starts": 1},
    "faithfulness": {**MINI_STUDY["faithfulness"], "max_features": 1, "n_documents": 4},
    "detection": {"n_activating": 2, "n_neutral": 2},
    "steering": {**MINI_STUDY["steering"], "max_features": 1},
    "llm": {
        "model": "some-model",
        "max_retries": 0,
        "concurrency": 1,
        # The test endpoint counts 11 tokens of a prompt and 3 of an answer: 1 USD a call.
        "usd_per_million_prompt_tokens": 50_000.0,
        "usd_per_million_completion_tokens": 150_000.0,
    },
}
CALLS = 11
ASSETS = sum(map(len, (OF_STUDY, OF_SITE, OF_FIT, OF_SITE_FITS)))


def write_nightly_study(
    folder: Path, *, budget: dict[str, float] | None = None, **changes: Any
) -> None:
    """The study `mini`, with a budget of its nights."""
    write_study(folder, **NIGHTLY_STUDY | changes, nightly={"budget": budget or {}})


def night(platform: Platform) -> pl.DataFrame:
    """One nightly run, which must succeed; its ledger rows in order."""
    before = decisions(platform).height
    result = platform.materialize(within_budget=True)
    assert result.success, [event.message for event in result.all_events if event.is_failure]
    return decisions(platform).slice(before)


def decisions(platform: Platform) -> pl.DataFrame:
    """The ledger, oldest row first."""
    Ledger(platform.lake)
    return platform.lake.query("SELECT * FROM run_ledger ORDER BY considered_at, asset")


def contents(platform: Platform) -> dict[tuple[str, str, str], str]:
    """The data version of every table of every partition."""
    return {
        (asset, partition, table): data_version(versions)
        for (asset, partition), entry in Ledger(platform.lake).states().items()
        for table, versions in (entry.versions or {}).items()
    }
