"""Keeps the dynamic partitions equal to what the studies name.

Keys are added for every study, site and fit, and removed when no study names them any more. Their
gold rows go with the study's next run (gold_view.py). A study whose file is gone has no next run:
its own key stays until its gold rows are out, as it alone says that they still have to go.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import dagster as dg
import filelock

from assets.partitions import FITS, SITES, STUDIES
from orchestration.dead_runs import end_dead_runs
from orchestration.gold_view import REASON, leave_gold_view, unnamed
from orchestration.study_lock import study_lock
from resources.lake import LakeResource
from resources.ledger import Ledger
from resources.study import Study
from resources.study_files import StudiesResource

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
    Keys of studies are removed by `forget_removed_studies` alone.
    """
    may_go = {str(SITES.name), str(FITS.name)} if may_remove else set()
    changes: Changes = {}
    for dimension, wanted in wanted_keys(studies).items():
        found = instance.get_dynamic_partitions(dimension)
        added = [key for key in wanted if key not in found]
        removed = [key for key in found if key not in wanted and dimension in may_go]
        if added:
            instance.add_dynamic_partitions(dimension, added)
        for key in removed:
            instance.delete_dynamic_partition(dimension, key)
        if added or removed:
            changes[dimension] = (added, removed)
    return changes


def removed_studies(instance: dg.DagsterInstance, studies: Sequence[Study]) -> list[str]:
    """Studies that this instance knows, and whose file is gone.

    Not all that are in the lake: others may be made from another folder of studies.
    """
    there = {study.name for study in studies}
    known = instance.get_dynamic_partitions(str(STUDIES.name))
    return [name for name in known if name not in there]


def forget_removed_studies(
    instance: dg.DagsterInstance, studies: StudiesResource, lake: LakeResource, run_id: str
) -> list[str]:
    """Take what removed studies have in the gold view out of it, then their keys; in words, what.

    The key goes last, so that whatever fails or is killed on the way is done by the next run or
    look. A study whose run still goes on stays until that has ended.
    """
    readable, problems = studies.readable()
    gone = [] if problems else removed_studies(instance, readable)
    words = []
    for name in gone:
        try:
            with study_lock(name, Path(lake.root)):
                ledger = Ledger(lake.open())
                for entry in unnamed(ledger.states(), readable, {name}):
                    n_rows = leave_gold_view(ledger, entry, run_id)
                    words.append(f"{entry.partition}: {n_rows} gold rows removed, {REASON}")
                instance.delete_dynamic_partition(str(STUDIES.name), name)
                words.append(f"study {name} forgotten, its file is gone")
        except filelock.Timeout:
            words.append(f"study {name}: its file is gone, and its run still goes on")
    return words


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
    words += [f"study left out: {problem}" for problem in problems]
    words += [f"run {run_id} had been killed" for run_id in end_dead_runs(context.instance)]
    words += forget_removed_studies(context.instance, studies, lake, "study_files")
    return dg.SkipReason("; ".join(words) or "partitions are those of the studies")
