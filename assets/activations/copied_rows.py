"""Rows that an earlier capture left in other shards, copied into a group's matrix.

Shards that hold most of the group's documents are read first, so a group in which one document
changed reads one file. A shard is checked against its checksum before rows are copied; one that is
missing or damaged does not count, and its documents are run again.

Stored rows are float16 (float32 where a shard holds a value beyond it), so copied rows carry that
rounding already: to float16 again it changes nothing; in a shard that became float32 by another
document, they are still rounded to float16.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from assets.activations.captured_documents import CapturedDocuments
from assets.activations.shard_groups import DocumentGroup
from assets.activations.shards import ShardError, complete_shard, read_shard


def copy_rows(
    matrix: Float[Tensor, "n_rows width"],
    group: DocumentGroup,
    captured: CapturedDocuments,
    scope: str,
) -> set[bytes]:
    """Fills in the rows of documents that shards of `scope` hold; returns the hashes of the others.

    Same folder, same choice of shards: those with most documents first, then by name.
    """
    lacking = set(group.distinct)
    holders = captured.holders(lacking, scope)
    for path, first_rows in sorted(holders.items(), key=lambda item: (-len(item[1]), item[0])):
        useful = lacking & first_rows.keys()
        file = complete_shard(captured.folder / path) if useful else None
        if file is None:
            continue
        try:
            stored = read_shard(captured.folder / path, file.sha256)
        except ShardError:  # whoever needs that very shard is told; here it is only no help
            continue
        for key in useful:
            first_row = first_rows[key]
            rows = stored[first_row : first_row + group.distinct[key].n_rows]
            group.place(matrix, key, rows.to(matrix.dtype))
        lacking -= useful
    return lacking
