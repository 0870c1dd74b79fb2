"""`make rating-sheet OUT=sheet.csv`: a blind sheet of texts or labels for people to rate.

STUDY= names the study, N= how many items, KIND=texts (does the text show the label, is it fluent)
or labels (does the label fit the contexts), SEED= another draw. OUT ends in .csv or .parquet. What
the items stand for is kept in the study's folder of ratings; `make ratings FILE=…` takes the
filled-in sheet back. How items are drawn: assets/ratings/draw.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

import polars as pl

from assets.evidence.tables import CONTEXTS
from assets.labels.tables import LABEL_SCORES, LLM_CALLS
from assets.ratings.draw import (
    DrawnGroup,
    blind_sheet,
    draw_items,
    drawn_groups,
    rating_columns,
)
from assets.ratings.folder import keep_key, ratings_folder
from assets.ratings.items import Kind, label_items, text_items
from assets.ratings.sheet_files import SheetError, check_suffix, write_sheet
from assets.shared.schema import Table
from assets.steering.tables import STEERED_TEXTS, STEERING_SCORES
from orchestration.command_line import command_console
from orchestration.folders import default_resources
from resources.lake import Lake
from resources.lake_tables import LakeError
from resources.study import Study
from resources.study_files import StudyError

DEFAULTS = {"STUDY": "demo", "N": "40", "SEED": "0", "KIND": "texts"}
_GROUP_NAMES = {
    "steered": "steered",
    "own": "with the feature's own label",
    "base": "unsteered",
    "control": "of controls",
}


def main(variables: Mapping[str, str]) -> int:
    """Write the sheet and its key; exit status 2 where that cannot be done."""
    console = command_console()
    chosen = DEFAULTS | {name: value for name, value in variables.items() if value}
    try:
        groups, kind = make_sheet(chosen)
    except (SheetError, StudyError, LakeError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    n_items = sum(group.n_drawn for group in groups)
    console.print(
        f"{chosen['OUT']}: {n_items} items to rate in {', '.join(rating_columns(kind))} by 0 (no), "
        f"1 (partly) or 2 (yes), with your name in rater.\n{_shares_said(groups, kind)}\n"
        f"Then: make ratings "
        f"STUDY={chosen['STUDY']} FILE={chosen['OUT']}",
        markup=False,
        highlight=False,
    )
    return 0


def _shares_said(groups: Sequence[DrawnGroup], kind: Kind) -> str:
    """How many items of each group there are, and where they are fewer than the share wanted."""
    said = ", ".join(
        f"{one.n_drawn} {_GROUP_NAMES[one.group]}"
        + f" (of {one.n_wanted} wanted)" * (one.n_drawn < one.n_wanted)
        for one in groups
    )
    if all(one.n_drawn >= one.n_wanted for one in groups):
        return f"Of these {said}."
    what = "text" if kind == "texts" else "set of contexts"
    return f"Of these {said}: no {what} is asked twice, and there are no more different ones."


def make_sheet(chosen: Mapping[str, str]) -> tuple[tuple[DrawnGroup, ...], Kind]:
    """Groups of items and kind of the sheet that was written to OUT.

    Raises SheetError where an option is wrong, OUT is there already, or there is nothing to rate.
    """
    resources = default_resources()
    if not chosen.get("OUT"):
        raise SheetError("no OUT given; name the sheet's file: make rating-sheet OUT=sheet.csv")
    out = Path(chosen["OUT"])
    check_suffix(out)
    if out.exists():
        raise SheetError(f"{out} is there already, perhaps with ratings; name another file by OUT")
    if chosen["KIND"] not in get_args(Kind):
        raise SheetError(f"KIND is {chosen['KIND']!r}; expected {' or '.join(get_args(Kind))}")
    kind = cast(Kind, chosen["KIND"])
    n, seed = (_whole_number(chosen, name) for name in ("N", "SEED"))
    study = resources["studies"].study(chosen["STUDY"])
    lake = resources["lake"].open()
    if not (lake.root / "catalog.sqlite").exists():
        raise SheetError(f"there is no lake in {lake.root} yet; make run STUDY={study.name}")
    items = items_of(lake, study, kind)
    drawn = draw_items(items, kind, n, seed)
    if drawn.is_empty():
        raise SheetError(
            f"study {study.name!r} has no judged {kind} to rate; run it first: "
            f"make run STUDY={study.name}"
        )
    # Without the key a sheet is worth nothing: it goes first.
    folder = ratings_folder(Path(resources["studies"].folder), study.name)
    keep_key(folder, items.filter(pl.col("item").is_in(drawn["item"].implode())))
    write_sheet(blind_sheet(drawn, kind), out)
    return drawn_groups(items, drawn, kind, n), kind


def items_of(lake: Lake, study: Study, kind: Kind) -> pl.DataFrame:
    """Everything of a study that can be rated, as the lake is now."""
    controls = {fit.key for fit in study.fits if fit.is_control}
    if kind == "labels":
        return label_items(_rows(lake, study, LABEL_SCORES), _rows(lake, study, CONTEXTS), controls)
    calls = _rows(lake, study, LLM_CALLS).filter(stage="steering")
    return text_items(
        _rows(lake, study, STEERED_TEXTS),
        _rows(lake, study, STEERING_SCORES),
        calls.select("request_hash", "llm_model"),
        controls,
    )


def _rows(lake: Lake, study: Study, table: Table) -> pl.DataFrame:
    """The table's rows of all sites and fits that the study names now, in key order."""
    lake.ensure_tables([table])
    pairs = [(site.key, fit.key) for site in study.sites() for fit in study.fits_at(site.kind)]
    return lake.query(
        f'SELECT * FROM "{table.name}" WHERE (site, fit) IN (SELECT unnest($sites), unnest($fits)) '
        f"ORDER BY {', '.join(table.key)}",
        {"sites": [site for site, _ in pairs], "fits": [fit for _, fit in pairs]},
    )


def _whole_number(chosen: Mapping[str, str], name: str) -> int:
    value = chosen[name]
    if not value.isdecimal() or (name == "N" and int(value) == 0):
        raise SheetError(f"{name} is {value!r}; expected a whole number such as {DEFAULTS[name]}")
    return int(value)


if __name__ == "__main__":
    sys.exit(main(os.environ))
