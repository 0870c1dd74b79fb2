"""Groups of concepts, and the feature of each: what tells the concept best, or promotes its token.

A group is a list of concepts of the corpus (the seven weekdays), or all concepts of one parent
concept. Its members are found together: each concept gets a feature of its own, so that the sum
over the group is the largest there is (assignment problem), the sum of

- the AUROCs with which the features tell the concept's documents from others, on one half of the
  documents (concept_auroc), or
- how strongly they promote the concept's token (promoted_tokens; promoted_concepts.py).

Either way the AUROC on the other half is reported, as in the detection room. What the members'
neurons have in common is core_neurons.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from assets.corpus.halves import split_in_halves
from assets.detection.concept_statistics import auroc_matrix
from assets.hierarchy.config import MembersBy
from assets.hierarchy.group_tables import GROUP_MEMBERS
from assets.hierarchy.promoted_concepts import ConceptPromotion


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
    minhashes: Sequence[str | None],
    concepts: Sequence[str | None],
    feature_ids: Sequence[int],
    seed: int,
    promotion: ConceptPromotion | None = None,
) -> pl.DataFrame:
    """Rows of `group_members`: one a group and concept, with its feature or why it has none.

    `scores` are the documents' max_cosine_scores (NaN where there is none), `minhashes` and
    `concepts` theirs, in one order; `seed` splits the halves as detection does. Members are chosen
    by `promotion` where it is given, else by concept AUROC.
    """
    chosen_by: MembersBy = "concept_auroc" if promotion is None else "promoted_tokens"
    to_choose = split_in_halves(minhashes, concepts, seed)
    of_concept = np.array(["" if concept is None else concept for concept in concepts], dtype=str)
    has_score = np.isfinite(scores).any(axis=1)
    is_live = np.isfinite(scores[has_score]).all(axis=0) & has_score.any()
    for of_one in [] if promotion is None else promotion.scores.values():
        is_live &= np.isfinite(of_one)
    live = np.flatnonzero(is_live)
    names = sorted({concept for group in groups for concept in group.concepts})
    membership = of_concept[:, None] == np.array(names, dtype=str)[None, :]
    halves = [has_score & to_choose, has_score & ~to_choose]
    aurocs = [
        auroc_matrix(scores[half][:, live], membership[half]).T
        if len(live)
        else np.full((len(names), 0), np.nan)
        for half in halves
    ]
    promoted = None if promotion is None else _promoted(promotion, names, live)
    to_choose_by = aurocs[0] if promoted is None else promoted
    rows = []
    for group in groups:
        columns = [names.index(concept) for concept in group.concepts]
        chosen = _assigned(to_choose_by[columns])
        for line, (concept, column) in enumerate(zip(group.concepts, columns, strict=True)):
            position = chosen.get(line)
            why_none = None
            if position is None and promotion is not None:
                why_none = promotion.reasons.get(concept) or _too_few(len(live))
            elif position is None:
                why_none = _why_none(membership[:, column], halves[0], len(live))
            rows.append(
                {
                    "group_name": group.name,
                    "concept": concept,
                    "is_steered": group.is_steered,
                    "feature_id": None if position is None else feature_ids[live[position]],
                    "chosen_by": chosen_by,
                    "auroc_chosen": _value(aurocs[0], column, position),
                    "auroc": _value(aurocs[1], column, position),
                    "promotion": _value(promoted, column, position),
                    "status": "failed" if position is None else "ok",
                    "reason": why_none,
                }
            )
    schema = GROUP_MEMBERS.empty().drop(GROUP_MEMBERS.partition_by).schema
    return pl.DataFrame(rows, schema=schema)


def members_of(members: pl.DataFrame, group_name: str) -> tuple[list[str], list[int]]:
    """Concepts and feature ids of a group's members that have a feature, from `group_members`."""
    rows = members.filter(group_name=group_name, status="ok").sort("feature_id")
    return rows["concept"].to_list(), rows["feature_id"].to_list()


def _assigned(to_choose_by: Float[np.ndarray, "m n_live"]) -> dict[int, int]:
    """The feature of each line that has one; lines without finite values get none."""
    defined = np.flatnonzero(np.isfinite(to_choose_by).all(axis=1))
    lines, features = linear_sum_assignment(-to_choose_by[defined])
    return dict(zip(defined[lines].tolist(), features.tolist(), strict=True))


def _promoted(
    promotion: ConceptPromotion, names: Sequence[str], live: Int[np.ndarray, " n_live"]
) -> Float[np.ndarray, "n_concepts n_live"]:
    table = np.full((len(names), len(live)), np.nan)
    for line, name in enumerate(names):
        if name in promotion.scores:
            table[line] = promotion.scores[name][live]
    return table


def _value(table: np.ndarray | None, column: int, position: int | None) -> float | None:
    if table is None or position is None or np.isnan(table[column, position]):
        return None
    return float(table[column, position])


def _why_none(is_of_concept: np.ndarray, to_choose: np.ndarray, n_live: int) -> str:
    n_positive = int((is_of_concept & to_choose).sum())
    if n_positive == 0:
        return "no document of the concept in the half that chooses"
    if n_positive == int(to_choose.sum()):
        return "no document of another concept in the half that chooses"
    return _too_few(n_live)


def _too_few(n_live: int) -> str:
    return f"the group has more concepts than the fit has features that are not zero ({n_live})"
