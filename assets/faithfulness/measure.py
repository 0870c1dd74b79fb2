"""One pass over the sampled documents: every replacement, and every planned ablation.

A batch of documents is run once as it is; all that is asked of it is run from the site's block on
before the next, so memory holds the logits of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.capture import length_sorted_batches
from assets.activations.shards import ActivationReader
from assets.activations.sites import ActivationSite
from assets.faithfulness.ablation import Ablation, ablate, peak_coefficients, plan_ablations
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.feature_rows import feature_frame
from assets.faithfulness.recovered import DocumentLosses, faithfulness_frame
from assets.faithfulness.replaced_forward import DocumentBatch
from assets.faithfulness.replacements import (
    REPLACEMENTS,
    reconstructed_rows,
    replacement_losses,
)
from assets.faithfulness.sample import SampledDocument, sampled_coefficients


@dataclass(frozen=True)
class Fit:
    """A fit as the lake has it: dictionary row i is the feature `feature_ids[i]`.

    `coefficients` has the columns row, feature_id and coefficient; `mean_row` is the site's mean
    over the tokens that are not massive.
    """

    feature_ids: Sequence[int]
    dictionary: Float[Tensor, "k d"]
    coefficients: pl.DataFrame
    offset: Float[Tensor, " d"] | None
    mean_row: Float[Tensor, " d"]


@dataclass(frozen=True)
class Measured:
    """Rows of both tables, and the blocks × token positions that were computed."""

    replacements: pl.DataFrame
    features: pl.DataFrame
    layer_token_evaluations: int


def mean_row_of(reader: ActivationReader, is_kept: Sequence[bool]) -> Float[Tensor, " d"]:
    """Mean of the rows that are kept, one shard in memory at a time, summed in float64.

    Raises ValueError when none is kept.
    """
    kept = torch.tensor(is_kept, dtype=torch.bool)
    if not kept.any():
        raise ValueError(
            f"none of the {len(kept)} tokens is left to average; raise massive_norm_ratio"
        )
    total = torch.zeros(reader.width, dtype=torch.float64)
    for first_row, rows in reader.iter_shards(torch.float32):
        total += rows[kept[first_row : first_row + len(rows)]].sum(dim=0, dtype=torch.float64)
    return (total / kept.sum()).float()


def measure_faithfulness(
    model: Any,
    site: ActivationSite,
    sample: Sequence[SampledDocument],
    fit: Fit,
    measured_ids: Sequence[int],
    config: FaithfulnessConfig,
    *,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Every replacement on every document of the sample, and the ablations of `measured_ids`.

    `limit` is the study's cap that made `measured_ids`, named in the rows of the features left
    out. Raises FaithfulnessError where the model can't be run from the site on.
    """
    coefficients = sampled_coefficients(sample, fit.coefficients, fit.feature_ids)
    peaks = peak_coefficients(sample, coefficients)
    row_of = {feature_id: row for row, feature_id in enumerate(fit.feature_ids)}
    measured_rows = [row_of[feature_id] for feature_id in measured_ids]
    plan = plan_ablations(peaks, measured_rows, config.n_documents_per_feature)
    total = len(sample) * len(REPLACEMENTS) + sum(map(len, plan.values()))

    n_documents = len(sample)
    n_tokens, base = np.zeros(n_documents), np.zeros(n_documents)
    replaced = {name: np.zeros(n_documents) for name in REPLACEMENTS}
    kl = {name: np.zeros(n_documents) for name in REPLACEMENTS}
    ablations: list[Ablation] = []
    done = evaluations = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if on_progress is not None:
            on_progress(done, total)

    documents = [one.document for one in sample]
    for indices in length_sorted_batches(documents, config.batch_tokens):
        batch = DocumentBatch(model, site, [documents[i] for i in indices])
        own = [sample[i] for i in indices]
        reconstruction = reconstructed_rows(
            batch, own, [coefficients[i] for i in indices], fit.dictionary, fit.offset
        )
        n_tokens[indices] = batch.is_predicted.sum(dim=1).numpy()
        base[indices] = batch.base.cross_entropy.sum(dim=1).numpy()
        zero = batch.base.cross_entropy
        for name, losses in replacement_losses(batch, own, fit.mean_row, reconstruction):
            replaced[name][indices] = losses.cross_entropy.sum(dim=1).numpy()
            kl[name][indices] = losses.kl.sum(dim=1).numpy()
            if name == "zero":
                zero = losses.cross_entropy
            advance(len(indices))
        for some in ablate(
            batch, indices, sample, coefficients, fit.dictionary, plan, zero, config.batch_tokens
        ):
            ablations += some
            advance(len(some))
        evaluations += batch.layer_token_evaluations

    return Measured(
        faithfulness_frame(
            DocumentLosses(n_tokens, base, replaced, kl),
            n_bootstrap=config.n_bootstrap,
            seed=config.seed,
        ),
        feature_frame(
            ablations,
            fit.feature_ids,
            set(measured_rows),
            (peaks > 0).sum(axis=0).tolist(),
            limit,
            config.seed,
        ),
        evaluations,
    )
