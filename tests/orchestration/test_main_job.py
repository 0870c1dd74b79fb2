"""The main job on a real model and a real LLM: every stage leaves its rows, once each."""

import json
import re
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from lake_contents import DATA_TABLES
from mini_study import write_study
from platform_of_test import Platform

from orchestration.data_dictionary import all_tables
from orchestration.run_tags import MAIN_RUN_TAG
from orchestration.show_why import why

pytestmark = pytest.mark.slow
README = Path(__file__).resolve().parents[2] / "README.md"
FITS = {"snmf-k012", "diff_means", "random-k006", "permuted-k006"}
# Tables that have rows only where a study asks for them (rank: auto, a method with an encoder).
EMPTY_WITHOUT_ASKING = {"rank_choices", "encoders", "human_ratings", "rating_agreement"}


def test_every_table_has_rows(materialized: Platform) -> None:
    counts = {table.name: len(materialized.lake.read(table)) for table in all_tables()}
    empty = {name for name, n_rows in counts.items() if not n_rows}
    assert empty <= EMPTY_WITHOUT_ASKING, counts
    assert counts["documents"] == 72
    assert counts["features"] == 12 + 6 + 6 + 6


def test_each_feature_has_one_catalogue_row_with_its_status(materialized: Platform) -> None:
    features = materialized.lake.query("SELECT * FROM features ORDER BY fit, feature_id")
    assert features.select("site", "fit", "feature_id").is_unique().all()
    judged = features.filter(pl.col("status").is_in(["judged", "labelled", "failed"]))
    left = features.filter(status="not_judged")
    assert len(judged) <= 6 and len(left) >= 24
    assert left["reason"].null_count() == 0
    assert features.filter(method="snmf")["concept_auroc"].max() > 0.8
    assert set(features["is_control"]) == {True, False}


def test_controls_pass_through_the_same_path(materialized: Platform) -> None:
    for table in ("calibrations", "steered_texts", "steering_scores", "labels", "contexts"):
        fits = materialized.lake.query(f"SELECT DISTINCT fit FROM {table}")["fit"]
        assert set(fits) == FITS, table


def test_calibrated_strengths_meet_their_target_or_say_why(materialized: Platform) -> None:
    rows = materialized.lake.query("SELECT * FROM calibrations")
    reached = rows.filter(status="ok")
    assert len(reached) > 0
    error = (reached["achieved_kl_nats"] - reached["target_kl_nats"]).abs()
    assert (error <= 0.05 * reached["target_kl_nats"] + 1e-9).all()
    assert rows.filter(pl.col("status") != "ok")["reason"].null_count() == 0


def test_each_materialization_is_one_snapshot_with_its_run(materialized: Platform) -> None:
    commits = materialized.lake.snapshots().filter(author="featurelake")
    details = [json.loads(text) for text in commits["commit_extra_info"]]
    written = [(entry["asset"], entry["partition"]) for entry in details]
    assert len(set(written)) == len(written)
    run_ids = {run.run_id for run in materialized.instance.get_runs()}
    assert {entry["run_id"] for entry in details} <= run_ids
    for entry in details:
        assert entry["fingerprint"]
    events = materialized.instance.get_latest_materialization_event(dg.AssetKey("features"))
    assert events is not None and events.asset_materialization is not None
    metadata = events.asset_materialization.metadata
    assert metadata["lake_snapshot"].value in commits["snapshot_id"].to_list()


def test_lineage_and_checks_are_on_the_instance(materialized: Platform) -> None:
    graph = materialized.definitions().resolve_asset_graph()
    assert graph.get(dg.AssetKey("features")).parent_keys >= {dg.AssetKey("steering_scores")}
    children = [run for run in materialized.instance.get_runs() if MAIN_RUN_TAG in run.tags]
    assert sorted(run.job_name for run in children) == [
        "activations_job",
        "comparison_job",
        "corpus_job",
        *["features_job"] * 4,
    ]
    evaluations = [
        record.event_log_entry.dagster_event.asset_check_evaluation_data
        for run in children
        for record in materialized.instance.get_records_for_run(run.run_id).records
        if record.event_log_entry.dagster_event
        and record.event_log_entry.dagster_event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    assert len(evaluations) > 120
    failed = [f"{e.asset_key} {e.check_name}" for e in evaluations if not e.passed]
    assert failed == []


def test_llm_calls_are_recorded_with_prompt_and_reply(materialized: Platform) -> None:
    calls = materialized.lake.query("SELECT * FROM llm_calls")
    assert set(calls["stage"]) == {"labels", "detection", "steering"}
    answered = calls.filter(status="ok")
    assert len(answered) > 0.5 * len(calls)
    assert answered["reply"].null_count() == 0
    assert (answered["prompt_tokens"] > 0).all()
    assert all(json.loads(prompt) for prompt in calls["prompt"])


def test_labels_are_scored_on_contexts_that_the_labeller_did_not_see(
    materialized: Platform,
) -> None:
    shared = materialized.lake.query(
        "SELECT count(*) FROM contexts shown JOIN contexts held USING (site, fit, feature_id, "
        "document_id) WHERE shown.kind IN ('top', 'sampled', 'near_miss') AND held.kind IN "
        "('held_out', 'negative', 'hard_negative')"
    )
    assert shared.item() == 0


def test_the_chain_behind_a_judged_feature_has_its_effects(materialized: Platform) -> None:
    lake = materialized.lake
    site, fit, feature_id = lake.query(
        "SELECT site, fit, feature_id FROM features WHERE status = 'judged' ORDER BY ALL LIMIT 1"
    ).row(0)
    chain = why(lake, f"{site} | {fit} | {feature_id}")
    kinds = {step.kind for step in chain.sources}
    assert kinds >= {"label", "steering", "steering_summary", "judge_free_score", "ablation"}
    assert all(step.made and step.made.is_in_ledger for step in chain.sources)


def test_the_readmes_queries_run(materialized: Platform) -> None:
    queries = re.findall(r"```sql\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(queries) >= 5
    for query in queries:
        # The README asks about layers and concepts of the demo; the mini study has others.
        text = query.replace("layer = 25", "layer = 20").rstrip().rstrip(";")
        text = text.replace("f.concept = 'Monday'", "f.concept IS NOT NULL")
        frame = materialized.lake.query(text)
        assert frame.width > 1
        assert len(frame), query


def test_a_second_run_makes_nothing_and_says_so(materialized: Platform) -> None:
    lake = materialized.lake
    written = {t.name: lake.snapshot_of(t, {}) for t in DATA_TABLES}
    again = materialized.materialize()
    assert again.success
    assert {t.name: lake.snapshot_of(t, {}) for t in DATA_TABLES} == written
    decided = lake.query("SELECT * FROM run_ledger WHERE run_id = ?", [again.run_id])
    assert set(decided["decision"]) == {"reused"} and set(decided["reason"]) == {"nothing changed"}
    first = lake.query('SELECT DISTINCT asset, "partition" FROM run_ledger')
    assert len(decided) == len(first)
    assert decided["forward_tokens"].sum() == decided["llm_calls_made"].sum() == 0


def test_a_failing_partition_is_named_and_the_others_go_on(platform: Platform) -> None:
    write_study(
        platform.root / "studies",
        corpus={"path": "bundled:concepts", "max_documents": 4},
        fits=[{"method": "pca", "rank": 4}, {"method": "snmf", "rank": 4000}],
        labels={"max_features": 0},
        steering={"max_features": 0},
    )
    result = platform.materialize()
    assert not result.success
    message = str(result.all_events[-1]) + "".join(
        event.step_failure_data.error.message
        for event in result.all_events
        if event.is_step_failure
    )
    assert "1 of the study's partitions failed" in message
    assert "rank 4000" in message
    lake = platform.lake
    assert lake.query("SELECT DISTINCT fit FROM features")["fit"].to_list() == ["pca-k004"]


def test_a_layer_out_of_range_is_named_and_the_documents_stay(platform: Platform) -> None:
    write_study(
        platform.root / "studies",
        corpus={"path": "bundled:concepts", "max_documents": 4},
        models=[{"source": "smollm2-135m-instruct", "layers": [30]}],
    )
    result = platform.materialize()
    assert not result.success
    failures = [
        event.step_failure_data.error.message
        for event in result.all_events
        if event.is_step_failure
    ]
    assert any("layer 30" in failure for failure in failures), failures
    assert platform.lake.query("SELECT count(*) FROM documents").item() == 4


def test_runs_that_a_killed_process_left_are_ended(platform: Platform) -> None:
    write_study(
        platform.root / "studies",
        corpus={"path": "bundled:concepts", "max_documents": 4},
        models=[{"source": "smollm2-135m-instruct", "layers": [30]}],
    )
    job = platform.definitions().resolve_job_def("corpus_job")
    tags = {"featurelake/study": "mini", MAIN_RUN_TAG: "gone"}
    dead = platform.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    platform.materialize()
    ended = platform.instance.get_run_by_id(dead.run_id)
    assert ended is not None and ended.status == dg.DagsterRunStatus.FAILURE
