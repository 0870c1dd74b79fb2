"""The whole of a fit, from inputs to rows: choose the rank, start, fit, name the features.

The steps are in files of their own (rank_choice.py, refit.py, methods.py, projection.py,
identity.py, stability.py); here is only their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from assets.factorization.comparison_tables import (
    FEATURE_MATCHES,
    FEATURE_STABILITY,
    FIT_DOCUMENTS,
    RANK_CHOICES,
)
from assets.factorization.config import FitConfig
from assets.factorization.encoder import encoder_frame
from assets.factorization.factorization import Factorization
from assets.factorization.fit_documents import (
    FitChange,
    documents_seen,
    fit_change,
    projected_documents,
)
from assets.factorization.fit_inputs import FitInputs
from assets.factorization.fit_source import FitSource
from assets.factorization.frames import (
    FitHistory,
    activations_digest,
    coefficients_frame,
    dictionary_frame,
    factorization_frame,
)
from assets.factorization.identity import Identities, assign_identities, kept_identities
from assets.factorization.mean_row import mean_row_of
from assets.factorization.rank_choice import RankChoice
from assets.factorization.refit import PreviousFit, Refit, kept_fit, plan_refit
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, ENCODERS, FACTORIZATIONS
from assets.shared.schema import Table

# Called with what is being done, how much of it is done, and of how much.
StepCallback = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MadeFit:
    """A fit with its start, the identities of its features, and all its rows by table.

    `fit` holds the rank that was chosen; `rank_choice` is None for a fixed rank and a projection.
    """

    fit: FitConfig
    factorization: Factorization
    refit: Refit
    identities: Identities
    rank_choice: RankChoice | None
    frames: dict[Table, pl.DataFrame]


def make_fit(
    source: FitSource,
    fit: FitConfig,
    inputs: FitInputs,
    previous: PreviousFit | None,
    *,
    settings: str,
    on_step: StepCallback | None = None,
) -> MadeFit:
    """Fit, refit or project, and make the rows.

    `settings` is the hash of code and configuration that begins the inputs_fingerprint. Raises
    FactorizationError where the input admits no fit.
    """
    step = on_step or (lambda what, done, total: None)
    fingerprint = inputs.fingerprint(settings, fit)
    width = source.width
    documents = documents_seen(
        inputs.documents,
        inputs.is_fit(fit),
        source.rows_read(fit),
        inputs.concepts if fit.is_supervised else None,
    )
    change = None if previous is None else _change(previous, fit, inputs, documents)
    rank = fit.rank if isinstance(fit.rank, int) else None
    if previous is not None and fit.rank is None:
        rank = previous.row["n_features"]
    plan = plan_refit(previous, fit, settings, rank=rank, width=width, change=change)
    kept = previous if plan.start == "projected" else None
    choice = None
    if fit.rank == "auto":
        if kept is not None:
            chosen = kept.row["n_features"]
        else:
            choice = source.choose_rank(
                fit, lambda done, total: step("fits to choose the rank", done, total)
            )
            chosen = choice.rank
            plan = plan_refit(previous, fit, settings, rank=chosen, width=width, change=change)
        fit = fit.model_copy(update={"rank": chosen, "rank_candidates": None})
    if kept is not None:
        fitted = source.project(fit, kept_fit(kept, documents, source.n_tokens))
        scale, mean_row = kept.row["activation_scale"], kept.row["mean_row"]
        stability = kept.row["stability"]
        stability_rows = kept.feature_stability
        documents = projected_documents(kept.documents, documents)
        identities = kept_identities(kept.features)
    else:
        fitted, scale = source.fit(
            fit,
            plan.dictionary,
            lambda iteration, _: step("iterations", iteration, fit.max_iter),
        )
        identities = assign_identities(
            None if previous is None else previous.features,
            fitted.dictionary,
            names=fitted.feature_names if any(fitted.feature_names) else None,
            match_threshold=fit.match_threshold,
            split_threshold=fit.split_threshold,
        )
        mean_row = mean_row_of(source.rows(), inputs.is_fit(fit)).tolist()
        seeds = source.stability(fit, fitted.dictionary)
        stability, stability_rows = seeds.mean, seeds.frame(identities.feature_ids)
    history = FitHistory(
        feature_ids=identities.feature_ids,
        next_feature_id=identities.next_feature_id,
        start=plan.start,
        started_from_snapshot=plan.snapshot,
        n_tokens_changed=change.n_changed if kept is not None and change is not None else 0,
        activation_scale=scale,
        mean_row=mean_row,
        stability=stability,
        inputs_fingerprint=fingerprint,
        activations_digest=activations_digest(inputs.shards),
    )
    return MadeFit(
        fit=fit,
        factorization=fitted,
        refit=plan,
        identities=identities,
        rank_choice=choice,
        frames={
            FACTORIZATIONS: factorization_frame(fitted, fit, history),
            DICTIONARY: dictionary_frame(fitted, identities.feature_ids),
            ENCODERS: encoder_frame(fitted.encoder, identities.feature_ids),
            COEFFICIENTS: coefficients_frame(fitted, identities.feature_ids),
            FEATURE_MATCHES: identities.frame(),
            RANK_CHOICES: _rank_rows(choice, kept),
            FEATURE_STABILITY: stability_rows,
            FIT_DOCUMENTS: documents,
        },
    )


def _change(
    previous: PreviousFit, fit: FitConfig, inputs: FitInputs, documents: pl.DataFrame
) -> FitChange:
    if not fit.is_supervised:
        return fit_change(previous.documents, documents)
    names: list[str] = previous.row["feature_names"] or []
    return fit_change(previous.documents, documents, (set(names), inputs.fitted_concepts(fit)))


def _rank_rows(choice: RankChoice | None, kept: PreviousFit | None) -> pl.DataFrame:
    if choice is not None:
        return choice.frame()
    if kept is not None:
        return kept.rank_choices
    return RANK_CHOICES.empty().drop(RANK_CHOICES.partition_by)
