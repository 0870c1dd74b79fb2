"""One pass over the sampled documents: every replacement, and every planned ablation.

A batch of documents is run once as it is; all that is asked of it is run from the site's block on
before the next, so memory holds the logits of one batch. What the last materialization's rows
already say is not run (reuse.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from jaxtyping import Float
from torch import Tensor

from assets.activations.batched_forward import length_sorted_batches
from assets.activations.sites import ActivationSite
from assets.faithfulness.ablation import Ablation, ablate, peak_coefficients, plan_ablations
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.feature_rows import feature_frame
from assets.faithfulness.fit import Fit
from assets.faithfulness.recovered import DocumentLosses, faithfulness_frame
from assets.faithfulness.replaced_forward import DocumentBatch, Spent
from assets.faithfulness.replacements import (
    REPLACEMENTS,
    reconstructed_rows,
    replacement_losses,
)
from assets.faithfulness.reuse import Previous, find_reusable, without
from assets.faithfulness.sample import SampledDocument, sampled_coefficients


@dataclass(frozen=True)
class Work:
    """Rows of one table taken over and made anew, and what was run for the latter.

    The runs of the documents as they are count for the replacements where these are made, else
    for the ablations.
    """

    rows_reused: int
    rows_computed: int
    spent: Spent


@dataclass(frozen=True)
class Measured:
    """Rows of both tables, and the work behind each."""

    replacements: pl.DataFrame
    features: pl.DataFrame
    replacements_work: Work
    features_work: Work


def measure_faithfulness(
    model: Any,
    site: ActivationSite,
    sample: Sequence[SampledDocument],
    fit: Fit,
    measured_ids: Sequence[int],
    config: FaithfulnessConfig,
    *,
    limit: int | None = None,
    previous: Previous | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Every replacement on every document of the sample, and the ablations of `measured_ids`.

    `limit` is the study's cap that made `measured_ids`, named in the rows of the features left
    out; `previous` what was measured before, taken over where nothing behind it has changed.
    Raises FaithfulnessError where the model can't be run from the site on.
    """
    coefficients = sampled_coefficients(sample, fit.coefficients, fit.feature_ids)
    peaks = peak_coefficients(sample, coefficients)
    row_of = {feature_id: row for row, feature_id in enumerate(fit.feature_ids)}
    measured_rows = [row_of[feature_id] for feature_id in measured_ids]
    plan = plan_ablations(peaks, measured_rows, config.n_documents_per_feature)
    reuse = find_reusable(
        previous or Previous.none(), site, sample, coefficients, fit, plan, config
    )
    plan = without(plan, reuse.features)
    is_replacing = reuse.replacements is None
    to_run = list(range(len(sample))) if is_replacing else sorted(plan)
    total = len(sample) * len(REPLACEMENTS) * is_replacing + sum(map(len, plan.values()))

    sums = DocumentLosses.zeros(len(sample))
    ablations: list[Ablation] = []
    for_replacements, for_ablations = Spent(), Spent()
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if on_progress is not None:
            on_progress(done, total)

    documents = [one.document for one in sample]
    for places in length_sorted_batches([documents[i] for i in to_run], config.batch_tokens):
        indices = [to_run[place] for place in places]
        batch = DocumentBatch(model, site, [documents[i] for i in indices])
        if is_replacing:
            own = [sample[i] for i in indices]
            rebuilt = reconstructed_rows(
                batch, own, [coefficients[i] for i in indices], fit.dictionary, fit.offset
            )
            zero = _replace(batch, indices, own, fit.mean_row, rebuilt, sums, advance)
            for_replacements += batch.spent
        else:
            zeros = batch.rows.new_zeros(()).expand(batch.rows.shape)
            zero = batch.losses(range(len(indices)), zeros).cross_entropy
        before = batch.spent if is_replacing else Spent()
        for some in ablate(
            batch, indices, sample, coefficients, fit.dictionary, plan, zero, config.batch_tokens
        ):
            ablations += some
            advance(len(some))
        for_ablations += batch.spent - before

    replacements = reuse.replacements
    if replacements is None:
        replacements = faithfulness_frame(
            sums,
            n_bootstrap=config.n_bootstrap,
            seed=config.seed,
            fingerprint=reuse.replacements_fingerprint,
        )
    features = feature_frame(
        ablations,
        fit.feature_ids,
        set(measured_rows),
        (peaks > 0).sum(axis=0).tolist(),
        limit,
        config.seed,
        fingerprints=reuse.feature_fingerprints,
        reused=reuse.features,
    )
    n_kept, n_ablated = len(reuse.features), len(reuse.feature_fingerprints)
    return Measured(
        replacements,
        features,
        Work(
            len(REPLACEMENTS) * (not is_replacing),
            len(REPLACEMENTS) * is_replacing,
            for_replacements,
        ),
        Work(n_kept, n_ablated - n_kept, for_ablations),
    )


def _replace(
    batch: DocumentBatch,
    indices: Sequence[int],
    sample: Sequence[SampledDocument],
    mean_row: Float[Tensor, " d"],
    rebuilt: Float[Tensor, "batch longest d"],
    sums: DocumentLosses,
    advance: Callable[[int], None],
) -> Float[Tensor, "batch longest"]:
    """Every replacement of the batch's documents into `sums`; the cross-entropy with zeros."""
    where = list(indices)
    sums.n_tokens[where] = batch.is_predicted.sum(dim=1).numpy()
    sums.base[where] = batch.base.cross_entropy.sum(dim=1).numpy()
    zero = batch.base.cross_entropy
    for name, losses in replacement_losses(batch, sample, mean_row, rebuilt):
        sums.replaced[name][where] = losses.cross_entropy.sum(dim=1).numpy()
        sums.kl[name][where] = losses.kl.sum(dim=1).numpy()
        if name == "zero":
            zero = losses.cross_entropy
        advance(len(where))
    return zero
