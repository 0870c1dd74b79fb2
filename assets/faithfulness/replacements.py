"""What is put in the place of a site's rows, and what that does to the model's losses.

- identity: the rows that the base run had. It checks the run: anything but the base losses means
  that the model reads more than the residual stream, and is an error;
- zero: no activation at all, the lower end of the scale;
- mean: the site's mean row (over the sample's tokens that are not massive) everywhere;
- reconstruction: YZ + offset;
- reconstruction_keep_massive: the same, tokens of massive activation left as they are (fits leave
  them out, and a wrong attention sink costs more than all the rest).

What share of the loss each recovers is recovered.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.faithfulness.replaced_forward import DocumentBatch, FaithfulnessError, TokenLosses
from assets.faithfulness.sample import SampledDocument

REPLACEMENTS = ("identity", "zero", "mean", "reconstruction", "reconstruction_keep_massive")
_IDENTITY_TOLERANCE = 1e-4
"""Nats that the identity may be off at a token, in float32; half precision has its own grain."""


def reconstructed_rows(
    batch: DocumentBatch,
    sample: Sequence[SampledDocument],
    coefficients: Sequence[csr_matrix],
    dictionary: Float[Tensor, "k d"],
    offset: Float[Tensor, " d"] | None,
) -> Float[Tensor, "batch longest d"]:
    """YZ (+ offset) of each document, at the positions of its rows, zero elsewhere."""
    rows = torch.zeros(batch.rows.shape, dtype=torch.float32)
    for i, (one, own) in enumerate(zip(sample, coefficients, strict=True)):
        start = one.document.n_special_prefix
        made = torch.from_numpy(own.toarray()) @ dictionary
        rows[i, start : start + len(made)] = made if offset is None else made + offset
    return rows.to(batch.rows.device)


def replacement_losses(
    batch: DocumentBatch,
    sample: Sequence[SampledDocument],
    mean_row: Float[Tensor, " d"],
    reconstruction: Float[Tensor, "batch longest d"],
) -> Iterator[tuple[str, TokenLosses]]:
    """(replacement, losses) for each of REPLACEMENTS, in that order.

    Raises FaithfulnessError where the identity does not give the base losses.
    """
    everyone = range(len(sample))
    identity = batch.losses(everyone, batch.rows)
    _check_identity(batch, identity)
    yield "identity", identity
    yield "zero", batch.losses(everyone, torch.zeros_like(batch.rows))
    yield "mean", batch.losses(everyone, mean_row.to(batch.rows).expand(batch.rows.shape))
    replaced = batch.losses(everyone, reconstruction.to(batch.rows))
    yield "reconstruction", replaced
    is_massive = torch.zeros(batch.is_row.shape, dtype=torch.bool)
    for i, one in enumerate(sample):
        start = one.document.n_special_prefix
        is_massive[i, start : start + len(one.is_massive)] = torch.tensor(one.is_massive)
    if is_massive.any():
        kept = is_massive.to(batch.rows.device)[..., None]
        replaced = batch.losses(
            everyone, torch.where(kept, batch.rows, reconstruction.to(batch.rows))
        )
    yield "reconstruction_keep_massive", replaced


def _check_identity(batch: DocumentBatch, identity: TokenLosses) -> None:
    difference = (identity.cross_entropy - batch.base.cross_entropy).abs().max().item()
    bound = max(_IDENTITY_TOLERANCE, 8 * torch.finfo(batch.rows.dtype).eps)
    bound *= max(1.0, batch.base.cross_entropy.max().item())
    if not difference <= bound:
        raise FaithfulnessError(
            f"with its own rows put back at {batch.site.key}, the model's losses differ by "
            f"{difference:.2e} nats, expected at most {bound:.1e}; a layer of "
            f"{type(batch.model).__name__} reads more than the residual stream"
        )
