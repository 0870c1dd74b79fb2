"""Groups of concepts, and the feature of each concept: the one that tells it best from the rest.

A group is a list of concepts of the corpus (the seven weekdays), or all concepts of one parent
concept. Its members are found together: each concept gets a feature of its own, so that the sum of
the AUROCs over the group is the largest there is (assignment problem). As in the detection room
they are chosen on one half of the documents and measured on the other. What the members' neurons
have in common is core_neurons.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from assets.corpus.halves import split_in_halves
from assets.detection.concept_statistics import auroc_matrix
from assets.hierarchy.group_tables import GROUP_MEMBERS


@dataclass(frozen=True)
class ConceptGroup:
    """A named group; `is_steered`: the study names it, so it is steered with."""

    name: str
    concepts: tuple[str, ...]
    is_steered: bool


def concept_groups(
    named: Mapping[str, Sequence[str]], parent_of: Mapping[str, str | None]
) -> list[ConceptGroup]:
    """The study's groups, then every parent concept with two concepts or more.

    `named` maps names to concepts, an empty list standing for the concepts of the parent concept
    of that name; `parent_of` maps the corpus's concepts to their parents. A listed concept that the
    corpus lacks stays, and gets no feature. Raises ValueError where a named group lists one
    concept only, or where an empty list names no parent concept of two or more.
    """
    children: dict[str, list[str]] = {}
    for concept in sorted(parent_of):
        parent = parent_of[concept]
        if parent is not None:
            children.setdefault(parent, []).append(concept)
    groups = []
    for name, concepts in named.items():
        chosen = tuple(concepts) or tuple(children.get(name, ()))
        if len(set(chosen)) < 2:
            raise ValueError(
                f"hierarchy.groups.{name}: found the concepts {list(chosen)}; expected two or more "
                f"of {', '.join(sorted(parent_of)) or 'none'}, or an empty list for a parent "
                f"concept: {', '.join(sorted(children)) or 'none'}"
            )
        groups.append(ConceptGroup(name, chosen, is_steered=True))
    for name, found in children.items():
        if name not in named and len(found) > 1:
            groups.append(ConceptGroup(name, tuple(found), is_steered=False))
    return groups


def group_members_frame(
    groups: Sequence[ConceptGroup],
    scores: Float[np.ndarray, "n_documents k"],
    concepts: Sequence[str | None],
    feature_ids: Sequence[int],
    seed: int,
) -> pl.DataFrame:
    """Rows of `group_members`: one a group and concept, with its feature or why it has none.

    `scores` are the documents' max_cosine_scores (NaN where there is none), `concepts` theirs, in
    one order; `seed` splits the halves as detection does.
    """
    to_choose = split_in_halves(concepts, seed)
    of_concept = np.array(["" if concept is None else concept for concept in concepts], dtype=str)
    has_score = np.isfinite(scores).any(axis=1)
    live = np.flatnonzero(np.isfinite(scores[has_score]).all(axis=0)) if has_score.any() else []
    names = sorted({concept for group in groups for concept in group.concepts})
    membership = of_concept[:, None] == np.array(names, dtype=str)[None, :]
    halves = [has_score & to_choose, has_score & ~to_choose]
    aurocs = [
        auroc_matrix(scores[half][:, live], membership[half]).T if len(live) else None
        for half in halves
    ]
    rows = []
    for group in groups:
        columns = [names.index(concept) for concept in group.concepts]
        chosen: dict[int, int] = {}
        if aurocs[0] is not None:
            of_group = aurocs[0][columns]
            defined = np.flatnonzero(np.isfinite(of_group).all(axis=1))
            lines, features = linear_sum_assignment(-of_group[defined])
            chosen = dict(zip(defined[lines].tolist(), features.tolist(), strict=True))
        for line, (concept, column) in enumerate(zip(group.concepts, columns, strict=True)):
            position = chosen.get(line)
            values: list[float | None] = [None, None]
            if position is not None:
                values = [
                    None
                    if table is None or np.isnan(table[column, position])
                    else float(table[column, position])
                    for table in aurocs
                ]
            rows.append(
                {
                    "group_name": group.name,
                    "concept": concept,
                    "is_steered": group.is_steered,
                    "feature_id": None if position is None else feature_ids[live[position]],
                    "auroc_chosen": values[0],
                    "auroc": values[1],
                    "status": "failed" if position is None else "ok",
                    "reason": _why_none(membership[:, column], halves[0], len(live))
                    if position is None
                    else None,
                }
            )
    schema = GROUP_MEMBERS.empty().drop(GROUP_MEMBERS.partition_by).schema
    return pl.DataFrame(rows, schema=schema)


def members_of(members: pl.DataFrame, group_name: str) -> tuple[list[str], list[int]]:
    """Concepts and feature ids of a group's members that have a feature, from `group_members`."""
    rows = members.filter(group_name=group_name, status="ok").sort("feature_id")
    return rows["concept"].to_list(), rows["feature_id"].to_list()


def _why_none(is_of_concept: np.ndarray, to_choose: np.ndarray, n_live: int) -> str:
    n_positive = int((is_of_concept & to_choose).sum())
    if n_positive == 0:
        return "no document of the concept in the half that chooses"
    if n_positive == int(to_choose.sum()):
        return "no document of another concept in the half that chooses"
    return f"the group has more concepts than the fit has features that are not zero ({n_live})"
