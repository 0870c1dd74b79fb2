"""Asset checks across tables; what one table's declaration implies is in assets/table_checks.py."""

import dagster as dg

from resources.lake import LakeResource


@dg.asset_check(
    asset="features",
    name="one_row_a_feature",
    description="Every feature of every fit in the lake that a study names has its one row in the "
    "catalogue.",
)
def one_row_a_feature(lake: LakeResource) -> dg.AssetCheckResult:
    missing = lake.open().query(
        """
        SELECT site, fit, count(*) AS n_missing
        FROM (
            SELECT site, fit, unnest(coalesce(feature_ids, range(n_features))) AS feature_id
            FROM factorizations WHERE status = 'ok'
                AND site || ' | ' || fit NOT IN (
                    SELECT "partition" FROM run_ledger
                    WHERE asset = 'catalogue' AND versions IS NOT NULL
                    QUALIFY row_number() OVER (
                        PARTITION BY "partition" ORDER BY considered_at DESC
                    ) = 1 AND decision = 'removed'
                )
        )
        ANTI JOIN features USING (site, fit, feature_id)
        GROUP BY ALL ORDER BY ALL
        """
    )
    return dg.AssetCheckResult(
        passed=missing.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "n_missing": int(missing["n_missing"].sum()),
            "partitions": [f"{row['site']} | {row['fit']}" for row in missing.to_dicts()],
        },
    )


@dg.asset_check(
    asset="coefficients",
    name="coefficients_not_negative",
    description="No coefficient below zero stands in the lake.",
)
def coefficients_not_negative(lake: LakeResource) -> dg.AssetCheckResult:
    (n_negative,) = (
        lake.open().query("SELECT count(*) FROM coefficients WHERE NOT coefficient >= 0").row(0)
    )
    return dg.AssetCheckResult(passed=n_negative == 0, metadata={"n_negative": n_negative})


@dg.asset_check(
    asset="labels",
    name="every_feature_has_a_label_row",
    description="Each feature of each fit has a row for its label: a label, or why there is none.",
)
def every_feature_has_a_label_row(lake: LakeResource) -> dg.AssetCheckResult:
    (n_missing,) = (
        lake.open()
        .query(
            "SELECT count(*) FROM (SELECT site, fit, "
            "unnest(coalesce(feature_ids, range(n_features))) AS feature_id "
            "FROM factorizations WHERE status = 'ok') "
            "ANTI JOIN labels USING (site, fit, feature_id)"
        )
        .row(0)
    )
    # A fit whose labels failed, or have not been made yet, is missing here: a warning.
    return dg.AssetCheckResult(
        passed=n_missing == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"n_missing": n_missing},
    )


catalogue_checks = [one_row_a_feature, coefficients_not_negative, every_feature_has_a_label_row]
