"""The very requests that labels and detection would send, built where what they read is there.

Of an asset, up to MOST_BUILT partitions are built as they are; of more, so many drawn at random (by
a seed of 0) stand for all of them. Each table is read once for all that are built: a read of one
partition takes half a second where the lake has thousands. Labels that are reranked ask anew by
what was answered, so they are not built.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import polars as pl

from assets.detection.probe_sentences import labels_to_probe, probe_requests
from assets.detection.prompts import ACTIVATING_SENTENCE
from assets.evidence.tables import CONTEXTS, VOCAB_PROJECTION
from assets.factorization.strength_order import strongest_features
from assets.factorization.tables import COEFFICIENTS
from assets.labels.chosen_labels import chosen_kind, chosen_labels
from assets.labels.label_tasks import label_requests, requests_of
from assets.labels.prompts import LABEL_PROMPTS
from assets.labels.tables import LABELS
from assets.recipe import partition_text
from assets.shared.chat import ChatRequest
from assets.shared.schema import Table
from orchestration.call_shares import limit_of
from resources.chat_replies import hashed_name
from resources.lake import Lake
from resources.lake_tables import quoted
from resources.llm_cache import answer_times
from resources.study import FitSpec, Study

MOST_BUILT = 50
# Labels first: detection reads them.
READ = {"labels": (CONTEXTS, VOCAB_PROJECTION, COEFFICIENTS), "detection": (LABELS, COEFFICIENTS)}


class RealRequests:
    """Of one study; `address` is the LLM's, "" for the client's own."""

    def __init__(self, study: Study, lake: Lake, address: str) -> None:
        self.study = study
        self._lake = lake
        self._asked = hashed_name(study.llm, address)

    def can_build(self, asset: str, spec: FitSpec) -> bool:
        """Whether all that an asset reads has rows in the lake."""
        if asset not in READ or (
            asset == "labels" and self.study.labels.is_reranked_for(self.study.llm)
        ):
            return False
        place = tuple(spec.partition.values())
        return all(place in self._there.get(table.name, ()) for table in READ[asset])

    def prompt_names(self, asset: str) -> set[str]:
        """The prompts whose requests are built; an asset may ask others besides."""
        if asset == "detection":
            return {ACTIVATING_SENTENCE.name}
        style = self.study.labels.style_for(self.study.llm)
        return {LABEL_PROMPTS[kind, style].name for kind in self.study.labels.kinds}

    def to_send(self, asset: str, specs: Sequence[FitSpec]) -> dict[str, list[ChatRequest]]:
        """Partition → its requests, each once, that the cache does not know.

        Of more than MOST_BUILT `specs`, of those that are drawn.
        """
        if len(specs) > MOST_BUILT:
            specs = random.Random(0).sample(list(specs), MOST_BUILT)
        rows = {table: self._rows(table, specs) for table in READ[asset]}
        build = self._of_labels if asset == "labels" else self._of_detection
        found: dict[str, list[ChatRequest]] = {}
        for spec in specs:
            name = partition_text(spec)
            own = {t: frames[name] if name in frames else t.empty() for t, frames in rows.items()}
            found[name] = self._unknown(build(spec, own))
        return found

    def _of_labels(
        self, spec: FitSpec, rows: Mapping[Table, pl.DataFrame]
    ) -> Iterable[ChatRequest]:
        config = self.study.labels
        tasks = label_requests(
            rows[CONTEXTS],
            rows[VOCAB_PROJECTION],
            config,
            features=strongest_features(rows[COEFFICIENTS], limit_of(spec, config)),
            llm=self.study.llm,
        )
        return requests_of(tasks)

    def _of_detection(
        self, spec: FitSpec, rows: Mapping[Table, pl.DataFrame]
    ) -> Iterable[ChatRequest]:
        config = self.study.detection
        strongest = strongest_features(rows[COEFFICIENTS], None)
        chosen = chosen_labels(rows[LABELS], chosen_kind(self.study.labels.kinds))
        labels = labels_to_probe(chosen, strongest, limit_of(spec, config))
        return (task.request for task in probe_requests(labels, config))

    def _unknown(self, requests: Iterable[ChatRequest]) -> list[ChatRequest]:
        by_hash = {request.request_hash(self._asked): request for request in requests}
        known = answer_times(self._lake.llm_cache_folder, by_hash)
        return [request for h, request in by_hash.items() if h not in known]

    def _rows(self, table: Table, specs: Sequence[FitSpec]) -> dict[str, pl.DataFrame]:
        """Partition → its rows of a table, in key order."""
        columns = "site, fit, feature_id, coefficient" if table == COEFFICIENTS else "*"
        order = "" if table == COEFFICIENTS else f" ORDER BY {', '.join(table.key)}"
        # Lists of sites and of fits leave files out by themselves; a pair of columns does not.
        frame = self._lake.query(
            f"SELECT {columns} FROM {table.name} "
            f"WHERE site IN {_listed(s.site.key for s in specs)} "
            f"AND fit IN {_listed(s.fit.key for s in specs)} "
            f"AND concat(site, ' | ', fit) IN {_listed(map(partition_text, specs))}{order}"
        )
        parts = frame.partition_by("site", "fit", as_dict=True, maintain_order=True)
        return {f"{site} | {fit}": rows for (site, fit), rows in parts.items()}

    @cached_property
    def _there(self) -> Mapping[str, set[tuple[str, ...]]]:
        """Table → (site, fit) of its partitions that have rows."""
        tables = {table.name for of_asset in READ.values() for table in of_asset}
        return {
            name: set(self._lake.query(f"SELECT DISTINCT site, fit FROM {name}").iter_rows())
            for name in tables & self._lake.table_names()
        }


def _listed(values: Iterable[str]) -> str:
    return f"({', '.join(sorted({quoted(value) for value in values}))})"
