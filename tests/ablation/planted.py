"""Features of a tiny model's site over a few documents, and their ablations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from assets.ablation.config import AblationConfig
from assets.ablation.measure import Measured, measure_ablations
from assets.activations.sites import ActivationSite
from assets.faithfulness.fit import Fit
from tests.faithfulness.planted import (
    BOS,
    random_fit,
    rows_of_the_site,
    tokens_frame,
    whole_sample,
)

FIRING_SHARE = 0.2
CONFIG = AblationConfig(n_documents_on=2, n_documents_off=2, batch_tokens=24)
PROMOTED = {10: [3, 9, 40], 20: [5], 30: [60, 61]}


def fit_at(model: nn.Module, site: ActivationSite) -> Fit:
    """Features 10, 20, 30 active on a third of the tokens, 20 not in document "c"; 40 nowhere."""
    fit = random_fit(rows_of_the_site(model, site))
    of_c = tokens_frame().filter(document_id="c")["row"].implode()
    silent = (pl.col("feature_id") == 20) & pl.col("row").is_in(of_c)
    return Fit(
        fit.feature_ids, fit.dictionary, fit.coefficients.filter(~silent), None, fit.mean_row
    )


def ablate(
    model: nn.Module,
    site: ActivationSite,
    fit: Fit,
    measured_ids: Sequence[int] | None = None,
    **options: Any,
) -> Measured:
    settings: dict[str, Any] = {"config": CONFIG, "tokens": tokens_frame(), "promoted": PROMOTED}
    return measure_ablations(
        model,
        site,
        feature_ids=fit.feature_ids,
        dictionary=fit.dictionary,
        measured_ids=fit.feature_ids if measured_ids is None else measured_ids,
        coefficients=fit.coefficients,
        special_prefix=BOS,
        firing_share=FIRING_SHARE,
        **(settings | options),
    )


def strengths_of(fit: Fit, feature_id: int) -> dict[str, Tensor]:
    """The feature's coefficients by document, [n_rows]."""
    values = torch.zeros(len(tokens_frame()))
    own = fit.coefficients.filter(feature_id=feature_id)
    values[own["row"].to_list()] = torch.tensor(own["coefficient"].to_list())
    return {
        one.document.document_id: values[one.first_row : one.first_row + one.document.n_rows]
        for one in whole_sample()
    }
