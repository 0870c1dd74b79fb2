"""Batches that are under way at a provider, as files beside the cache of answers.

A batch takes up to a day, longer than a run may: what is written here lets the next run go on with
it rather than pay for it again. One JSON file each, named by a key that the batch carries in its
metadata. It is written before the batch is made, with `batch_id` null: a run killed in between is
cleared up by asking the provider for a batch of that key. Files are replaced whole, under a lock
that processes share.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock

from resources.refused_parameters import DROPPABLE

FOLDER = "llm_batches"


@dataclass(frozen=True)
class OpenBatch:
    """`asked` is the model and address; `requests` maps request hashes to whether they want the
    answer's log-probability; `batch_id` is None until the provider has confirmed the batch;
    `dropped` names the parameters that requests were sent without, `refused` those that the
    endpoint had refused until then (refused_parameters.py): also max_tokens, which is renamed.
    """

    asked: str
    requests: Mapping[str, bool]
    submitted_at: float
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    batch_id: str | None = None
    dropped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    refused: Sequence[str] = ()

    def perhaps_sent(self, request_hash: str) -> frozenset[str]:
        """The optional parameters that a request may have been sent with."""
        return frozenset(DROPPABLE) - {*self.refused, *self.dropped.get(request_hash, ())}


class BatchRegister:
    """The open batches of a cache folder."""

    def __init__(self, cache_folder: Path) -> None:
        self.folder = Path(cache_folder) / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)

    def lock(self) -> FileLock:
        """To be held from looking for open batches until new ones are written."""
        return FileLock(self.folder / "lock")

    def path(self, batch: OpenBatch) -> Path:
        return self.folder / f"{batch.key}.json"

    def open_batches(self, asked: str) -> Iterator[OpenBatch]:
        """Those of a model and address, oldest first."""
        found = [OpenBatch(**json.loads(p.read_text())) for p in self.folder.glob("*.json")]
        ours = [batch for batch in found if batch.asked == asked]
        yield from sorted(ours, key=lambda batch: (batch.submitted_at, batch.key))

    def write(self, batch: OpenBatch) -> None:
        path = self.path(batch)
        new = path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(asdict(batch)))
        new.replace(path)

    def remove(self, batch: OpenBatch) -> None:
        self.path(batch).unlink(missing_ok=True)
