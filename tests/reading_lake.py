"""A reader of the lake in a process of its own, as a user's DuckDB client: it must see no half.

    python -c 'import reading_lake; reading_lake.main("LAKE", "STOP_FILE")'

Reads over and over until STOP_FILE is there; prints what it saw as JSON.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
from pooled_job import PROJECT

from resources.lake import Lake

FIT = {"factorizations", "dictionary", "coefficients", "run_ledger"}
_WRITTEN = "min(snapshot_id) AS oldest, max(snapshot_id) AS newest"
# Which snapshots wrote the rows of each fit, and which one the ledger says it was.
FITS = f"""
    SELECT site, fit, f.n_features, d.n_found,
           [f.oldest, f.newest, d.oldest, d.newest, c.oldest, c.newest, told] AS snapshots
    FROM (SELECT site, fit, max(n_features) AS n_features, {_WRITTEN}
          FROM factorizations GROUP BY ALL) f
    FULL JOIN (SELECT site, fit, count(DISTINCT feature_id) AS n_found, {_WRITTEN}
          FROM dictionary GROUP BY ALL) d USING (site, fit)
    FULL JOIN (SELECT site, fit, {_WRITTEN} FROM coefficients GROUP BY ALL) c USING (site, fit)
    LEFT JOIN (SELECT "partition", max(data_snapshot) AS told FROM run_ledger
          WHERE asset = 'factorization' AND decision = 'computed' GROUP BY ALL) l
    ON l."partition" = site || ' | ' || fit
    ORDER BY site, fit
"""


def start(lake: Path, stop: Path) -> subprocess.Popen[str]:
    """The reader as a process."""
    paths = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import reading_lake; reading_lake.main({str(lake)!r}, {str(stop)!r})",
        ],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main(lake: str, stop: str) -> None:
    seen: dict[str, Any] = {"reads": 0, "partitions": 0, "snapshots": 0, "torn": []}
    snapshots: set[int] = set()
    with contextlib.closing(duckdb.connect()) as client:
        for statement in Lake(Path(lake)).attach_statements(read_only=True):
            client.execute(statement)
        while not Path(stop).exists():
            if not {row[0] for row in client.execute("SHOW TABLES").fetchall()} >= FIT:
                continue
            rows = _rows(client, FITS)
            seen["reads"] += 1
            seen["partitions"] = max(seen["partitions"], len(rows))
            snapshots |= {row["snapshots"][0] for row in rows}
            seen["torn"] += [row for row in rows if not _is_whole(row)]
            seen["torn"] += _changed_within_a_transaction(client)
            seen["torn"] += _changed_at_a_version(client)
    seen["snapshots"] = len(snapshots)
    sys.stdout.write(json.dumps(seen, default=str))


def _is_whole(row: dict[str, Any]) -> bool:
    """Whether the rows of a fit are of one write, which the ledger knows."""
    written = set(row["snapshots"])
    return len(written) == 1 and None not in written and row["n_features"] == row["n_found"]


def _changed_within_a_transaction(client: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The same queries twice in one transaction see one lake."""
    client.execute("BEGIN")
    try:
        first, second = (_rows(client, FITS) for _ in range(2))
    finally:
        client.execute("COMMIT")
    return [] if first == second else [{"before": first, "after": second}]


def _changed_at_a_version(client: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Tables read one after the other at one version belong together."""
    newest = client.execute("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')").fetchone()
    assert newest is not None
    version = int(newest[0])
    counts = {
        table: dict(
            client.execute(
                f"SELECT site || fit, count(DISTINCT feature_id) FROM {table} "
                f"AT (VERSION => {version}) GROUP BY ALL"
            ).fetchall()
        )
        for table in ("dictionary", "coefficients")
    }
    fits = dict(
        client.execute(
            f"SELECT site || fit, n_features FROM factorizations AT (VERSION => {version})"
        ).fetchall()
    )
    is_whole = counts["dictionary"] == fits and counts["coefficients"].keys() == fits.keys()
    return [] if is_whole else [{"version": version, "fits": fits, **counts}]


def _rows(client: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    return client.execute(sql).pl().to_dicts()
