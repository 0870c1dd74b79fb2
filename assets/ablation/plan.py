"""What each run of a document puts in: the feature's contribution taken out, or its null's.

At each token but the massive, a ← a − (y − ȳ) z, with ȳ = 0 (zero) or the mean coefficient over
the corpus (mean). The null takes out the same of z with its neurons permuted (seeded, by feature),
so that its norm is the feature's at every token and only which neurons it writes to is not.

A run is known by a hash of all that decides its sums, ids left out: rows from before are taken over
where it is the same (shared/row_reuse.py). Running is runs.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.ablation.config import AblationConfig
from assets.ablation.targets import Targets
from assets.factorization.null_controls import permuted_rows
from assets.faithfulness.sample import SampledDocument
from assets.shared.row_reuse import row_fingerprint


@dataclass(frozen=True)
class RunKey:
    """A row of `ablation_runs`; `document` is its place among the documents."""

    feature_id: int
    ablation: str
    is_null: bool
    document: int
    is_on: bool
    is_off: bool
    is_of_concept: bool
    is_of_others: bool


@dataclass(frozen=True, eq=False)
class AblationRun:
    """What is taken out of a document's rows, at which tokens it is looked at, and for what."""

    key: RunKey
    fingerprint: str
    taken: Float[Tensor, " n_rows"]
    direction: Float[Tensor, " d"]
    is_counted: Bool[Tensor, " n_rows"]
    is_strong: Bool[Tensor, " n_rows"]
    is_silent: Bool[Tensor, " n_rows"]
    promoted: tuple[int, ...]

    @property
    def changes_nothing(self) -> bool:
        return not bool(self.taken.any()) or not bool(self.direction.any())


def permuted_direction(
    direction: Float[Tensor, " d"], feature_id: int, seed: int
) -> Float[Tensor, " d"]:
    """The feature's null: its entries in a random order, whatever other features are ablated."""
    own_seed = int(row_fingerprint("ablation null", seed, feature_id), 16) % 2**63
    return permuted_rows(direction[None], torch.Generator().manual_seed(own_seed))[0]


def plan_runs(
    documents: Sequence[SampledDocument],
    coefficients: Sequence[csr_matrix],
    dictionary: Mapping[int, Float[Tensor, " d"]],
    targets: Mapping[int, Targets],
    promoted: Mapping[int, Sequence[int]],
    config: AblationConfig,
    firing_share: float,
    made_with: Sequence[str],
) -> Iterator[AblationRun]:
    """Every run that the study asks for, feature by feature.

    `coefficients` are those of the documents, [n_rows, n_features] in the order of `dictionary`;
    `made_with` are the code version, the model's revision and number type, and the site.
    """
    place = {one.document.document_id: i for i, one in enumerate(documents)}
    base = [
        row_fingerprint(
            *made_with,
            np.array(one.document.token_ids, dtype=np.int64),
            one.document.n_special_prefix,
        )
        for one in documents
    ]
    for column, (feature_id, direction) in enumerate(dictionary.items()):
        aimed = targets[feature_id]
        if not aimed.on:
            continue
        tokens = tuple(promoted.get(feature_id, ()))[: config.n_promoted]
        directions = {
            is_null: permuted_direction(direction, feature_id, config.seed)
            if is_null
            else direction
            for is_null in (False, True)
        }
        digests = {is_null: row_fingerprint(d.numpy()) for is_null, d in directions.items()}
        for name in aimed.documents:
            document = place[name]
            one = documents[document]
            strengths = torch.from_numpy(coefficients[document][:, [column]].toarray()[:, 0])
            is_counted = ~torch.tensor(one.is_massive)
            is_counted[-1] = False
            drawn_for = (aimed.on, aimed.off, aimed.of_concept, aimed.of_others)
            drawn_as = [name in ids for ids in drawn_for]
            is_strong = is_counted & (strengths.double() >= config.strong_share * aimed.largest)
            is_silent = is_counted & ~(strengths.double() > firing_share * aimed.largest)
            is_silent &= ~is_strong
            for ablation in config.ablations:
                taken = strengths - set_to(ablation, aimed)
                taken = taken.masked_fill(torch.tensor(one.is_massive), 0.0)
                for is_null, of_run in directions.items():
                    made_from = row_fingerprint(
                        base[document],
                        taken.numpy(),
                        digests[is_null],
                        is_counted.numpy(),
                        is_strong.numpy(),
                        is_silent.numpy(),
                        np.array(tokens, dtype=np.int64),
                    )
                    yield AblationRun(
                        RunKey(feature_id, ablation, is_null, document, *drawn_as),
                        made_from,
                        taken,
                        of_run,
                        is_counted,
                        is_strong,
                        is_silent,
                        tokens,
                    )


def set_to(ablation: str, targets: Targets) -> float:
    """The coefficient that takes the place of the feature's own."""
    return targets.mean if ablation == "mean" else 0.0
