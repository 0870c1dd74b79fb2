"""`make demo` and `make run STUDY=…`: the main job from a terminal, then its results in a table.

It launches the same job on the same Dagster instance as the UI, so the runs, materializations
and lineage are there when the UI opens.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import filelock
from rich.console import Console
from rich.table import Table as RichTable

from assets.catalogue.tables import FEATURES
from orchestration.command_line import command_console
from orchestration.definitions import defs
from orchestration.folders import default_resources
from orchestration.run_tags import IN_UI_TAGS, MAIN_JOB, STUDY_TAG
from orchestration.schedules import run_config
from resources.lake import Lake
from resources.study import Study
from resources.study_files import StudyError

N_SHOWN = 15
NEXT_QUERY = "SELECT feature_id, label, steering_gain FROM features ORDER BY 3 DESC LIMIT 10"
NUMBERS = ("AUROC", "steering", "over base")
BEST_FEATURES = """
    SELECT site, fit, feature_id, coalesce(label, '–') AS label, top_tokens, concept,
           concept_auroc, steering_score, steering_gain, status
    FROM features
    WHERE (site, fit) IN (SELECT unnest($sites), unnest($fits)) AND NOT is_control
    ORDER BY (status = 'judged') DESC, steering_gain DESC NULLS LAST, concept_auroc DESC NULLS LAST
    LIMIT $n
"""
CONTROL_MEANS = """
    SELECT method, is_control, count(*) AS n_features,
           avg(concept_auroc) AS concept_auroc, count(concept_auroc) AS n_auroc,
           avg(steering_score) AS steering_score, count(steering_score) AS n_steered,
           avg(steering_gain) AS steering_gain
    FROM features WHERE (site, fit) IN (SELECT unnest($sites), unnest($fits))
    GROUP BY ALL ORDER BY is_control, method
"""


STATUS_COUNTS = """
    SELECT status, count(*) AS n FROM features
    WHERE (site, fit) IN (SELECT unnest($sites), unnest($fits)) GROUP BY ALL ORDER BY ALL
"""
CALL_COSTS = """
    SELECT count(*) FILTER (status = 'failed'), count(*), coalesce(sum(usd), 0),
           count(*) FILTER (status = 'ok' AND NOT was_reused AND usd IS NULL)
    FROM llm_calls WHERE (site, fit) IN (SELECT unnest($sites), unnest($fits))
"""


def main(arguments: list[str]) -> int:
    """Run the study named by the one argument; exit status 0 when every partition succeeded."""
    console = command_console()
    if len(arguments) != 1:
        console.print("usage: python -m orchestration.run_study STUDY")
        return 2
    name = arguments[0]
    resources = default_resources()
    try:
        study = resources["studies"].study(name)
        limits = limits_of_run(os.environ)
        instance = open_instance()
    except StudyError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    started = time.monotonic()
    result = defs.resolve_job_def(MAIN_JOB).execute_in_process(
        instance=instance,
        run_config={**run_config(name, limits=limits), "loggers": {"console": {"config": {}}}},
        tags={**IN_UI_TAGS, STUDY_TAG: name},
        raise_on_error=False,
    )
    lake = resources["lake"].open()
    if FEATURES.name in lake.table_names() and lake.count(FEATURES):
        show_features(console, lake, study)
    seconds = f"in {time.monotonic() - started:.0f} s"
    if result.success:
        console.print(f"\n{name}: [green]done[/green] {seconds}")
    else:
        said = "rows of what failed are from earlier runs"
        console.print(f"\n{name}: [red]failed[/red] {seconds}; {said}")
        console.print(why_it_failed(result), style="red", markup=False)
    show_next_steps(console)
    return 0 if result.success else 1


def limits_of_run(variables: Mapping[str, str]) -> dict[str, float]:
    """What the run may cost, from LLM_CALLS=, USD= and MINUTES= where they are given; RETRY=1."""
    limits: dict[str, float] = {}
    for name, read in (("llm_calls", int), ("usd", float), ("minutes", float)):
        given = variables.get(name.upper(), "")
        if not given:
            continue
        try:
            limits[name] = read(given)
        except ValueError:
            limits[name] = -1
        if limits[name] < 0:
            what = "a whole number" if read is int else "a number"
            raise StudyError(f"{name.upper()}={given} found; expected {what}, 0 or more")
    if variables.get("RETRY") == "1":
        limits["retry"] = True
    return limits


def why_it_failed(result: dg.ExecuteInProcessResult) -> str:
    """What the main run's own step said: which partitions failed, or why none was begun."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            return (error.cause or error).message.strip()
    return "the log above, and the run's page in the UI, say why"


def open_instance() -> dg.DagsterInstance:
    """The Dagster instance of DAGSTER_HOME.

    Two processes that make its SQLite files at once fail, so the first opening is locked.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise StudyError("DAGSTER_HOME is not set; `make demo` and `make run STUDY=…` set it")
    Path(home).mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(Path(home) / "first_opening.lock"):
        instance = dg.DagsterInstance.get()
        instance.get_runs(limit=1)
        instance.get_asset_keys(limit=1)
        instance.all_instigator_state()
    return instance


def show_features(console: Console, lake: Lake, study: Study) -> None:
    """The best features, and the means over each method beside its null controls.

    Only of the sites and fits that the study names now; rows of earlier ones stay in the lake.
    """
    pairs = [(site.key, f.key) for site in study.sites() for f in study.fits_at(site.kind)]
    keys = {"sites": [site for site, _ in pairs], "fits": [fit for _, fit in pairs]}
    table = RichTable(title=f"Best features of study {study.name}", show_lines=False)
    for heading in (
        "feature",
        "label",
        "evidence tokens",
        "concept",
        "AUROC",
        "steering",
        "over base",
        "status",
    ):
        table.add_column(heading, overflow="fold", no_wrap=heading in NUMBERS)
    for row in lake.query(BEST_FEATURES, {**keys, "n": N_SHOWN}).to_dicts():
        site = row["site"].rpartition("@")[2].removesuffix(".mlp_hidden")
        table.add_row(
            f"{site} {row['fit']} #{row['feature_id']}",
            row["label"],
            ", ".join((row["top_tokens"] or [])[:5]),
            row["concept"] or "–",
            _number(row["concept_auroc"]),
            _number(row["steering_score"]),
            _number(row["steering_gain"], sign=True),
            row["status"],
        )
    console.print(table)
    means = RichTable(title="Means over features, beside the null controls")
    for heading in (
        "method",
        "features",
        "concept AUROC (n)",
        "steering score 0–2 (n)",
        "over base",
    ):
        means.add_column(heading)
    for row in lake.query(CONTROL_MEANS, keys).to_dicts():
        means.add_row(
            row["method"] + (" (control)" if row["is_control"] else ""),
            str(row["n_features"]),
            f"{_number(row['concept_auroc'])} ({row['n_auroc']})",
            f"{_number(row['steering_score'])} ({row['n_steered']})",
            _number(row["steering_gain"], sign=True),
        )
    console.print(means)
    console.print(
        "Over base: the score minus that of unsteered texts. The best of several settings is taken,"
        "\nwhich lifts controls too: only what exceeds theirs counts."
    )
    left = lake.query(STATUS_COUNTS, keys)
    console.print("features by status: " + ", ".join(f"{s} {n}" for s, n in left.iter_rows()))
    n_failed, n_calls, usd, n_unpriced = lake.query(CALL_COSTS, keys).row(0)
    cost = "unknown (set the prices in the study's llm)" if n_unpriced else f"{usd:.4f} USD"
    console.print(f"LLM calls: {n_calls}, of which failed {n_failed}; cost of this run {cost}")


def show_next_steps(console: Console) -> None:
    console.print(
        "\nNext:\n"
        "  make ui                                  assets, runs, plots and lineage\n"
        "  make sql                                 a DuckDB shell with the lake attached\n"
        f'  make sql Q="{NEXT_QUERY}"',
        highlight=False,
        markup=False,
    )


def _number(value: float | None, *, sign: bool = False) -> str:
    return "–" if value is None else f"{value:+.2f}" if sign else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
