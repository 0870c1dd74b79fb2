"""The code location: assets, jobs, schedules, sensor and resources put together.

`build_definitions(overrides)` makes the definitions with other resources or folders (tests do);
the module-level `defs` is what `workspace.yaml` loads.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.ablation.definitions import ablation_assets
from assets.activations.definitions import activation_assets
from assets.catalogue.definitions import catalogue_assets
from assets.comparison.definitions import comparison_assets
from assets.corpus.definitions import corpus_assets
from assets.detection.definitions import detection_assets
from assets.evidence.definitions import evidence_assets
from assets.factorization.definitions import factorization_assets
from assets.faithfulness.definitions import faithfulness_assets
from assets.hierarchy.definitions import hierarchy_assets
from assets.labels.definitions import labels_assets
from assets.ratings.definitions import ratings_assets
from assets.steering.definitions import steering_assets
from orchestration.changed_nights import changed_nights_sensor
from orchestration.checks import catalogue_checks
from orchestration.console import console_logger
from orchestration.folders import default_resources
from orchestration.jobs import STAGE_JOBS, build_main_job
from orchestration.maintenance import maintenance_job, weekly_maintenance
from orchestration.partition_sync import study_files
from orchestration.pool_waits import mend_pools
from orchestration.schedules import nightly_schedules
from orchestration.staleness import staleness, up_to_date, up_to_date_job

ASSETS = [
    corpus_assets,
    activation_assets,
    factorization_assets,
    faithfulness_assets,
    *evidence_assets,
    labels_assets,
    detection_assets,
    *steering_assets,
    ablation_assets,
    *hierarchy_assets,
    catalogue_assets,
    comparison_assets,
    ratings_assets,
]


def build_definitions(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions, with `overrides` in place of the default resources of the same name.

    A study file that is wrong is left out and logged, so that it doesn't take the others down.
    Raises KeyError for an unknown resource.
    """
    mend_pools()
    resources = default_resources()
    unknown = set(overrides or {}) - set(resources)
    if unknown:
        raise KeyError(f"unknown resources {sorted(unknown)}; there are {sorted(resources)}")
    resources.update(overrides or {})
    studies, problems = resources["studies"].readable()
    for problem in problems:
        logging.getLogger(__name__).error("study left out: %s", problem)
    main_job = build_main_job(lambda name: definitions.resolve_job_def(name))
    definitions = dg.Definitions(
        assets=ASSETS,
        asset_checks=[*catalogue_checks, up_to_date],
        jobs=[*STAGE_JOBS, main_job, maintenance_job, up_to_date_job],
        schedules=[*nightly_schedules(studies, main_job), weekly_maintenance],
        sensors=[study_files, changed_nights_sensor(studies, main_job), staleness],
        resources=resources,
        loggers={"console": console_logger},
        executor=dg.in_process_executor,
    )
    return definitions


defs = build_definitions()
