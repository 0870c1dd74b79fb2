"""Keeps the dynamic partitions equal to what the studies name.

Keys are added for every study, site and fit, and removed when no study names them any more. Their
gold rows go with the study's next run, or at once where the study is gone (gold_view.py).
"""

from collections.abc import Sequence
from typing import TypeAlias

import dagster as dg

from assets.partitions import FITS, SITES, STUDIES
from orchestration.dead_runs import end_dead_runs
from orchestration.gold_view import leave_gold_view, unnamed
from resources.lake import LakeResource
from resources.ledger import Ledger
from resources.study import StudiesResource, Study

# Dimension → keys added and keys removed.
Changes: TypeAlias = dict[str, tuple[list[str], list[str]]]


def wanted_keys(studies: Sequence[Study]) -> dict[str, list[str]]:
    """Partition keys by dimension (study, site, fit) that the studies ask for, in their order."""
    return {
        str(STUDIES.name): [study.name for study in studies],
        str(SITES.name): [site.key for study in studies for site in study.sites()],
        str(FITS.name): list(dict.fromkeys(fit.key for study in studies for fit in study.fits)),
    }


def sync_partitions(
    instance: dg.DagsterInstance, studies: Sequence[Study], *, may_remove: bool = True
) -> Changes:
    """Make the instance's keys those of the studies; per dimension what was added and removed.

    With a study file that can't be read nothing is to be removed: its keys may be among them.
    """
    changes: Changes = {}
    for dimension, wanted in wanted_keys(studies).items():
        found = instance.get_dynamic_partitions(dimension)
        added = [key for key in wanted if key not in found]
        removed = [key for key in found if key not in wanted] if may_remove else []
        if added:
            instance.add_dynamic_partitions(dimension, added)
        for key in removed:
            instance.delete_dynamic_partition(dimension, key)
        if added or removed:
            changes[dimension] = (added, removed)
    return changes


def removed_studies(changes: Changes) -> list[str]:
    """Studies that this instance knew, and whose file is gone.

    Not all that are in the lake: others may be made from another folder of studies.
    """
    return changes.get(str(STUDIES.name), ([], []))[1]


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reads the study files and keeps the partitions equal to what they name; ends "
    "runs whose process was killed.",
)
def study_files(
    context: dg.SensorEvaluationContext, studies: StudiesResource, lake: LakeResource
) -> dg.SkipReason | dg.SensorResult:
    readable, problems = studies.readable()
    changes = sync_partitions(context.instance, readable, may_remove=not problems)
    words = [
        f"{dimension}: +{len(added)} −{len(removed)}"
        for dimension, (added, removed) in changes.items()
    ]
    if gone := removed_studies(changes):
        ledger = Ledger(lake.open())
        for entry in unnamed(ledger.states(), readable, gone):
            n_rows = leave_gold_view(ledger, entry, "study_files")
            words.append(f"{entry.partition}: {n_rows} gold rows removed")
    words += [f"study left out: {problem}" for problem in problems]
    words += [f"run {run_id} had been killed" for run_id in end_dead_runs(context.instance)]
    return dg.SkipReason("; ".join(words) or "partitions are those of the studies")
