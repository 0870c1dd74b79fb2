"""The whole of a measurement: what is to be run, what of it is known, and the tables from it.

The steps are in files of their own (sample.py, ablation.py, reuse.py, runs.py, recovered.py,
feature_rows.py); here is only their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from assets.activations.sites import ActivationSite
from assets.faithfulness.ablation import peak_coefficients, plan_ablations
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.feature_rows import feature_frame
from assets.faithfulness.fit import Fit
from assets.faithfulness.recovered import faithfulness_frame
from assets.faithfulness.replaced_forward import Spent
from assets.faithfulness.reuse import run_fingerprints
from assets.faithfulness.run_rows import documents_frame, known_sums
from assets.faithfulness.runs import DocumentRun, run_documents, wanted_runs
from assets.faithfulness.sample import SampledDocument, sampled_coefficients
from assets.faithfulness.tables import FAITHFULNESS_DOCUMENTS


@dataclass(frozen=True)
class Work:
    """Rows of `faithfulness_documents` taken over and made anew, and what was run for the latter.

    A row that another has the fingerprint of is run once, and counts with it.
    """

    rows_reused: int
    rows_computed: int
    spent: Spent


@dataclass(frozen=True)
class Measured:
    """Rows of `faithfulness_documents`, `faithfulness` and `feature_faithfulness`."""

    documents: pl.DataFrame
    replacements: pl.DataFrame
    features: pl.DataFrame
    work: Work


def measure_faithfulness(
    model: Any,
    site: ActivationSite,
    sample: Sequence[SampledDocument],
    fit: Fit,
    measured_ids: Sequence[int],
    config: FaithfulnessConfig,
    *,
    beyond: str = "not chosen to be measured",
    made_with: Sequence[str] = (),
    previous: pl.DataFrame | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Every replacement on every document of the sample, and the ablations of `measured_ids`.

    `beyond` is the reason in the rows of the features left out. `made_with`: code version, model
    revision and number type; `previous` are the partition's rows of `faithfulness_documents`, taken
    over where all that decides them is the same. Raises FaithfulnessError where the model can't be
    run from the site on.
    """
    coefficients = sampled_coefficients(sample, fit.coefficients, fit.feature_ids)
    peaks = peak_coefficients(sample, coefficients)
    row_of = {feature_id: row for row, feature_id in enumerate(fit.feature_ids)}
    measured_rows = [row_of[feature_id] for feature_id in measured_ids]
    plan = plan_ablations(peaks, measured_rows, config.n_documents_per_feature)

    runs = wanted_runs(len(sample), plan)
    made_from = run_fingerprints(runs, site, sample, coefficients, fit, made_with)
    before = FAITHFULNESS_DOCUMENTS.empty() if previous is None else previous
    sums = known_sums(before, made_from.values())
    n_reused = sum(made_from[run] in sums for run in runs)
    to_run: dict[str, DocumentRun] = {}
    for run in runs:
        if made_from[run] not in sums:
            to_run.setdefault(made_from[run], run)
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if on_progress is not None:
            on_progress(done, len(to_run))

    made, spent = run_documents(
        model, site, sample, coefficients, fit, to_run.values(), config.batch_tokens, advance
    )
    sums |= {made_from[run]: of_run for run, of_run in made.items()}
    documents = documents_frame(runs, sample, fit.feature_ids, made_from, sums)
    return Measured(
        documents,
        faithfulness_frame(documents, seed=config.seed),
        feature_frame(
            documents,
            fit.feature_ids,
            set(measured_rows),
            (peaks > 0).sum(axis=0).tolist(),
            beyond,
            config.seed,
        ),
        Work(n_reused, len(runs) - n_reused, spent),
    )
