"""Refits on a real model through Dagster: reuse, warm start, kept ids, failed rows."""

import dagster as dg
import polars as pl
import pytest
from mini_study import write_study
from platform_of_test import Platform

from orchestration.partition_sync import sync_partitions
from resources.lake import Lake
from resources.study_files import StudiesResource

pytestmark = pytest.mark.slow
SITE = "mini:smollm2-135m-instruct@L20.mlp_hidden"
SNMF = {"method": "snmf", "rank": 12, "keep_fraction": 0.02, "max_iter": 20}
FACTORIZATION = (
    "factorizations",
    "dictionary",
    "encoders",
    "coefficients",
    "feature_matches",
    "rank_choices",
    "feature_stability",
    "fit_documents",
)


def prepare(platform: Platform, documents: int, *fits: dict) -> None:
    """Write the study with so many documents a concept, and capture its activations."""
    write_study(
        platform.root / "studies",
        corpus={
            "path": "bundled:concepts",
            "concepts": ["Monday", "red", "French", "sushi"],
            "max_documents_per_concept": documents,
        },
        fits=list(fits),
    )
    studies, problems = StudiesResource(folder=str(platform.root / "studies")).readable()
    assert not problems
    sync_partitions(platform.instance, studies, may_remove=False)
    for job, key in (("corpus_job", "mini"), ("activations_job", SITE)):
        assert run(platform, job, key).success


def run(
    platform: Platform, job: str, key: str, assets: tuple[str, ...] | None = None
) -> dg.ExecuteInProcessResult:
    selection = None if assets is None else [dg.AssetKey(name) for name in assets]
    return (
        platform.definitions()
        .resolve_job_def(job)
        .execute_in_process(
            instance=platform.instance,
            partition_key=key,
            asset_selection=selection,
            raise_on_error=False,
        )
    )


def fit(platform: Platform, key: str, *more: str) -> dg.ExecuteInProcessResult:
    partition = dg.MultiPartitionKey({"site": SITE, "fit": key})
    return run(platform, "features_job", partition, (*FACTORIZATION, *more))


def reused(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {
        event.asset_key.to_user_string(): event.materialization.metadata["reused"].value
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def data_snapshot(lake: Lake) -> int:
    return lake.query("SELECT max(snapshot_id) FROM factorizations").item()


def test_a_refit_goes_on_and_features_keep_their_ids(platform: Platform) -> None:
    lake = platform.lake
    prepare(platform, 8, SNMF, {"method": "diff_means"})
    assert fit(platform, "snmf-k012").success
    first = lake.query("SELECT * FROM factorizations").row(0, named=True)
    assert (first["feature_ids"], first["next_feature_id"]) == (list(range(12)), 12)
    assert lake.query("SELECT DISTINCT kind FROM feature_matches")["kind"].to_list() == ["new"]
    before = data_snapshot(lake)

    again = fit(platform, "snmf-k012")
    assert again.success and set(reused(again).values()) == {True}
    assert data_snapshot(lake) == before
    metadata = [
        event.materialization.metadata["lake_snapshot"].value
        for event in again.get_asset_materialization_events()
    ]
    assert set(metadata) == {before}

    # Activations are captured again from the same documents: nothing changed for the fit.
    assert run(platform, "activations_job", SITE).success
    assert set(reused(fit(platform, "snmf-k012")).values()) == {True}

    prepare(platform, 12, SNMF, {"method": "diff_means"})
    result = fit(platform, "snmf-k012", "contexts", "vocab_projection")
    assert result.success and not any(reused(result).values())
    row = lake.query("SELECT * FROM factorizations").row(0, named=True)
    assert (row["start"], row["started_from_snapshot"]) == ("warm", before)
    assert row["inputs_fingerprint"] != first["inputs_fingerprint"]
    matches = lake.query("SELECT * FROM feature_matches")
    kept = matches.filter(kind="kept")
    assert len(kept) >= 6
    assert (kept["cosine"] >= 0.7).all()
    assert set(matches["previous_snapshot"]) == {before}
    assert len(kept) + len(matches.filter(kind="new")) == 12
    then = lake.query(f"SELECT * FROM factorizations AT (VERSION => {before})").row(0, named=True)
    assert then["feature_ids"] == first["feature_ids"]


def test_later_stages_take_ids_that_are_not_contiguous(platform: Platform) -> None:
    lake = platform.lake
    prepare(platform, 8, SNMF)
    assert fit(platform, "snmf-k012").success
    # Another seed, and a threshold that no feature reaches: all ids are new.
    prepare(platform, 8, SNMF | {"seed": 3, "match_threshold": 1.0})
    result = fit(platform, "snmf-k012", "contexts", "vocab_projection")
    assert result.success
    row = lake.query("SELECT * FROM factorizations").row(0, named=True)
    assert (row["start"], row["next_feature_id"]) == ("cold", 24)
    assert row["feature_ids"] == list(range(12, 24))
    for table in ("dictionary", "coefficients", "contexts", "vocab_projection"):
        ids = lake.query(f"SELECT DISTINCT feature_id FROM {table}")["feature_id"]
        assert set(ids) <= set(range(12, 24)), table
        assert len(ids) >= 6
    kinds = lake.query("SELECT kind, count(*) FROM feature_matches GROUP BY 1")
    assert dict(kinds.filter(pl.col("kind").is_in(["new", "lost"])).iter_rows()) == {
        "new": 12,
        "lost": 12,
    }


def test_a_fit_that_cannot_be_made_is_a_row_but_never_loses_one(platform: Platform) -> None:
    lake = platform.lake
    # k-means centres are found for any corpus; ranks above the tokens admit no fit.
    big = SNMF | {"rank": 900, "max_iter": 2, "tol": 0.5}
    prepare(platform, 2, big)
    result = fit(platform, "snmf-k900", "contexts")
    assert not result.success
    row = lake.query("SELECT * FROM factorizations").row(0, named=True)
    assert row["status"] == "failed" and "rank 900 exceeds" in row["reason"]
    assert (row["n_features"], row["feature_ids"]) == (None, None)
    assert lake.query("SELECT count(*) FROM dictionary").item() == 0
    assert "contexts" not in lake.table_names()
    alone = run(
        platform,
        "features_job",
        dg.MultiPartitionKey({"site": SITE, "fit": "snmf-k900"}),
        ("contexts",),
    )
    failures = [e.step_failure_data.error for e in alone.all_events if e.is_step_failure]
    assert any("status 'failed'" in str(error) for error in failures)

    prepare(platform, 12, big)
    assert fit(platform, "snmf-k900").success
    made = lake.query("SELECT * FROM factorizations")
    assert made["status"].to_list() == ["ok"]
    prepare(platform, 2, big)
    assert not fit(platform, "snmf-k900").success
    assert lake.query("SELECT * FROM factorizations").equals(made)
    assert lake.query("SELECT count(*) FROM dictionary").item() > 0


def test_a_trained_sae_stays_when_few_documents_come(platform: Platform) -> None:
    lake = platform.lake
    sae = {"method": "sae", "rank": 12, "max_iter": 20, "refit_share": 0.5}
    prepare(platform, 8, sae)
    assert fit(platform, "sae-k012").success
    kept = {name: lake.query(f"FROM {name} ORDER BY ALL") for name in ("dictionary", "encoders")}
    first = lake.query("FROM factorizations").row(0, named=True)

    prepare(platform, 9, sae)
    assert fit(platform, "sae-k012").success
    row = lake.query("FROM factorizations").row(0, named=True)
    assert row["start"] == "projected" and row["n_tokens"] > first["n_tokens"]
    for name, before in kept.items():
        assert lake.query(f"FROM {name} ORDER BY ALL").equals(before), name
    fired = lake.query("SELECT count(*) AS n FROM coefficients GROUP BY row")["n"]
    # Its default is a quarter of the features at a token.
    assert fired.max() == 3 and len(fired) > 0.9 * row["n_tokens"]
