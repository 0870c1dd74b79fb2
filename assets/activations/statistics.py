"""Row norms, massive tokens, and what a site's activations look like by position.

A few tokens, mostly the first of a text, act as attention sinks and have rows many times longer
than all others (Sun et al. 2024, "Massive Activations in Large Language Models"). They would
dominate every squared error: a dictionary that explains only them reads as near-perfect. A token
is massive when its row norm exceeds `massive_norm_ratio` times the median norm of the site's
rows; the median, unlike the mean, does not move with them. The default, 5, is measured: SmolLM2's
sinks at layer 29 sit at 8.6 medians and carry 78 % of the energy, while in 21 of its 30 layers no
row is above 4.3; they are also not only first tokens (layer 2: positions 0 to 5). What
fits do with massive rows is factorization's matter.

How sparse a row is, is told in two more ways: Hoyer's measure (√d − |a|₁/|a|₂) / (√d − 1), 0 for
equal values and 1 for a single one (Hoyer 2004, section 3.1), and how many of its largest neurons
carry half of its squared norm. How much each neuron is used is neuron_statistics.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from assets.activations.neuron_statistics import NeuronStatistics
from assets.activations.shards import ActivationReader
from assets.activations.tokenization import TokenizedDocument

NEAR_ZERO = 1e-3
"""A value is near zero up to this share of its row's largest absolute value."""

POSITION_GROUPS: Mapping[str, tuple[int, int | None]] = {
    "all": (0, None),
    "0": (0, 1),
    "1": (1, 2),
    "2-7": (2, 8),
    "8+": (8, None),
}
"""Group name to (first position, position after the last)."""


@dataclass(frozen=True)
class RowStatistics:
    """One value a row: L2 norm, share of values above zero, share of values near zero, Hoyer's
    sparsity and the neurons that carry half of the energy (both NaN for a row of zeros)."""

    norms: Float[Tensor, " n_rows"]
    share_positive: Float[Tensor, " n_rows"]
    share_near_zero: Float[Tensor, " n_rows"]
    hoyer_sparsity: Float[Tensor, " n_rows"]
    neurons_for_half_energy: Float[Tensor, " n_rows"]


def row_statistics(reader: ActivationReader) -> RowStatistics:
    """One pass over the shards, one shard in memory at a time."""
    norms, positive, near_zero, hoyer, half = [], [], [], [], []
    for _, rows in reader.iter_shards(torch.float32):
        norms.append(rows.norm(dim=1))
        positive.append((rows > 0).float().mean(dim=1))
        largest = rows.abs().amax(dim=1, keepdim=True)
        near_zero.append((rows.abs() <= NEAR_ZERO * largest).float().mean(dim=1))
        hoyer.append(hoyer_sparsity(rows))
        half.append(neurons_for_half_energy(rows))
    return RowStatistics(*(torch.cat(parts) for parts in (norms, positive, near_zero, hoyer, half)))


def hoyer_sparsity(rows: Float[Tensor, "n_rows d"]) -> Float[Tensor, " n_rows"]:
    """0 where all of a row's values are equally large, 1 where one is not zero; NaN for zeros."""
    root = rows.shape[1] ** 0.5
    if root == 1:
        return torch.where(rows[:, 0] == 0, torch.nan, 1.0)
    return (root - rows.abs().sum(dim=1) / rows.norm(dim=1)) / (root - 1)


def neurons_for_half_energy(rows: Float[Tensor, "n_rows d"]) -> Float[Tensor, " n_rows"]:
    """The fewest neurons whose squares make half of a row's squared norm; NaN for zeros."""
    energy = rows.square().sort(dim=1, descending=True).values.cumsum(dim=1)
    total = energy[:, -1:]
    count = (energy < total / 2).sum(dim=1) + 1
    return torch.where(total[:, 0] == 0, torch.nan, count.float())


def massive_rows(
    norms: Float[Tensor, " n_rows"], massive_norm_ratio: float
) -> Bool[Tensor, " n_rows"]:
    """Rows whose norm exceeds `massive_norm_ratio` times the median norm."""
    return norms > massive_norm_ratio * norms.median()


def token_positions(documents: Sequence[TokenizedDocument]) -> Int[Tensor, " n_rows"]:
    """The position of each activation row's token in its document, special prefix counted."""
    return torch.cat(
        [torch.arange(d.n_special_prefix, len(d.token_ids)) for d in documents]
        or [torch.zeros(0, dtype=torch.long)]
    )


def token_frame(
    documents: Sequence[TokenizedDocument],
    pieces: Mapping[int, str],
    norms: Float[Tensor, " n_rows"],
    is_massive: Bool[Tensor, " n_rows"],
) -> pl.DataFrame:
    """Rows of `tokens`, in the order of the activation rows, without the site.

    `pieces` maps token ids to text (tokenization.token_pieces). Raises ValueError when the
    documents have another number of tokens than the activations have rows.
    """
    positions = token_positions(documents)
    if not len(positions) == len(norms) == len(is_massive):
        raise ValueError(
            f"documents have {len(positions)} tokens, the activations {len(norms)} rows and "
            f"{len(is_massive)} flags; expected one row a token: capture these documents again"
        )
    token_ids = [t for d in documents for t in d.token_ids[d.n_special_prefix :]]
    return pl.DataFrame(
        {
            "row": range(len(positions)),
            "document_id": [d.document_id for d in documents for _ in range(d.n_rows)],
            "position": positions.tolist(),
            "token_id": token_ids,
            "token": [pieces[token_id] for token_id in token_ids],
            "row_norm": norms.tolist(),
            "is_massive": is_massive.tolist(),
        },
        schema={
            "row": pl.Int64,
            "document_id": pl.String,
            "position": pl.Int32,
            "token_id": pl.Int32,
            "token": pl.String,
            "row_norm": pl.Float32,
            "is_massive": pl.Boolean,
        },
    )


def stats_frame(
    rows: RowStatistics,
    positions: Int[Tensor, " n_rows"],
    is_massive: Bool[Tensor, " n_rows"],
    neurons: NeuronStatistics | None = None,
) -> pl.DataFrame:
    """Rows of `activation_stats`, without the site; position groups without tokens are left out.

    `neurons` are of all positions, so that only the group "all" has what they say.
    """
    groups = []
    for name, (first, end) in POSITION_GROUPS.items():
        chosen = positions >= first
        if end is not None:
            chosen &= positions < end
        if not chosen.any():
            continue
        norms = rows.norms[chosen].double()
        massive = is_massive[chosen]
        energy = norms.square()
        total = float(energy.sum())
        groups.append(
            {
                "position_group": name,
                "n_tokens": len(norms),
                "norm_mean": float(norms.mean()),
                "norm_median": float(norms.median()),
                "norm_max": float(norms.max()),
                "n_massive": int(massive.sum()),
                "share_energy_massive": float(energy[massive].sum()) / total if total else None,
                "share_positive": float(rows.share_positive[chosen].mean()),
                "share_near_zero": float(rows.share_near_zero[chosen].mean()),
                "hoyer_sparsity": _mean(rows.hoyer_sparsity[chosen]),
                "neurons_for_half_energy": _mean(rows.neurons_for_half_energy[chosen]),
                "share_neurons_lazy": neurons.share_lazy if neurons and name == "all" else None,
                "share_neurons_dead": neurons.share_dead if neurons and name == "all" else None,
            }
        )
    return pl.DataFrame(groups)


def _mean(values: Float[Tensor, " n"]) -> float | None:
    """Mean of the values that are numbers; None where there are none."""
    known = values[~values.isnan()].double()
    return float(known.mean()) if len(known) else None
