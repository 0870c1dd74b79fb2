"""How a token gets its coefficients where a method has an encoder: sae, transcoder and kmeans.

    p = x W_encᵀ + b,    only the features of a token's n_active largest p may fire, at
    sae, transcoder      y = max(0, p)
    kmeans               y = max(0, x · w / |w|), n_active = 1: p is largest at the nearest centroid

for rows x of the site that the method reads (a transcoder: the MLP's input). k-means in this form:
|x - c|² is least where x · c - ½ |c|² is largest. How encoders come about is in the methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from assets.factorization.sparse_rows import unit_rows
from assets.factorization.tables import ENCODERS

ENCODED_AT_A_TIME = 8_192


@dataclass(frozen=True)
class Encoder:
    """Rows of weights and biases, a feature each, in the units of the activations.

    `is_projection` where the coefficient is the length along the feature's weights, not p itself.
    """

    weights: Float[Tensor, "k d_in"]
    bias: Float[Tensor, " k"]
    n_active: int
    is_projection: bool = False

    def encode(self, inputs: Float[Tensor, "n d_in"]) -> Float[Tensor, "n k"]:
        """Coefficients >= 0 of each row of `inputs`, at most n_active of them above zero."""
        parts = [self._encode(part) for part in inputs.split(ENCODED_AT_A_TIME)]
        return torch.cat(parts)

    def _encode(self, inputs: Float[Tensor, "n d_in"]) -> Float[Tensor, "n k"]:
        weights, bias = self.weights.to(inputs), self.bias.to(inputs)
        potential = inputs @ weights.t() + bias
        values = inputs @ unit_rows(weights).t() if self.is_projection else potential
        if self.n_active < len(weights):
            chosen = potential.topk(self.n_active, dim=1).indices
            values = torch.zeros_like(values).scatter(1, chosen, values.gather(1, chosen))
        return values.clamp(min=0)


def encoder_frame(encoder: Encoder | None, feature_ids: Sequence[int]) -> pl.DataFrame:
    """Rows of `encoders` without site and fit; none for a method without an encoder."""
    schema = {c.name: c.polars_type for c in ENCODERS.columns if c.name not in ("site", "fit")}
    if encoder is None:
        return pl.DataFrame(schema=schema)
    return pl.DataFrame(
        {
            "feature_id": list(feature_ids),
            "weights": _as_lists(encoder.weights),
            "bias": encoder.bias.detach().float().cpu().numpy(),
            "n_active": encoder.n_active,
            "is_projection": encoder.is_projection,
        },
        schema_overrides=schema,
    ).select(*schema)


def _as_lists(matrix: Float[Tensor, "k d"]) -> pl.Series:
    return pl.Series(matrix.detach().float().cpu().numpy()).arr.to_list()


def encoder_of(frame: pl.DataFrame, feature_ids: Sequence[int]) -> Encoder | None:
    """The encoder in rows of `encoders` of one site and fit, its rows as in `feature_ids`.

    None where there are none, or rows of other features: what an older version wrote beside them.
    """
    order = pl.DataFrame({"feature_id": list(feature_ids)}, schema={"feature_id": pl.Int32})
    rows = order.join(frame, on="feature_id", how="left", maintain_order="left")
    if frame.is_empty() or len(frame) != len(order) or rows["bias"].null_count():
        return None
    weights = rows["weights"].explode().to_numpy().reshape(len(rows), -1)
    return Encoder(
        weights=torch.tensor(weights),
        bias=torch.from_numpy(rows["bias"].to_numpy(writable=True)),
        n_active=rows["n_active"][0],
        is_projection=rows["is_projection"][0],
    )
