"""A small lake whose feature 3 was labelled from two sentences, judged, and kept over a refit."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from any_rows import any_rows

from assets.activations.tables import ACTIVATION_SHARDS
from assets.catalogue.tables import FEATURES
from assets.corpus.tables import DOCUMENTS
from assets.detection.tables import CONCEPT_DETECTION, PROBE_SENTENCES
from assets.evidence.tables import CONTEXTS, VOCAB_PROJECTION
from assets.factorization.comparison_tables import FEATURE_MATCHES
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS
from assets.faithfulness.tables import FEATURE_FAITHFULNESS
from assets.labels.tables import LABEL_SCORES, LABELS, LLM_CALLS
from assets.ledger.tables import RUN_LEDGER
from assets.shared.content_hash import column_versions
from assets.shared.schema import Table
from assets.steering.feature_tables import STEERING_SUMMARIES
from assets.steering.tables import CALIBRATIONS, STEERED_TEXTS, STEERING_SCORES
from orchestration.data_dictionary import all_tables
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.ledger import Entry, ledger_frame

SITE = "mini:tiny@L1.mlp_hidden"
FIT = "snmf-k004"
FEATURE = 3
PARTITIONS = {
    "study": {"study": "mini"},
    "site": {"site": SITE},
    "fit": {"site": SITE, "fit": FIT},
}
SETTING = {"sign": "+", "target_kl_nats": 0.5}


def rows(table: Table, *given: Mapping[str, Any]) -> pl.DataFrame:
    """One row for each of `given`; what it leaves out is arbitrary."""
    some = any_rows(table, max(len(given), 1), 0).head(len(given))
    schema = {column.name: column.polars_type for column in table.columns}
    if not given:
        return some
    made = some if len(some) == len(given) else pl.concat([some[:1]] * len(given))
    return made.with_columns(
        pl.Series(name, [row[name] for row in given], dtype=schema[name]) for name in given[0]
    )


class PlantedLake:
    """Writes what each stage would have written, with ledger entries unless told otherwise."""

    def __init__(self, root: Path, *, has_ledger: bool = True) -> None:
        self.lake = Lake(root)
        self.has_ledger = has_ledger
        self.snapshots: dict[str, int] = {}

    def write(
        self,
        asset: str,
        kind: str,
        frames: Mapping[Table, pl.DataFrame],
        side_frames: Mapping[Table, pl.DataFrame] | None = None,
        *,
        parts: Mapping[str, str] | None = None,
        reason: str = "first time",
    ) -> int:
        partition = PARTITIONS[kind]
        key = " | ".join(partition.values())
        entry = Entry(
            study="mini",
            run_id=f"run of {asset}",
            asset=asset,
            partition=key,
            decision="computed",
            reason=reason,
            fingerprint=f"fingerprint of {asset}",
            parts={"code": f"code of {asset}", **(parts or {})},
            versions={table.name: column_versions(f, table) for table, f in frames.items()},
        )

        def told(snapshot: int) -> dict[Table, pl.DataFrame]:
            return {RUN_LEDGER: ledger_frame([replace(entry, data_snapshot=snapshot)])}

        if self.has_ledger:
            self.lake.ensure_tables([RUN_LEDGER])
        self.snapshots[asset] = self.lake.replace(
            {**frames, **(side_frames or {})},
            {**partition, "stage": asset},
            Commit(asset, key, f"run of {asset}", f"fingerprint of {asset}"),
            appended=told if self.has_ledger else None,
        )
        return self.snapshots[asset]

    def write_all(self) -> None:
        self.lake.ensure_tables(all_tables())
        self._corpus_and_activations()
        first = self.write("factorization", "fit", self.fit_frames("cold", None))
        self.write("factorization", "fit", self.fit_frames("warm", first), reason="tokens changed")
        self._evidence()
        self._labels()
        self._scores()
        self._catalogue()

    def _corpus_and_activations(self) -> None:
        texts = ("It was Monday.", "On Friday we left.")
        documents = [
            {
                "document_id": f"d{i}",
                "source": "days.jsonl",
                "source_row": i + 7,
                "text": text,
                "concept": "days",
                "status": "ok",
            }
            for i, text in enumerate(texts)
        ]
        parts = {"observed.corpus_files": "files-hash"}
        self.write("corpus", "study", {DOCUMENTS: rows(DOCUMENTS, *documents)}, parts=parts)
        shard = {"shard": 0, "path": "a.parquet", "sha256": "aa", "n_rows": 9, "first_row": 0}
        parts = {"model.revision": "rev-1", "settings.model.source": "tiny"}
        self.write(
            "activations", "site", {ACTIVATION_SHARDS: rows(ACTIVATION_SHARDS, shard)}, parts=parts
        )

    def fit_frames(self, start: str, origin: int | None) -> dict[Table, pl.DataFrame]:
        fit = {
            "method": "snmf",
            "status": "ok",
            "n_features": 2,
            "n_tokens": 9,
            "feature_ids": [FEATURE, 8],
            "start": start,
            "started_from_snapshot": origin,
        }
        weights = [
            {"feature_id": FEATURE, "neuron": 5, "weight": 0.6},
            {"feature_id": FEATURE, "neuron": 2, "weight": -0.8},
            {"feature_id": 8, "neuron": 1, "weight": 1.0},
        ]
        coefficients = [
            {"row": 0, "feature_id": FEATURE, "coefficient": 2.5},
            {"row": 4, "feature_id": FEATURE, "coefficient": 1.5},
        ]
        match = {
            "match": 0,
            "kind": "new" if origin is None else "kept",
            "feature_id": FEATURE,
            "previous_feature_id": None if origin is None else FEATURE,
            "cosine": None if origin is None else 0.987,
            "previous_snapshot": origin,
        }
        return {
            FACTORIZATIONS: rows(FACTORIZATIONS, fit),
            DICTIONARY: rows(DICTIONARY, *weights),
            COEFFICIENTS: rows(COEFFICIENTS, *coefficients),
            FEATURE_MATCHES: rows(FEATURE_MATCHES, match),
        }

    def _evidence(self) -> None:
        shown = (("top", 0, "d0"), ("top", 1, "gone"), ("held_out", 0, "d1"))
        contexts = [
            {
                "feature_id": FEATURE,
                "kind": kind,
                "rank_in_kind": rank,
                "document_id": document,
                "coefficient": 2.5 - rank,
                "peak_token": "Monday",
                "marked_text": f"{kind} {rank} «Monday»",
            }
            for kind, rank, document in shown
        ]
        self.write("contexts", "fit", {CONTEXTS: rows(CONTEXTS, *contexts)})
        promoted = {"feature_id": FEATURE, "sign": "+", "rank_in_sign": 0, "token": " days"}
        frame = rows(VOCAB_PROJECTION, promoted)
        self.write("vocab_projection", "fit", {VOCAB_PROJECTION: frame})

    def _labels(self) -> None:
        labels = [
            _label("input", "weekdays", "hash-of-input"),
            _label("output", None, None, "none", "no theme"),
            _label("combined", "days", "hash-of-combined"),
            _label("token_summary", "Monday", None),
        ]
        score = {
            **{"feature_id": FEATURE, "kind": "input", "method": "detection", "status": "ok"},
            **{"auroc": 0.75, "auroc_low": 0.5, "auroc_high": 1.0, "correlation": None},
            **{"negatives": "hard", "is_shuffled": False, "judged_label": "weekdays"},
            "request_hashes": ["hash-of-judge"],
        }
        control = {"negatives": "random", "is_shuffled": True, "judged_label": "sea"}
        scores = [score, {**score, **control}]
        self.write(
            "labels",
            "fit",
            {LABELS: rows(LABELS, *labels), LABEL_SCORES: rows(LABEL_SCORES, *scores)},
            {LLM_CALLS: _calls("labels", "hash-of-input", "hash-of-combined", "hash-of-judge")},
            parts={"settings.labels.n_contexts_shown": "1"},
            reason="labels.n_contexts_shown 8 → 1",
        )

    def _scores(self) -> None:
        detected = {"feature_id": FEATURE, "source": "generated", "concept": "weekdays"}
        probe = {
            "feature_id": FEATURE,
            "kind": "activating",
            "sentence_index": 0,
            "sentence": "Mondays are long.",
            "request_hash": "hash-of-probe",
            "status": "ok",
        }
        frames = {
            CONCEPT_DETECTION: rows(CONCEPT_DETECTION, {**detected, "status": "ok"}),
            PROBE_SENTENCES: rows(PROBE_SENTENCES, probe),
        }
        self.write("detection", "fit", frames, {LLM_CALLS: _calls("probes", "hash-of-probe")})
        of_feature = {"feature_id": FEATURE, **SETTING}
        text = {**of_feature, "text_index": 0, "prompt": "So", "text": " it is Monday.", "seed": 4}
        rated = {
            **of_feature,
            "text_index": 0,
            "label": "weekdays",
            "label_kind": "input",
            "score": 1.5,
            "concept_request_hash": "hash-of-concept",
            "fluency_request_hash": "hash-of-fluency",
            "status": "ok",
        }
        frames = {
            CALIBRATIONS: rows(CALIBRATIONS, {**of_feature, "status": "ok"}),
            STEERED_TEXTS: rows(STEERED_TEXTS, text),
            STEERING_SCORES: rows(STEERING_SCORES, rated),
        }
        calls = _calls("steering_judge", "hash-of-concept", "hash-of-fluency")
        self.write("steering", "fit", frames, {LLM_CALLS: calls})
        delta = {"feature_id": FEATURE, "delta_cross_entropy": 0.25, "status": "ok"}
        frame = rows(FEATURE_FAITHFULNESS, delta)
        self.write("faithfulness", "fit", {FEATURE_FAITHFULNESS: frame})

    def judge_on_two_labels(self) -> None:
        """The texts of both signs judged on both labels: best by input in +, by output in -."""
        scores = {"input": {"+": 1.5, "-": 0.5}, "output": {"+": 1.0, "-": 1.75}}
        texts, rated, pooled = [], [], []
        for sign, kind in (("+", "output"), ("-", "output_minus")):
            at = {"feature_id": FEATURE, "sign": sign, "target_kl_nats": 0.5, "text_index": 0}
            texts.append({**at, "prompt": "So", "text": f" text of {sign}.", "seed": 4})
            rated += [
                {
                    **at,
                    "label": f"{one} theme",
                    "label_kind": one,
                    "score": scores["input" if one == "input" else "output"][sign],
                    "concept_request_hash": f"{one} {sign}",
                    "fluency_request_hash": None,
                    "status": "ok",
                }
                for one in ("input", kind)
            ]
        for judged, sign, score in (("input", "+", 1.5), ("output", "-", 1.75)):
            best = {"chosen_sign": sign, "target_kl_nats": 0.5, "score": score, "gain": score - 1}
            key = {"feature_id": FEATURE, "label_kind": judged, "pooling": "best_kl"}
            pooled.append({**key, "sign": "either", **best, "status": "ok"})
            # Not of both signs, so not where the best setting stands.
            pooled.append({**key, "sign": "+", **best, "score": 0.25, "status": "ok"})
        frames = {
            STEERED_TEXTS: rows(STEERED_TEXTS, *texts),
            STEERING_SCORES: rows(STEERING_SCORES, *rated),
        }
        self.write("steering", "fit", frames)
        self.write(
            "steering_summaries", "fit", {STEERING_SUMMARIES: rows(STEERING_SUMMARIES, *pooled)}
        )

    def _catalogue(self) -> None:
        feature = {
            "feature_id": FEATURE,
            "label": "weekdays",
            "status": "judged",
            "steering_score": 1.5,
            "steering_gain": 0.5,
            "steering_sign": "+",
            "steering_target_kl_nats": 0.5,
        }
        self.write("catalogue", "fit", {FEATURES: rows(FEATURES, feature)})


def _label(
    kind: str, label: str | None, request: str | None, status: str = "ok", reason: str | None = None
) -> dict[str, Any]:
    return {
        "feature_id": FEATURE,
        "kind": kind,
        "label": label,
        "status": status,
        "reason": reason,
        "request_hash": request,
    }


def _calls(purpose: str, *hashes: str) -> pl.DataFrame:
    messages = [{"role": "system", "content": "Name it."}, {"role": "user", "content": "Monday?"}]
    return rows(
        LLM_CALLS,
        *(
            {
                "call_index": index,
                "purpose": purpose,
                "request_hash": one,
                "prompt_name": "words_input",
                "prompt_version": "v3",
                "prompt": json.dumps(messages),
                "reply": '{"label": "weekdays"}',
                "llm_model": "gpt-x",
                "was_reused": False,
                "status": "ok",
            }
            for index, one in enumerate(hashes)
        ),
    )
