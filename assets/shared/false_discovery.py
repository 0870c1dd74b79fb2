"""False discovery rate over a family of tests: q-values by Benjamini and Hochberg (1995).

    q(i) = min over j ≥ i of  m p(j) / j     p(1) ≤ … ≤ p(m), the family's p-values in order

Calling significant what has q ≤ α keeps the expected share of false ones among those called at most
α, for p-values that are independent or positively dependent (Benjamini and Yekutieli 2001). Tests
without a p-value are no members of the family. What makes a family is for callers to say.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from scipy.stats import false_discovery_control


def q_values(p_values: Sequence[float | None]) -> list[float | None]:
    """The q-value of each p-value, in their order; None where there is no p-value.

    Raises ValueError for a p-value that is NaN or outside 0 to 1.
    """
    known = [p for p in p_values if p is not None]
    wrong = [p for p in known if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"found p-values {wrong[:3]}; expected 0 to 1, None where there is none")
    controlled = iter(false_discovery_control(known, method="bh").tolist() if known else [])
    return [None if p is None else next(controlled) for p in p_values]


def with_q_values(
    frame: pl.DataFrame, family: Sequence[str] = (), *, p: str = "p_value", q: str = "q_value"
) -> pl.DataFrame:
    """`frame` with column `q` made of column `p`, rows that share the columns `family` together."""
    numbered = frame.drop(q, strict=False).with_row_index("row_of_frame")
    groups = numbered.partition_by(family, maintain_order=True) if family else [numbered]
    controlled = [
        group.with_columns(pl.Series(q, q_values(group[p].to_list()), dtype=pl.Float64))
        for group in groups
    ]
    if not controlled:
        return frame.with_columns(pl.lit(None, pl.Float64).alias(q))
    columns = frame.columns if q in frame.columns else [*frame.columns, q]
    return pl.concat(controlled).sort("row_of_frame").select(columns)
