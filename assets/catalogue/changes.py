"""What changed in the catalogue from one version to another: one row a feature and change.

Two frames of `features` are compared by (site, fit, feature_id), which refits keep
(factorization/identity.py):

- added, lost: the feature is in only one of them;
- relabelled: what it is said to be about is another (LABELS);
- rescored: a score has another value, by however little (every DOUBLE column but NOT_SCORES);
- restated: a status is another, or the reason for it (STATES).

A column that the older rows were written without is not compared: that it is filled now says
nothing of the feature. Where the frames come from (two snapshots, or a partition before and after a
run) is for callers, who leave such columns out of the older frame. Columns that only describe the
feature, such as its top neurons, are not compared.
"""

from __future__ import annotations

import polars as pl

from assets.catalogue.tables import CATALOGUE_CHANGES, FEATURES

KEY = list(FEATURES.key)
LABELS = (
    "label",
    "output_label",
    "combined_label",
    "token_summary",
    "concept",
    "parent_concept",
    "feature_name",
)
# Numbers that describe a feature or its best setting; higher is not better.
NOT_SCORES = (
    "energy_share",
    "max_coefficient",
    "concept_auroc_low",
    "concept_auroc_high",
    "steering_target_kl_nats",
    "steering_strength",
)
SCORES = tuple(
    c.name for c in FEATURES.columns if c.sql_type == "DOUBLE" and c.name not in NOT_SCORES
)
STATES = tuple(
    c.name for c in FEATURES.columns if c.name.rpartition("_")[-1] in ("status", "reason")
)
# What a partition is of: the same for all of its features, and another site or fit in each.
IDENTITY = ("site", "fit", "study", "model", "site_kind", "method")
# Which of its settings is the best one; the score of that setting is compared.
NOT_COMPARED = ("steering_sign",)
KIND_OF_COLUMN = {
    **dict.fromkeys(LABELS, "relabelled"),
    **dict.fromkeys(SCORES, "rescored"),
    **dict.fromkeys(STATES, "restated"),
}
# The order of CHANGES is that of reading: what came and went, then what became of the others.
CHANGES = ("added", "lost", "relabelled", "rescored", "restated")
COLUMNS = [name for name in CATALOGUE_CHANGES.column_names if name != "from_snapshot"]


def changes_between(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Rows of `catalogue_changes` without `from_snapshot`, from two frames of `features`.

    NULL and a value differ; two NULLs are equal. Columns that `old` lacks are not compared. An
    empty `old` makes every feature added. Rows are in the order of CHANGES, then of the key.
    """
    compared = {name: kind for name, kind in KIND_OF_COLUMN.items() if name in old.columns}
    both = old.join(new, on=KEY, how="inner", suffix="_new")
    parts = [
        _present(new.join(old, on=KEY, how="anti"), "added"),
        _present(old.join(new, on=KEY, how="anti"), "lost"),
        *(_changed(both, column, kind) for column, kind in compared.items()),
    ]
    return in_order(pl.concat(parts))


def in_order(changes: pl.DataFrame) -> pl.DataFrame:
    """Rows in the order of CHANGES, then of the key."""
    return changes.sort(
        pl.col("change").cast(pl.Enum(CHANGES)), *KEY, pl.col("column_name"), maintain_order=True
    )


def partition_changes(
    old: pl.DataFrame, new: pl.DataFrame, from_snapshot: int | None, stored: pl.DataFrame
) -> pl.DataFrame:
    """Rows of `catalogue_changes` for one partition whose features go from `old` to `new`.

    `from_snapshot` wrote the old ones. Where nothing changed, the `stored` rows stay, which tell
    of the last run that changed something.
    """
    changes = changes_between(old, new)
    if changes.is_empty():
        return stored
    return changes.with_columns(pl.lit(from_snapshot, pl.Int64).alias("from_snapshot"))


def _present(features: pl.DataFrame, change: str) -> pl.DataFrame:
    """Features in one version only, shown by their label, or by their tokens without one."""
    name = pl.coalesce("label", "token_summary")
    nothing = pl.lit(None, pl.String)
    return features.select(
        *KEY,
        pl.lit(change).alias("change"),
        pl.when(pl.col("label").is_null())
        .then(pl.lit("token_summary"))
        .otherwise(pl.lit("label"))
        .alias("column_name"),
        (nothing if change == "added" else name).alias("old_value"),
        (name if change == "added" else nothing).alias("new_value"),
        pl.lit(None, pl.Float64).alias("difference"),
    ).select(COLUMNS)


def _changed(both: pl.DataFrame, column: str, change: str) -> pl.DataFrame:
    old, new = pl.col(column), pl.col(f"{column}_new")
    difference = new - old if column in SCORES else pl.lit(None, pl.Float64)
    return (
        both.filter(old.ne_missing(new))
        .select(
            *KEY,
            pl.lit(change).alias("change"),
            pl.lit(column).alias("column_name"),
            old.cast(pl.String).alias("old_value"),
            new.cast(pl.String).alias("new_value"),
            difference.cast(pl.Float64).alias("difference"),
        )
        .select(COLUMNS)
    )
