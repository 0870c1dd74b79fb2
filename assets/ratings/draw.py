"""Which items a sheet asks about, in which order, and what of them a rater sees.

Half of the texts are to be steered by a feature, a quarter unsteered base texts and a quarter from
null controls; of labels three quarters are to be features' own and a quarter controls'. Items are
drawn and ordered by hashes of their names and the seed: the same lake and seed give the same sheet,
and nothing in the order tells a group. No column tells feature, method, sign or strength.

Every text (and every set of contexts) stands in a sheet at most once, whatever labels it was judged
by: base texts are shared by all features, so that a text that came again, under another label,
would be one of them; and of contexts seen twice, one label is a control's. So a group can be
smaller than its share: then the others fill up, and `drawn_groups` says how many each has.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from assets.ratings.items import ITEM, QUESTIONS, Kind
from assets.shared.hash_order import text_hashes

SHOWN: dict[Kind, tuple[str, ...]] = {
    "texts": ("item", "label", "prompt", "text"),
    "labels": ("item", "label", "text"),
}
RATER = "rater"
# Those that run short first: what one group takes, no other can show.
_SHARES: dict[Kind, dict[str, float]] = {
    "texts": {"base": 0.25, "control": 0.25, "steered": 0.5},
    "labels": {"control": 0.25, "own": 0.75},
}


@dataclass(frozen=True)
class DrawnGroup:
    """How many items of a group a sheet has, and how many its share would be."""

    group: str
    n_drawn: int
    n_wanted: int


def rating_columns(kind: Kind) -> tuple[str, ...]:
    """The columns that a rater fills in, but for `rater`."""
    return tuple(f"{question}_rating" for question in QUESTIONS[kind])


def draw_items(items: pl.DataFrame, kind: Kind, n: int, seed: int) -> pl.DataFrame:
    """ITEM columns of `n` items (fewer where there are not as many), in the sheet's order."""
    once = items.unique("item", keep="first", maintain_order=True)
    pool = once.select(
        "item",
        _group(kind).alias("group"),
        # What looks alike in a cell is alike.
        seen=pl.concat_str(pl.col("prompt").fill_null(""), "text", separator=" ")
        .str.replace_all(r"\s+", " ")
        .str.strip_chars(),
        drawn=_order(once["item"], seed, "draw"),
    )
    # By the text first: one that many labels were judged with is no likelier than another.
    pool = pool.with_columns(text_drawn=_order(pool["seen"], seed, "text"))
    pool = pool.sort("text_drawn", "drawn", "item")
    most = min(n, pool["seen"].n_unique())
    taken = pool.clear()
    for group, share in _SHARES[kind].items():
        taken = _with_more(taken, pool.filter(group=group), round(share * most))
    taken = _with_more(taken, pool, most - len(taken))
    chosen = once.join(taken.select("item"), on="item", how="semi")
    order = _order(chosen["item"], seed, "order")
    return chosen.with_columns(_place=order).sort("_place", "item").select(list(ITEM))


def drawn_groups(
    items: pl.DataFrame, drawn: pl.DataFrame, kind: Kind, n: int
) -> tuple[DrawnGroup, ...]:
    """What became of each group of a sheet of `n` items, by `drawn` of `items`."""
    of_drawn = items.unique("item").join(drawn.select("item"), on="item", how="semi")
    groups = of_drawn.select(_group(kind).alias("group"))["group"].to_list()
    return tuple(
        DrawnGroup(group, groups.count(group), round(share * n))
        for group, share in _SHARES[kind].items()
    )


def blind_sheet(drawn: pl.DataFrame, kind: Kind) -> pl.DataFrame:
    """What raters get: what is shown, and empty columns to fill in."""
    empty = [pl.lit(None, pl.Int64).alias(name) for name in rating_columns(kind)]
    return drawn.select(*SHOWN[kind], *empty, pl.lit(None, pl.String).alias(RATER))


def _group(kind: Kind) -> pl.Expr:
    real = pl.lit("own" if kind == "labels" else "steered")
    return (
        pl.when(pl.col("sign").eq_missing("0"))
        .then(pl.lit("base"))
        .when(pl.col("is_control"))
        .then(pl.lit("control"))
        .otherwise(real)
    )


def _with_more(taken: pl.DataFrame, candidates: pl.DataFrame, n: int) -> pl.DataFrame:
    """`taken` and up to `n` further rows, the first ones that show what no other row shows."""
    new = candidates.join(taken, on="seen", how="anti", maintain_order="left")
    return pl.concat([taken, new.unique("seen", keep="first", maintain_order=True).head(n)])


def _order(names: pl.Series, seed: int, purpose: str) -> pl.Series:
    return pl.Series(text_hashes(names.to_list(), seed, purpose), dtype=pl.UInt64)
