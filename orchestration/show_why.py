"""`make why FEATURE='<site> | <fit> | <id>'`: the chain behind a feature's label and scores.

FEATURE=<id> with SITE= and FIT= (a part of each is enough) does too, and the id alone where the
lake has one fit. AT= a snapshot or a time tells of the lake as it was then; JSON=1 gives the
same as JSON, with every fact. What the steps are: resources/lineage/feature.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

from rich.text import Text
from rich.tree import Tree

from orchestration.command_line import command_console, lake_that_is_there
from resources.lake import Lake
from resources.lake_tables import LakeError
from resources.lake_versions import find_version, parse_version
from resources.lineage.feature import lineage_of
from resources.lineage.feature_choice import FORM, UnknownFeatureError, find_feature
from resources.lineage.provenance import LakeAtVersion, Made
from resources.lineage.step import FeatureRows, Step
from resources.llm_cache import answer_times

LONGEST_LINE = 400


def main(variables: Mapping[str, str]) -> int:
    """Print the chain; exit status 2 where there is no such feature."""
    console = command_console()
    lake = lake_that_is_there(console)
    if lake is None:
        return 1
    if not variables.get("FEATURE"):
        console.print(f"no FEATURE given; {FORM}", style="red", markup=False)
        return 2
    try:
        chain = why(
            lake,
            variables["FEATURE"],
            site=variables.get("SITE"),
            fit=variables.get("FIT"),
            at=variables.get("AT"),
        )
    except (LakeError, UnknownFeatureError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    if variables.get("JSON"):
        sys.stdout.write(as_json(chain) + "\n")
    else:
        console.print(as_tree(chain))
    return 0


def why(
    lake: Lake,
    feature: str,
    *,
    site: str | None = None,
    fit: str | None = None,
    at: str | None = None,
) -> Step:
    """The chain behind a feature, as the lake is now or was at a version.

    Raises UnknownFeatureError and LakeError as find_feature and find_version do.
    """
    with closing(lake.connect()) as cursor:
        snapshot = find_version(cursor, parse_version(at) if at else None)
    at_version = LakeAtVersion(lake, snapshot)
    key = find_feature(at_version, feature, site, fit)
    return lineage_of(FeatureRows(at_version, key, partial(answer_times, lake.llm_cache_folder)))


def as_json(step: Step) -> str:
    """The chain with all its facts."""
    return json.dumps(asdict(step), default=_plain, ensure_ascii=False, indent=2)


def as_tree(step: Step) -> Tree:
    """The chain as a tree; each snapshot's provenance is told in full where it first comes up."""
    told: set[int | None] = set()

    def grow(tree: Tree, step: Step, said: Made | None) -> Tree:
        if step.made is not None and step.made != said:
            tree.add(Text(provenance_text(step.made, told), style="dim"))
        for source in step.sources:
            grow(tree.add(_label(source)), source, step.made or said)
        return tree

    return grow(Tree(_label(step)), step, None)


def _label(step: Step) -> Text:
    text = step.text if len(step.text) <= LONGEST_LINE else step.text[:LONGEST_LINE] + " …"
    return Text.assemble((step.kind.replace("_", " "), "bold"), " ", text)


def provenance_text(made: Made, told: set[int | None]) -> str:
    """How rows came to be, in one line; short for snapshots in `told`, to which it adds."""
    if made.snapshot is None:
        return f"{made.table} of {made.partition}: no rows, and not in the ledger"
    said = [f"{made.table}: snapshot {made.snapshot}"]
    if made.snapshot in told:
        return f"{said[0]}, see above"
    told.add(made.snapshot)
    if not made.is_snapshot_held:
        said.append("which was expired")
    if made.written_at is not None:
        said.append(f"{made.written_at:%Y-%m-%d %H:%M:%S} UTC")
    if made.is_in_ledger:
        said += [f"because: {made.reason}", f"code {made.code_version}"]
    else:
        said.append("not in the ledger")
    if made.fingerprint:
        said.append(f"fingerprint {made.fingerprint}")
    if made.run_id:
        said.append(f"run {made.run_id}")
    if made.last_considered_at is not None and made.last_decision != "computed":
        said.append(f"{made.last_decision} {made.last_considered_at:%Y-%m-%d %H:%M:%S} UTC")
    return ", ".join(said)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


if __name__ == "__main__":
    sys.exit(main(os.environ))
