"""Core and exclusive neurons of a group of features: what all share, what only one has.

For members z_1 … z_m (dictionary rows, on their strongest neurons) and a neuron i:

- core: at least `core_share` of the members (and two) use i with one and the same sign;
- exclusive to member j: z_j uses i and no other member does.

The core direction is the part of the members' mean on core neurons; the exclusive direction of j
is the part of z_j on its exclusive neurons. Shafran, Geiger and Geva (2025), section 6, who
find that neurons shared by weekday features raise all weekdays and exclusive ones their own.
What the directions do to the model is group_steering.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.factorization.sparse_rows import keep_largest, support_size
from assets.hierarchy.group_tables import NEURON_GROUPS

CORE, EXCLUSIVE = "core", "exclusive"


def member_rows(
    dictionary: Float[Tensor, "k d"],
    feature_ids: Sequence[int],
    chosen: Sequence[int],
    keep_fraction: float,
) -> Float[Tensor, "m d"]:
    """The rows of the features `chosen` on their strongest neurons, a share of the width.

    `feature_ids` name the dictionary's rows.
    """
    place = {feature_id: row for row, feature_id in enumerate(feature_ids)}
    rows = dictionary[[place[feature_id] for feature_id in chosen]]
    return keep_largest(rows, support_size(keep_fraction, dictionary.shape[1]))


@dataclass(frozen=True)
class NeuronRoles:
    """Which neurons are core, and which are exclusive to each member."""

    is_core: Bool[Tensor, " d"]
    is_exclusive: Bool[Tensor, "m d"]


def neuron_roles(members: Float[Tensor, "m d"], core_share: float) -> NeuronRoles:
    """The roles of every neuron for the members' dictionary rows."""
    users = (members != 0).sum(dim=0)
    same_sign = torch.maximum((members > 0).sum(dim=0), (members < 0).sum(dim=0))
    # The tolerance keeps a share such as 0.7 of 10 from asking for 8.
    needed = max(2, math.ceil(core_share * len(members) - 1e-9))
    return NeuronRoles(
        is_core=same_sign >= needed, is_exclusive=(members != 0) & (users == 1)[None, :]
    )


def core_direction(members: Float[Tensor, "m d"], roles: NeuronRoles) -> Float[Tensor, " d"]:
    """The members' mean on the core neurons; not of unit norm, zero without core neurons."""
    return members.sum(dim=0) / max(1, len(members)) * roles.is_core


def exclusive_directions(members: Float[Tensor, "m d"], roles: NeuronRoles) -> Float[Tensor, "m d"]:
    """Each member on its exclusive neurons; not of unit norm, zero rows where there are none."""
    return members * roles.is_exclusive


def neuron_groups_frame(
    group_name: str,
    concepts: Sequence[str],
    feature_ids: Sequence[int],
    members: Float[Tensor, "m d"],
    core_share: float,
) -> pl.DataFrame:
    """Rows of `neuron_groups` of one group: a member and a neuron of it that has a role."""
    roles = neuron_roles(members, core_share)
    users = (members != 0).sum(dim=0)
    rows = []
    for role, has_role in (
        (CORE, (members != 0) & roles.is_core[None, :]),
        (EXCLUSIVE, roles.is_exclusive),
    ):
        for member, neuron in has_role.nonzero().tolist():
            rows.append(
                {
                    "group_name": group_name,
                    "feature_id": feature_ids[member],
                    "concept": concepts[member],
                    "neuron": neuron,
                    "role": role,
                    "weight": float(members[member, neuron]),
                    "n_users": int(users[neuron]),
                    "n_members": len(members),
                }
            )
    schema = NEURON_GROUPS.empty().drop(NEURON_GROUPS.partition_by).schema
    return pl.DataFrame(rows, schema=schema)
