"""`rank: auto` on a real model through Dagster, and what one more document then changes."""

import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from mini_study import write_study
from platform_of_test import Platform
from polars.testing import assert_frame_equal

from orchestration.partition_sync import sync_partitions
from resources.study_files import StudiesResource

pytestmark = pytest.mark.slow
SITE = "mini:smollm2-135m-instruct@L20.mlp_hidden"
PARTITION = dg.MultiPartitionKey({"site": SITE, "fit": "snmf-kauto"})
CANDIDATES = (4, 8, 16)
FIT = {
    "method": "snmf",
    "rank": "auto",
    "rank_candidates": list(CANDIDATES),
    "rank_seeds": 1,
    "stability_seeds": 1,
    "keep_fraction": 0.02,
    "max_iter": 30,
}
CONCEPTS = ("Monday", "red", "French", "sushi", "SQL", "football")
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
LATER = ("contexts", "vocab_projection", "bilinear_view", "features", "catalogue_changes")


def corpus() -> list[str]:
    """Lines of the bundled corpus of a few concepts, six of each."""
    bundled = Path(__file__).parents[2] / "assets" / "corpus" / "bundled" / "concepts.jsonl"
    lines = bundled.read_text().splitlines()
    chosen = [[line for line in lines if json.loads(line)["concept"] == c][:6] for c in CONCEPTS]
    return [line for of_concept in chosen for line in of_concept]


def materialize(platform: Platform, lines: list[str], *assets: str) -> None:
    """The study with this corpus, as far as `assets`."""
    studies = platform.root / "studies"
    (studies / "sentences.jsonl").write_text("\n".join(lines))
    write_study(
        studies,
        corpus={"path": "sentences.jsonl"},
        # A document a batch: its rows then do not depend on the documents beside it.
        activations={"max_tokens_per_document": 48, "batch_tokens": 1},
        fits=[FIT],
    )
    readable, problems = StudiesResource(folder=str(studies)).readable()
    assert not problems
    sync_partitions(platform.instance, readable, may_remove=False)
    selected = [dg.AssetKey(name) for name in assets]
    for job, key, selection in (
        ("corpus_job", "mini", None),
        ("activations_job", SITE, None),
        ("features_job", PARTITION, selected),
    ):
        result = (
            platform.definitions()
            .resolve_job_def(job)
            .execute_in_process(
                instance=platform.instance, partition_key=key, asset_selection=selection
            )
        )
        assert result.success


def test_a_rank_is_chosen_carried_on_and_kept_when_a_document_is_added(platform: Platform) -> None:
    lake = platform.lake
    materialize(platform, corpus()[:-1], *FACTORIZATION, *LATER)
    choices = lake.query("SELECT * FROM rank_choices ORDER BY rank")
    assert choices["rank"].to_list() == list(CANDIDATES)
    assert set(choices["status"]) <= {"ok", "overfits"}
    for column in ("held_out_explained_variance", "stability", "n_reproduced", "distance"):
        assert choices[column].null_count() == 0, column
    (chosen,) = choices.filter("is_chosen").rows(named=True)
    usable = choices.filter(status="ok")
    assert chosen["distance"] == usable["distance"].min()
    fit = lake.query("SELECT * FROM factorizations").row(0, named=True)
    k = chosen["rank"]
    assert (fit["status"], fit["start"], fit["rank"], fit["n_features"]) == ("ok", "cold", k, k)
    stability = lake.query("SELECT * FROM feature_stability")
    assert set(stability["feature_id"]) == set(fit["feature_ids"])
    assert stability["mean_cosine"].is_between(-1, 1).all()
    assert fit["stability"] == pytest.approx(stability["mean_cosine"].mean())
    features = lake.query("SELECT * FROM features")
    assert set(features["feature_id"]) == set(fit["feature_ids"])
    shown = set(lake.query("SELECT DISTINCT feature_id FROM contexts")["feature_id"])
    assert shown == set(lake.query("SELECT DISTINCT feature_id FROM coefficients")["feature_id"])

    names = ("dictionary", "coefficients", "rank_choices", "feature_stability", "tokens")
    before = {name: lake.query(f"SELECT * FROM {name}") for name in names}
    materialize(platform, corpus(), *FACTORIZATION)
    after = {name: lake.query(f"SELECT * FROM {name}") for name in names}
    now = lake.query("SELECT * FROM factorizations").row(0, named=True)
    assert (now["start"], now["feature_ids"]) == ("projected", fit["feature_ids"])
    assert 0 < now["n_tokens_changed"] == now["n_tokens"] - fit["n_tokens"]
    assert (now["n_tokens_fit"], now["stability"]) == (fit["n_tokens_fit"], fit["stability"])
    for name in ("dictionary", "rank_choices", "feature_stability"):
        assert_frame_equal(after[name], before[name], check_row_order=False)
    place = ("document_id", "position")
    old, new = (
        frames["coefficients"]
        .join(frames["tokens"].select("row", *place), on="row")
        .drop("row", "site", "fit")
        for frames in (before, after)
    )
    kept = new.filter(pl.col("document_id").is_in(old["document_id"].unique().implode()))
    assert_frame_equal(kept, old, check_row_order=False)
    assert len(new) > len(kept) > 0
