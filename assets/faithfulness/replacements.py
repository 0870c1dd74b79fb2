"""What is put in the place of a document's rows at the site.

- identity: the rows that the base run had. It checks the run: anything but the base losses means
  that the model reads more than the residual stream, and is an error;
- zero: no activation at all, the lower end of the scale;
- mean: the mean row of the tokens that the dictionary was fitted on, everywhere;
- reconstruction: YZ + offset;
- reconstruction_keep_massive: the same, tokens of massive activation left as they are (fits leave
  them out, and a wrong attention sink costs more than all the rest).

What share of the loss each recovers is recovered.py; taking out one feature is ablation.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.faithfulness.fit import Fit
from assets.faithfulness.replaced_forward import DocumentBatch, FaithfulnessError, TokenLosses
from assets.faithfulness.sample import SampledDocument

REPLACEMENTS = ("identity", "zero", "mean", "reconstruction", "reconstruction_keep_massive")
_IDENTITY_TOLERANCE = 1e-4
"""Nats that the identity may be off at a token, in float32; half precision has its own grain."""


def replacement_rows(
    replacement: str,
    own: Float[Tensor, "n_rows d"],
    one: SampledDocument,
    coefficients: csr_matrix,
    fit: Fit,
) -> Float[Tensor, "n_rows d"]:
    """What stands in for the document's `own` rows; `coefficients` are its, [n_rows, k]."""
    if replacement == "identity":
        return own
    if replacement == "zero":
        return torch.zeros_like(own)
    if replacement == "mean":
        return fit.mean_row.to(own).expand(own.shape)
    made = torch.from_numpy(coefficients.toarray()) @ fit.dictionary
    made = (made if fit.offset is None else made + fit.offset).to(own)
    if replacement == "reconstruction":
        return made
    assert replacement == "reconstruction_keep_massive", replacement
    return torch.where(torch.tensor(one.is_massive, device=own.device)[:, None], own, made)


def check_identity(batch: DocumentBatch, place: int, losses: TokenLosses, row: int) -> None:
    """Raise FaithfulnessError unless row `row` of the losses is the base run's of `place`."""
    base = batch.base.cross_entropy[place]
    difference = (losses.cross_entropy[row] - base).abs().max().item()
    bound = max(_IDENTITY_TOLERANCE, 8 * torch.finfo(batch.rows.dtype).eps)
    bound *= max(1.0, base.max().item())
    if not difference <= bound:
        raise FaithfulnessError(
            f"with its own rows put back at {batch.site.key}, the model's losses differ by "
            f"{difference:.2e} nats, expected at most {bound:.1e}; a layer of "
            f"{type(batch.model).__name__} reads more than the residual stream"
        )
