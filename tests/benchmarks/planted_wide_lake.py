"""What the stages would have written for many fits, a few arbitrary rows each, written at once."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from planted_lineage import rows

from assets.detection.prompts import ACTIVATING_SENTENCE
from assets.evidence.tables import CONTEXTS, VOCAB_PROJECTION
from assets.factorization.tables import COEFFICIENTS, FACTORIZATIONS
from assets.labels.prompts import CONTEXTS_COMBINED, CONTEXTS_INPUT, CONTEXTS_OUTPUT
from assets.labels.score_prompts import LABEL_FITS_MARKS, LABEL_FITS_TEXT
from assets.labels.tables import LABELS, LLM_CALLS
from assets.shared.schema import Table
from assets.steering.prompts import CONCEPT_PROMPT, FLUENCY_PROMPT
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.study import FitSpec

LABEL_PROMPTS = (CONTEXTS_INPUT, CONTEXTS_OUTPUT, CONTEXTS_COMBINED)
SCORE_PROMPTS = (LABEL_FITS_MARKS, LABEL_FITS_TEXT)
ASKED = {
    "labels": [(prompt.name, prompt.version) for prompt in (*LABEL_PROMPTS, *SCORE_PROMPTS)],
    "detection": [(ACTIVATING_SENTENCE.name, ACTIVATING_SENTENCE.version)],
    "steering": [
        (prompt.name, prompt.version("graded")) for prompt in (CONCEPT_PROMPT, FLUENCY_PROMPT)
    ],
}


def plant_rows(lake: Lake, specs: Sequence[FitSpec], *, n_features: int, llm_model: str) -> None:
    """Every table that an estimate of LLM calls reads, for each of `specs`, a file a partition.

    A call of each prompt and feature; all of them answered.
    """
    partitions = pl.DataFrame(
        [one.partition for one in specs], schema={"site": pl.String, "fit": pl.String}
    )
    frames = {table: _everywhere(table, some, partitions) for table, some in _rows(n_features)}
    calls = [
        _everywhere(LLM_CALLS, _calls(stage, n_features, llm_model), partitions) for stage in ASKED
    ]
    frames[LLM_CALLS] = pl.concat(calls).with_columns(
        request_hash=pl.concat_str("site", "fit", "request_hash").hash().cast(pl.String)
    )
    for table, frame in frames.items():
        lake.append({table: frame}, Commit(table.name, "planted", "run-1"))


def n_rows(n_features: int) -> dict[str, int]:
    """Rows that `plant_rows` leaves in every partition, by table."""
    return {table.name: len(some) for table, some in _rows(n_features)}


def _rows(n_features: int) -> list[tuple[Table, pl.DataFrame]]:
    features = range(n_features)
    texts = ("It was Monday.", "On Monday we left.", "Till Monday then.")
    contexts = [
        {
            **{"feature_id": i, "kind": "top", "rank_in_kind": rank, "row": rank},
            **{"peak_token": "Monday", "text": text},
            "marked_text": text.replace("Monday", "«Monday»"),
        }
        for i in features
        for rank, text in enumerate(texts)
    ]
    tokens = [
        {"feature_id": i, "sign": sign, "rank_in_sign": rank, "token": f" word{rank}"}
        for i in features
        for sign in "+-"
        for rank in range(5)
    ]
    labels = [
        {"feature_id": i, "kind": kind, "label": f"days {i}", "status": "ok", "reason": None}
        for i in features
        for kind in ("input", "output", "combined", "token_summary")
    ]
    coefficients = [
        {"row": row, "feature_id": i, "coefficient": 1.0 + i} for i in features for row in range(20)
    ]
    given: dict[Table, list[dict[str, Any]]] = {
        FACTORIZATIONS: [{"method": "snmf", "rank": n_features, "status": "ok"}],
        COEFFICIENTS: coefficients,
        CONTEXTS: contexts,
        VOCAB_PROJECTION: tokens,
        LABELS: labels,
    }
    return [(table, rows(table, *some)) for table, some in given.items()]


def _calls(stage: str, n_features: int, llm_model: str) -> pl.DataFrame:
    messages = [{"role": "system", "content": "Name it."}, {"role": "user", "content": "Monday?"}]
    given: list[Mapping[str, Any]] = [
        {
            **{"call_index": number, "request_hash": f"{stage} {number}"},
            **{"prompt_name": name, "prompt_version": version, "prompt": json.dumps(messages)},
            **{
                "llm_model": llm_model,
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "status": "ok",
            },
        }
        for number, (name, version) in enumerate(ASKED[stage] * n_features)
    ]
    return rows(LLM_CALLS, *given).with_columns(stage=pl.lit(stage))


def _everywhere(table: Table, some: pl.DataFrame, partitions: pl.DataFrame) -> pl.DataFrame:
    return some.join(partitions, how="cross").select(table.column_names)
