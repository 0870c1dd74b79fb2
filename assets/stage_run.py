"""What every asset does around its science: know its partition, write its tables, report.

A stage's definitions.py declares its assets with `table_specs`, opens a `StageRun`, calls pure
functions, and hands the frames to `StageRun.write`, which commits them in one snapshot and yields
one materialization a table (row counts, snapshot, plots, cost) with its checks.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
from pydantic import BaseModel

from assets.fingerprints import code_version, fingerprint
from assets.shared.schema import Table
from assets.table_checks import check_specs, check_table
from resources.lake import Commit, Lake, LakeResource
from resources.study import FitSpec, SiteSpec, StudiesResource, Study

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from assets.activations.shards import ActivationReader

SNAPSHOT_METADATA = "lake_snapshot"


def table_specs(
    tables: Sequence[Table], deps: Sequence[dg.AssetDep | str] = ()
) -> list[dg.AssetSpec]:
    """One asset a table, with its description, column schema, group and code version."""
    return [
        dg.AssetSpec(
            key=table.name,
            deps=list(deps),
            group_name=table.stage,
            description=table.description,
            code_version=code_version(table.stage),
            kinds={"duckdb", "parquet"},
            metadata={
                "dagster/column_schema": dg.TableSchema(
                    columns=[
                        dg.TableColumn(
                            column.name,
                            column.sql_type,
                            description=column.description
                            + (f" [{column.unit}]" if column.unit else ""),
                            constraints=dg.TableColumnConstraints(
                                nullable=column.nullable, unique=table.key == (column.name,)
                            ),
                        )
                        for column in table.columns
                    ]
                ),
                "dagster/relation_identifier": f"lake.{table.name}",
            },
        )
        for table in tables
    ]


def specs_of_checks(tables: Sequence[Table]) -> list[dg.AssetCheckSpec]:
    return [spec for table in tables for spec in check_specs(table)]


@dataclass(frozen=True)
class StoredFit:
    """A fit read back: its row of `factorizations`, and its dictionary in the order of ids."""

    row: dict[str, Any]
    feature_ids: list[int]
    dictionary: 'Float[Tensor, "k d"]'


class StageRun:
    """One materialization of a stage's tables for one partition."""

    def __init__(
        self, context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
    ) -> None:
        self.context = context
        self.lake: Lake = lake.open()
        self.log: logging.Logger = context.log
        self._studies = studies
        self._started = time.monotonic()

    def study(self) -> Study:
        return self._studies.study(self.context.partition_key)

    def site(self) -> SiteSpec:
        return self._studies.site(self.context.partition_key)

    def fit(self) -> FitSpec:
        keys = self.context.partition_key
        assert isinstance(keys, dg.MultiPartitionKey)
        return self._studies.fit(keys.keys_by_dimension["site"], keys.keys_by_dimension["fit"])

    def fitted_row(self, spec: FitSpec) -> dict[str, Any]:
        """The row of `factorizations` that a later stage goes on from.

        Raises ValueError where there is none, where the fit failed, and where the site's
        activations were captured anew since, so that the coefficients are of other tokens.
        """
        from assets.activations.tables import ACTIVATION_SHARDS
        from assets.factorization.frames import fitted_row
        from assets.factorization.tables import FACTORIZATIONS

        shards = self.lake.read(ACTIVATION_SHARDS, {"site": spec.site.key}, columns=("sha256",))
        return fitted_row(
            self.lake.read(FACTORIZATIONS, spec.partition), shards["sha256"].to_list()
        )

    def fitted(self, spec: FitSpec) -> "StoredFit":
        """The fit that a later stage goes on from. Raises ValueError as `fitted_row` does."""
        from assets.factorization.frames import dictionary_matrix, feature_ids_of
        from assets.factorization.tables import DICTIONARY

        row = self.fitted_row(spec)
        ids = sorted(feature_ids_of(row))
        frame = self.lake.read(DICTIONARY, spec.partition)
        return StoredFit(row, ids, dictionary_matrix(frame, ids, row["width"]))

    def activations(self, site: SiteSpec) -> "ActivationReader":
        """A site's activations, read shard by shard when asked."""
        from assets.activations.shards import ActivationReader, ShardRecord
        from assets.activations.tables import ACTIVATION_SHARDS

        rows = self.lake.read(ACTIVATION_SHARDS, {"site": site.key}).to_dicts()
        return ActivationReader(
            [ShardRecord.from_row(row) for row in rows], self.lake.shards_folder
        )

    def commit(
        self,
        frames: Mapping[Table, pl.DataFrame],
        partition: Mapping[str, str],
        made_with: str,
        side_frames: Mapping[Table, pl.DataFrame] | None = None,
    ) -> int:
        """Commit without reporting a materialization; the snapshot's id."""
        tables = list(frames)
        return self.lake.replace(
            {**frames, **(side_frames or {})},
            partition,
            Commit(
                asset=", ".join(table.name for table in tables),
                partition=" | ".join(partition[name] for name in tables[0].partition_by),
                run_id=self.context.run_id,
                fingerprint=made_with,
            ),
        )

    def reuse(
        self, tables: Sequence[Table], partition: Mapping[str, str], made_with: str
    ) -> Iterator[dg.MaterializeResult]:
        """Report the rows that are in the lake: nothing they depend on has changed.

        `made_with` is the fingerprint they carry; `lake_snapshot` is the one that wrote the first
        table's rows, the same for all tables that were written together.
        """
        self.lake.ensure_tables(list(tables))
        snapshot = self.lake.snapshot_of(
            tables[0], {name: partition[name] for name in tables[0].partition_by}
        )
        for table in tables:
            where = {name: partition[name] for name in table.partition_by}
            n_rows = self.lake.count(table, where)
            self.log.info("%s: %d rows reused, nothing changed", table.name, n_rows)
            yield dg.MaterializeResult(
                asset_key=table.name,
                metadata={
                    "dagster/row_count": self.lake.count(table),
                    "dagster/partition_row_count": n_rows,
                    SNAPSHOT_METADATA: snapshot,
                    "fingerprint": made_with,
                    "seconds": round(time.monotonic() - self._started, 3),
                    "reused": True,
                },
                check_results=list(check_table(self.lake, table, partition, n_rows)),
            )

    def write(
        self,
        frames: Mapping[Table, pl.DataFrame],
        partition: Mapping[str, str],
        *,
        configs: Sequence[BaseModel | str | None] = (),
        made_with: str | None = None,
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
        side_frames: Mapping[Table, pl.DataFrame] | None = None,
    ) -> Iterator[dg.MaterializeResult]:
        """Commit `frames` (and `side_frames`, which are no assets) and report each table.

        `configs` are the parts of the study that these tables depend on: they make the
        fingerprint, where `made_with` isn't given as it is. `metadata` maps a table's name to
        what its materialization shows.
        """
        if made_with is None:
            made_with = fingerprint(next(iter(frames)).stage, *configs)
        snapshot = self.commit(frames, partition, made_with, side_frames)
        seconds = time.monotonic() - self._started
        for table, frame in frames.items():
            self.log.info("%s: %d rows in snapshot %d", table.name, len(frame), snapshot)
            yield dg.MaterializeResult(
                asset_key=table.name,
                metadata={
                    "dagster/row_count": self.lake.count(table),
                    "dagster/partition_row_count": len(frame),
                    SNAPSHOT_METADATA: snapshot,
                    "fingerprint": made_with,
                    "seconds": round(seconds, 3),
                    **_status_counts(frame),
                    **((metadata or {}).get(table.name, {})),
                },
                check_results=list(check_table(self.lake, table, partition, len(frame))),
            )


def _status_counts(frame: pl.DataFrame) -> dict[str, int]:
    if "status" not in frame.columns:
        return {}
    counts = frame["status"].value_counts()
    return {f"n_{status}": count for status, count in sorted(counts.iter_rows())}
