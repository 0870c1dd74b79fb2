"""The members of each group as rows of the fit's dictionary, and their neurons with a role.

Goes from the stored rows of `group_members` on. Which features are members is group_members.py,
which neurons are core or exclusive core_neurons.py, what is steered by them group_plan.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl
from jaxtyping import Float
from torch import Tensor

from assets.hierarchy.config import HierarchyConfig
from assets.hierarchy.core_neurons import member_rows, neuron_groups_frame
from assets.hierarchy.group_members import members_of
from assets.hierarchy.group_tables import NEURON_GROUPS


@dataclass(frozen=True, eq=False)
class GroupRows:
    """A group's members that have a feature: concept, feature id and dictionary row of each."""

    name: str
    concepts: list[str]
    feature_ids: list[int]
    rows: Float[Tensor, "m d"]


def group_rows(
    names: Iterable[str],
    members: pl.DataFrame,
    dictionary: Float[Tensor, "k d"],
    feature_ids: Sequence[int],
    config: HierarchyConfig,
) -> list[GroupRows]:
    """The groups of these names, each member on its strongest neurons.

    `members` are rows of `group_members`; `feature_ids` name the dictionary's rows; the settings
    say what share of the width a member keeps.
    """
    groups = []
    for name in names:
        concepts, ids = members_of(members, name)
        rows = member_rows(dictionary, feature_ids, ids, config.member_keep_fraction)
        groups.append(GroupRows(name, concepts, ids, rows))
    return groups


def neuron_groups(groups: Iterable[GroupRows], core_share: float) -> pl.DataFrame:
    """Rows of `neuron_groups` of all groups: a member and a neuron of it that has a role."""
    return pl.concat(
        [
            NEURON_GROUPS.empty().drop(NEURON_GROUPS.partition_by),
            *(
                neuron_groups_frame(one.name, one.concepts, one.feature_ids, one.rows, core_share)
                for one in groups
            ),
        ]
    )
