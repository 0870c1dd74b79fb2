"""A study's corpus, activations and factorizations made, and no stage that comes after."""

from typing import Any

import dagster as dg
from platform_of_test import Platform

from orchestration.partition_sync import sync_partitions
from orchestration.recipes import tables_of
from resources.study_files import StudiesResource


def make_only_fits(platform: Platform) -> None:
    """The first three stages of the one study in the platform's folder."""
    studies, _ = StudiesResource(folder=str(platform.root / "studies")).readable()
    sync_partitions(platform.instance, studies, may_remove=False)
    definitions = platform.definitions()

    def run(job: str, key: Any, asset: str) -> None:
        result = definitions.resolve_job_def(job).execute_in_process(
            instance=platform.instance,
            partition_key=key,
            asset_selection=[dg.AssetKey(table.name) for table in tables_of(asset)],
        )
        assert result.success

    (study,) = studies
    run("corpus_job", study.name, "corpus")
    for site in study.sites():
        run("activations_job", site.key, "activations")
        for fit in study.fits_at(site.kind):
            key = dg.MultiPartitionKey({"site": site.key, "fit": fit.key})
            run("features_job", key, "factorization")
