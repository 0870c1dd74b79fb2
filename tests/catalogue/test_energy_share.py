"""The share of a feature in a fit's energy, the same whenever it is read."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from planted_lineage import PARTITIONS, PlantedLake, rows

from assets.catalogue.definitions import SOURCES
from assets.catalogue.features_query import FEATURES_QUERY
from assets.corpus.tables import DOCUMENTS
from assets.factorization.tables import COEFFICIENTS
from tests.catalogue.test_steering_columns import STUDY

N_COEFFICIENTS = 300_000


def shares(planted: PlantedLake) -> list[float | None]:
    frame = planted.lake.query(FEATURES_QUERY, {**PARTITIONS["fit"], **STUDY})
    return frame.sort("feature_id")["energy_share"].to_list()


def test_the_share_is_that_of_the_squares_and_does_not_depend_on_the_order_of_adding(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    of_feature = rng.choice([3, 8], N_COEFFICIENTS)
    values = rng.lognormal(0, 2, N_COEFFICIENTS).astype(np.float32)
    coefficients = pl.DataFrame(
        {"row": np.arange(N_COEFFICIENTS), "feature_id": of_feature, "coefficient": values}
    )
    planted = PlantedLake(tmp_path / "lake", has_ledger=False)
    frames = planted.fit_frames("cold", None)
    planted.write("factorization", "fit", frames | {COEFFICIENTS: coefficients})
    planted.lake.ensure_tables([DOCUMENTS, *SOURCES])
    # Of this many rows DuckDB adds in several threads, in no fixed order.
    found = [shares(planted) for _ in range(8)]
    assert found == found[:1] * 8
    energy = [float((values[of_feature == one].astype(np.float64) ** 2).sum()) for one in (3, 8)]
    assert found[0] == pytest.approx([one / sum(energy) for one in energy], rel=1e-12)


def test_without_a_coefficient_above_zero_there_is_no_share(tmp_path: Path) -> None:
    planted = PlantedLake(tmp_path / "lake", has_ledger=False)
    frames = planted.fit_frames("cold", None)
    planted.write("factorization", "fit", frames | {COEFFICIENTS: rows(COEFFICIENTS)})
    planted.lake.ensure_tables([DOCUMENTS, *SOURCES])
    assert shares(planted) == [None, None]
