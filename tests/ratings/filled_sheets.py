"""Items of both kinds, and sheets of them that somebody filled in."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import polars as pl

from assets.ratings.draw import RATER, blind_sheet, draw_items, rating_columns
from assets.ratings.items import Kind, label_items, text_items
from assets.ratings.sheet_files import write_sheet
from tests.ratings.planted_ratings import CONTROLS, judged_texts, scored_labels


def texts() -> pl.DataFrame:
    return text_items(*judged_texts(), CONTROLS)


def labels() -> pl.DataFrame:
    return label_items(*scored_labels(), CONTROLS)


ITEMS_OF: dict[Kind, Callable[[], pl.DataFrame]] = {"texts": texts, "labels": labels}


def filled(items: pl.DataFrame, kind: Kind = "texts", n: int = 12, rater: str = "Ada") -> dict:
    """A sheet's columns as lists, every item rated."""
    sheet = blind_sheet(draw_items(items, kind, n, 0), kind).to_dict(as_series=False)
    draw = random.Random(rater)
    for name in rating_columns(kind):
        sheet[name] = [str(draw.randrange(3)) for _ in sheet["item"]]
    sheet[RATER] = [rater] * len(sheet["item"])
    return sheet


def written(sheet: dict, path: Path) -> Path:
    write_sheet(pl.DataFrame(sheet), path)
    return path
