"""The ablation asset on a lake: its rows and costs, and nothing made twice.

Every kind of site goes through it in test_every_method.py.
"""

from typing import Any

import dagster as dg
import polars as pl
import pytest
from mini_study import write_study
from only_fits import make_only_fits
from platform_of_test import Platform

from orchestration.recipes import tables_of
from resources.study_files import StudiesResource
from tests.tiny_study import LAYER, write_tiny_model

FITS = [
    {"method": "snmf", "rank": 4, "keep_fraction": 0.2, "max_iter": 10},
    {"method": "random", "rank": 3, "keep_fraction": 0.2},
]
ABLATION = {
    "max_features": 2,
    "max_features_controls": 1,
    "n_documents_on": 2,
    "n_documents_off": 2,
    "n_documents_concept": 2,
}


def write(platform: Platform, **ablation: Any) -> None:
    write_study(
        platform.root / "studies",
        corpus={"path": "words.jsonl"},
        models=[
            {
                "source": str(platform.root / "tiny"),
                "name": "tiny",
                "layers": [LAYER],
            }
        ],
        fits=FITS,
        ablation=ABLATION | ablation,
    )


def make(platform: Platform, asset: str) -> dict[str, dict[str, Any]]:
    """Materializes an asset for every fit; the metadata of its first table by partition."""
    (study,), _ = StudiesResource(folder=str(platform.root / "studies")).readable()
    tables = [table.name for table in tables_of(asset)]
    found = {}
    for site in study.sites():
        for fit in study.fits_at(site.kind):
            key = dg.MultiPartitionKey({"site": site.key, "fit": fit.key})
            result = (
                platform.definitions()
                .resolve_job_def("features_job")
                .execute_in_process(
                    instance=platform.instance,
                    partition_key=key,
                    asset_selection=[dg.AssetKey(name) for name in tables],
                )
            )
            assert result.success
            event = result.asset_materializations_for_node(asset)[0]
            found[str(key)] = {name: value.value for name, value in event.metadata.items()}
    return found


@pytest.mark.slow
def test_effects_reach_the_lake_and_a_rerun_runs_only_what_is_new(platform: Platform) -> None:
    write_tiny_model(platform.root, "llama")
    write(platform)
    make_only_fits(platform)
    make(platform, "vocab_projection")
    first = make(platform, "ablation")
    lake = platform.lake
    effects = lake.query("SELECT * FROM ablation_effects ORDER BY ALL")
    ok = effects.filter(status="ok")
    assert set(ok["fit"]) == {"snmf-k004", "random-k003"}
    assert set(effects.filter(pl.col("status") != "ok")["status"]) <= {"not_measured", "inactive"}
    assert ok["promoted_drop"].null_count() == 0
    assert set(ok["concept"]) <= {"high", "low"} and set(ok["n_documents_concept"]) == {2}
    assert len(ok.filter("is_null")) == len(ok.filter(~pl.col("is_null"))) > 0
    assert all(one["forward_tokens"] > 0 and one["rows_reused"] == 0 for one in first.values())
    spent = lake.query("SELECT sum(forward_tokens) FROM run_ledger WHERE asset = 'ablation'")
    assert spent.item() == sum(one["forward_tokens"] for one in first.values())

    again = make(platform, "ablation")
    assert all(one["reused"] for one in again.values())
    write(platform, min_direct_effect=0.02)
    pooled_anew = make(platform, "ablation")
    assert all(one["forward_tokens"] == 0 == one["rows_computed"] for one in pooled_anew.values())
    values = ("site", "fit", "feature_id", "ablation", "is_null", "delta_on", "direct_effect")
    same = lake.query("SELECT * FROM ablation_effects ORDER BY ALL").select(values)
    assert same.sort(values).equals(effects.select(values).sort(values))
