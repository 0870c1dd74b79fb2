"""The whole of a measurement: what is to be run, what of it is known, and the tables from it.

The steps are in files of their own (targets.py, plan.py, runs.py, effect_rows.py); here is only
their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import polars as pl
from jaxtyping import Float
from torch import Tensor

from assets.ablation.ablated_batch import RunSums
from assets.ablation.config import AblationConfig
from assets.ablation.effect_rows import effects_frame
from assets.ablation.plan import AblationRun, plan_runs
from assets.ablation.runs import run_ablations
from assets.ablation.tables import ABLATION_RUNS
from assets.ablation.targets import Targets, choose_targets
from assets.activations.sites import ActivationSite
from assets.detection.config import DetectionConfig
from assets.faithfulness.replaced_forward import Spent
from assets.faithfulness.sample import (
    SampledDocument,
    sample_documents,
    sampled_coefficients,
)
from assets.shared.row_reuse import reusable_rows

_SUMS = [one.name for one in fields(RunSums)]


@dataclass(frozen=True)
class Measured:
    """Rows of `ablation_runs` and `ablation_effects`, how many of the former were taken over and
    made anew, and what was run for these."""

    runs: pl.DataFrame
    effects: pl.DataFrame
    rows_reused: int
    rows_computed: int
    spent: Spent


def measure_ablations(
    model: Any,
    site: ActivationSite,
    *,
    feature_ids: Sequence[int],
    dictionary: Float[Tensor, "k d"],
    measured_ids: Sequence[int],
    coefficients: pl.DataFrame,
    tokens: pl.DataFrame,
    special_prefix: Sequence[int],
    promoted: Mapping[int, Sequence[int]],
    config: AblationConfig,
    firing_share: float,
    study_documents: pl.DataFrame | None = None,
    concept_of: Mapping[int, str] | None = None,
    detection: DetectionConfig | None = None,
    beyond: str = "not chosen to be measured",
    made_with: Sequence[str] = (),
    previous: pl.DataFrame | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """The ablations of `measured_ids`, and their nulls; a row for each of `feature_ids`, which
    name the rows of `dictionary`.

    `coefficients` has the columns row, feature_id and coefficient; `tokens` row, document_id,
    position, token_id and is_massive; `promoted` gives token ids by feature, most promoted first;
    `study_documents` has document_id, minhash and concept of all of the study's, which `detection`
    halves, and `concept_of` gives the features' (concept_documents.py). `beyond` is the reason of
    features left out of `measured_ids`; `made_with` are code version, model revision and number
    type; `previous` the partition's rows of `ablation_runs`. Raises FaithfulnessError where the
    model can't be run from the site on.
    """
    fires = set(coefficients.filter(pl.col("coefficient") > 0)["feature_id"])
    coefficients = coefficients.filter(pl.col("feature_id").is_in(list(measured_ids)))
    targets = choose_targets(
        coefficients, tokens, measured_ids, config, study_documents, concept_of, detection
    )
    documents = _drawn_documents(targets, tokens, special_prefix, config.seed)
    directions = dict(zip(feature_ids, dictionary.detach().float().cpu(), strict=True))
    runs = list(
        plan_runs(
            documents,
            sampled_coefficients(documents, coefficients, measured_ids),
            {feature_id: directions[feature_id] for feature_id in measured_ids},
            targets,
            promoted,
            config,
            firing_share,
            (*made_with, site.key),
        )
    )
    known = {
        made_from: RunSums(**rows.select(_SUMS).row(0, named=True))
        for made_from, rows in reusable_rows(
            ABLATION_RUNS.empty() if previous is None else previous,
            (run.fingerprint for run in runs),
        ).items()
    }
    n_reused = sum(run.fingerprint in known for run in runs)
    to_run = {run.fingerprint: run for run in runs if run.fingerprint not in known}
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if on_progress is not None:
            on_progress(done, len(to_run))

    made, spent = run_ablations(
        model, site, documents, to_run.values(), config.batch_tokens, advance
    )
    frame = _runs_frame(runs, [one.document.document_id for one in documents], known | made)
    return Measured(
        frame,
        effects_frame(frame, feature_ids, targets, fires, config, beyond, concept_of),
        n_reused,
        len(runs) - n_reused,
        spent,
    )


def _drawn_documents(
    targets: Mapping[int, Targets], tokens: pl.DataFrame, special_prefix: Sequence[int], seed: int
) -> list[SampledDocument]:
    """The documents drawn for any feature, in the order of ids."""
    drawn = {i for one in targets.values() for i in one.documents}
    if not drawn:
        return []
    of_drawn = tokens.filter(pl.col("document_id").is_in(sorted(drawn)))
    return sample_documents(of_drawn, special_prefix, len(drawn), seed)


def _runs_frame(
    runs: Sequence[AblationRun], document_ids: Sequence[str], sums: Mapping[str, RunSums]
) -> pl.DataFrame:
    """Rows of the table, one a run, without site and fit."""
    rows = [
        {
            "feature_id": run.key.feature_id,
            "ablation": run.key.ablation,
            "is_null": run.key.is_null,
            "document_id": document_ids[run.key.document],
            "is_on": run.key.is_on,
            "is_off": run.key.is_off,
            "is_of_concept": run.key.is_of_concept,
            "is_of_others": run.key.is_of_others,
            **asdict(sums[run.fingerprint]),
            "row_fingerprint": run.fingerprint,
        }
        for run in runs
    ]
    schema = {
        c.name: c.polars_type
        for c in ABLATION_RUNS.columns
        if c.name not in ABLATION_RUNS.partition_by
    }
    return pl.DataFrame(rows, schema=schema)
