"""Which runs of the model are needed: those whose result no row of the last materialization holds.

The replacements are one result: all five rows, over the whole sample. Each ablated feature is
another: its direction, and the tokens and its coefficients in the documents it is ablated in.
Their fingerprints say all that they come from, so equal ones mean equal values up to the rounding
that depends on which documents share a batch. How rows are found again is shared/row_reuse.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.activations.sites import ActivationSite
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.fit import Fit
from assets.faithfulness.replacements import REPLACEMENTS
from assets.faithfulness.sample import SampledDocument
from assets.faithfulness.tables import FAITHFULNESS, FEATURE_FAITHFULNESS
from assets.shared.row_reuse import reusable_rows, row_fingerprint


@dataclass(frozen=True)
class Previous:
    """The partition's rows of both tables as they are, and what else they were made with.

    `made_with`: code version, model revision and number type of the run to be.
    """

    replacements: pl.DataFrame
    features: pl.DataFrame
    made_with: tuple[str, ...]

    @classmethod
    def none(cls) -> Previous:
        """No rows: everything is run."""
        return cls(FAITHFULNESS.empty(), FEATURE_FAITHFULNESS.empty(), ())


@dataclass(frozen=True)
class Reuse:
    """Fingerprints of all that is wanted, and the rows found for them, without site and fit.

    `replacements` is None where they are to be run. `feature_fingerprints` has the dictionary rows
    that are to be ablated; `features` those of them whose row is there already.
    """

    replacements_fingerprint: str
    replacements: pl.DataFrame | None
    feature_fingerprints: dict[int, str]
    features: dict[int, dict[str, Any]]


def find_reusable(
    previous: Previous,
    site: ActivationSite,
    sample: Sequence[SampledDocument],
    coefficients: Sequence[csr_matrix],
    fit: Fit,
    plan: Mapping[int, Iterable[int]],
    config: FaithfulnessConfig,
) -> Reuse:
    """What of the wanted rows is there. `coefficients` are the sample's; `plan` maps documents to
    the dictionary rows ablated in them (plan_ablations)."""
    start = (*previous.made_with, site.key)
    of_all = _replacements_fingerprint(start, sample, coefficients, fit, config)
    of_features = _feature_fingerprints(start, sample, coefficients, fit, plan)
    replacements = reusable_rows(previous.replacements, [of_all]).get(of_all)
    if replacements is not None:
        replacements = replacements.drop(FAITHFULNESS.partition_by)
        is_whole = set(replacements["replacement"]) == set(REPLACEMENTS)
        in_order = pl.col("replacement").cast(pl.Enum(REPLACEMENTS))
        replacements = replacements.sort(in_order) if is_whole else None
    found = reusable_rows(previous.features, of_features.values())
    features = {
        feature: found[fingerprint].drop(FEATURE_FAITHFULNESS.partition_by).row(0, named=True)
        for feature, fingerprint in of_features.items()
        if fingerprint in found
    }
    return Reuse(of_all, replacements, of_features, features)


def _replacements_fingerprint(
    start: Sequence[str],
    sample: Sequence[SampledDocument],
    coefficients: Sequence[csr_matrix],
    fit: Fit,
    config: FaithfulnessConfig,
) -> str:
    parts: list[Any] = [*start, config.n_bootstrap, config.seed]
    parts += [None if fit.offset is None else _array(fit.offset)]
    parts += [_array(fit.dictionary), _array(fit.mean_row)]
    for one, own in zip(sample, coefficients, strict=True):
        parts += [*_document(one), np.array(one.is_massive)]
        parts += [own.indptr, own.indices, own.data]
    return row_fingerprint(*parts)


def _feature_fingerprints(
    start: Sequence[str],
    sample: Sequence[SampledDocument],
    coefficients: Sequence[csr_matrix],
    fit: Fit,
    plan: Mapping[int, Iterable[int]],
) -> dict[int, str]:
    parts: dict[int, list[Any]] = {}
    for document in sorted(plan):
        tokens, columns = _document(sample[document]), coefficients[document].tocsc()
        for feature in plan[document]:
            own = columns[:, [feature]].toarray()[:, 0]
            first = [*start, _array(fit.dictionary[feature])]
            parts.setdefault(feature, first).extend([*tokens, own])
    return {feature: row_fingerprint(*of_feature) for feature, of_feature in parts.items()}


def without(
    plan: Mapping[int, Sequence[int]], reused: Mapping[int, object]
) -> dict[int, list[int]]:
    """The plan less the dictionary rows that are reused; documents with none left are gone."""
    left = {d: [f for f in features if f not in reused] for d, features in plan.items()}
    return {document: features for document, features in left.items() if features}


def _document(one: SampledDocument) -> tuple[np.ndarray, int]:
    return np.array(one.document.token_ids, dtype=np.int64), one.document.n_special_prefix


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
