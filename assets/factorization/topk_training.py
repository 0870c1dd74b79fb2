"""Training a TopK encoder and decoder: what the sparse autoencoder and the transcoder share.

    z = TopK(relu((x - b_in) W_enc + b_enc)),   ŷ = z W_dec + b_dec,   rows of W_dec of unit norm
    loss = |y - ŷ|² / |y - mean|²  +  AUX_WEIGHT · |e - ê|² / |e|²,    e = y - ŷ

where ê is what the dead latents (silent for an epoch's worth of tokens) reconstruct of the error
e: they get a gradient and come back. Gao et al. 2024, "Scaling and evaluating sparse autoencoders"
(arXiv 2406.04093), sections 2 and A. An autoencoder is the case y = x, with b_in = b_dec and W_enc
starting as W_decᵀ (tied). Inputs and outputs are each divided by their mean row norm.

The step size is constant until the objective plateaus (or the epochs run out), then falls to zero
over a quarter of the epochs so far. What the factors mean is sparse_autoencoder.py, transcoder.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from assets.factorization.encoder import Encoder
from assets.factorization.inputs import mean_row_norm

AUX_WEIGHT = 1 / 32
ADAM_EPSILON = 6.25e-10
# Epochs over which a plateau is seen: their mean objective against that of as many before.
PLATEAU_EPOCHS = 10
# Of all epochs this share is kept for the falling step size.
COOLING_SHARE = 0.2
# The paper's step size, 2e-4 at 2^14 latents, falling with the root of their number.
LARGEST_LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class TopKSettings:
    """Sizes and limits of a training; `for_fit` gives the defaults that follow from the data."""

    n_features: int
    active_features: int
    learning_rate: float
    batch_tokens: int
    max_epochs: int
    tol: float
    seed: int
    is_tied: bool

    @classmethod
    def for_fit(
        cls,
        n_features: int,
        n_tokens: int,
        *,
        active_features: int | None,
        learning_rate: float | None,
        batch_tokens: int | None,
        max_epochs: int,
        tol: float,
        seed: int,
        is_tied: bool,
    ) -> TopKSettings:
        """Settings with the defaults of FitConfig in place of None."""
        return cls(
            n_features=n_features,
            active_features=active_features or min(32, max(1, n_features // 4)),
            learning_rate=learning_rate
            or min(LARGEST_LEARNING_RATE, 2e-4 * math.sqrt(2**14 / n_features)),
            batch_tokens=batch_tokens or min(4096, max(32, n_tokens // 16)),
            max_epochs=max_epochs,
            tol=tol,
            seed=seed,
            is_tied=is_tied,
        )


@dataclass(frozen=True)
class TopKWeights:
    """A trained encoder and decoder, in the units of the activations."""

    encoder: Float[Tensor, "d_in k"]
    encoder_bias: Float[Tensor, " k"]
    input_bias: Float[Tensor, " d_in"]
    dictionary: Float[Tensor, "k d_out"]
    offset: Float[Tensor, " d_out"]
    input_scale: float
    output_scale: float
    active_features: int

    def as_encoder(self) -> Encoder:
        """What gives inputs their coefficients, with the scales and the input's bias folded in."""
        weights = self.encoder.t() / self.input_scale
        bias = self.encoder_bias - weights @ self.input_bias
        return Encoder(weights * self.output_scale, bias * self.output_scale, self.active_features)


@dataclass(frozen=True)
class TopKTraining:
    """Trained weights, and how the training went.

    Traces are means over an epoch's batches, of weights that move within it: `objective_trace` the
    squared error of a token in scaled units, `explained_variance_trace` the uncentred one.
    """

    weights: TopKWeights
    objective_trace: list[float]
    explained_variance_trace: list[float]
    is_converged: bool
    stop_reason: str


def train_topk(
    inputs: Float[Tensor, "n d_in"],
    outputs: Float[Tensor, "n d_out"],
    settings: TopKSettings,
    on_epoch: Callable[[int, float], None] | None = None,
) -> TopKTraining:
    """Train on rows of `inputs` and the rows of `outputs` that they should give.

    Converged means that the objective plateaued before the epochs ran out: its mean over
    PLATEAU_EPOCHS epochs fell by less than `tol` an epoch, relative to the PLATEAU_EPOCHS before.
    Raises FactorizationError where all rows of an input or output are zero.
    """
    trainer = _Trainer(inputs, outputs, settings)
    objectives: list[float] = []
    explained: list[float] = []

    def run(learning_rate: float) -> None:
        error = trainer.epoch(learning_rate)
        objectives.append(error)
        explained.append(1 - error / trainer.energy)
        if on_epoch is not None:
            on_epoch(len(objectives), error)

    n_constant = max(1, round((1 - COOLING_SHARE) * settings.max_epochs))
    is_converged = False
    while len(objectives) < n_constant and not is_converged:
        run(settings.learning_rate)
        is_converged = has_plateaued(objectives, settings.tol)
    n_plateau = len(objectives)
    share = COOLING_SHARE / (1 - COOLING_SHARE)
    n_cooling = min(math.ceil(share * n_plateau), settings.max_epochs - n_plateau)
    for i in range(n_cooling):
        run(settings.learning_rate * (1 - (i + 1) / (n_cooling + 1)))
    if is_converged:
        reason = (
            f"the objective fell by less than {settings.tol:g} an epoch over {PLATEAU_EPOCHS} "
            f"epochs; then {n_cooling} epochs of falling step size"
        )
    else:
        reason = f"{settings.max_epochs} epochs run out before the objective plateaued"
    return TopKTraining(trainer.weights(), objectives, explained, is_converged, reason)


def has_plateaued(objectives: list[float], tol: float) -> bool:
    """Whether the last epochs' mean objective is hardly below that of as many before."""
    if len(objectives) < 2 * PLATEAU_EPOCHS:
        return False
    before = math.fsum(objectives[-2 * PLATEAU_EPOCHS : -PLATEAU_EPOCHS])
    last = math.fsum(objectives[-PLATEAU_EPOCHS:])
    return before - last <= tol * PLATEAU_EPOCHS * before


class _Trainer:
    """Parameters, optimizer and the count of tokens since each latent fired."""

    def __init__(self, inputs: Tensor, outputs: Tensor, settings: TopKSettings) -> None:
        self.settings = settings
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.input_scale, self.output_scale = mean_row_norm(inputs), mean_row_norm(outputs)
        self.inputs = inputs / self.input_scale
        self.outputs = self.inputs if settings.is_tied else outputs / self.output_scale
        mean = self.outputs.mean(dim=0)
        self.energy = float(self.outputs.square().sum(dim=1).mean())
        # Rows that are all alike leave nothing but their mean, which the bias is from the start.
        spread = float((self.outputs - mean).square().sum(dim=1).mean())
        self.spread = max(spread, 1e-6 * self.energy)
        self.input_mean = self.inputs.mean(dim=0)
        k, like = settings.n_features, self.outputs
        decoder = normalize(torch.randn(k, like.shape[1], generator=self.generator), dim=1)
        if settings.is_tied:
            encoder = decoder.t().clone()
        else:
            encoder = normalize(
                torch.randn(self.inputs.shape[1], k, generator=self.generator), dim=0
            )
        self.decoder = decoder.to(like).requires_grad_()
        self.encoder = encoder.to(like).requires_grad_()
        self.encoder_bias = like.new_zeros(k).requires_grad_()
        self.offset = mean.clone().requires_grad_()
        self.optimizer = torch.optim.Adam(
            [self.encoder, self.encoder_bias, self.decoder, self.offset],
            lr=settings.learning_rate,
            eps=ADAM_EPSILON,
        )
        self.silent_tokens = torch.zeros(k, dtype=torch.long, device=like.device)

    def epoch(self, learning_rate: float) -> float:
        """One pass over the tokens in a new order; the mean squared error of a token."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        order = torch.randperm(len(self.inputs), generator=self.generator)
        errors = [
            self._step(batch.to(self.inputs.device)) * len(batch)
            for batch in order.split(self.settings.batch_tokens)
        ]
        return float(torch.stack(errors).sum()) / len(self.inputs)

    def _step(self, batch: Tensor) -> Tensor:
        target = self.outputs[batch]
        input_bias = self.offset if self.settings.is_tied else self.input_mean
        latents = torch.relu((self.inputs[batch] - input_bias) @ self.encoder + self.encoder_bias)
        active = _top_k(latents, self.settings.active_features)
        error = target - (active @ self.decoder + self.offset)
        squared = error.square().sum(dim=1).mean()
        loss = squared / self.spread
        is_dead = self.silent_tokens >= len(self.inputs)
        if is_dead.any():
            loss = loss + AUX_WEIGHT * self._auxiliary(latents, error.detach(), is_dead)
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            self._keep_rows_unit()
            has_fired = (active > 0).any(dim=0)
            self.silent_tokens = torch.where(has_fired, 0, self.silent_tokens + len(batch))
        return squared.detach()

    def _auxiliary(self, latents: Tensor, error: Tensor, is_dead: Tensor) -> Tensor:
        """Share of the error that the dead latents leave; half the width of them may be active."""
        n_active = min(int(is_dead.sum()), max(1, error.shape[1] // 2))
        revived = _top_k(latents[:, is_dead], n_active) @ self.decoder[is_dead]
        energy = error.square().sum().clamp(min=torch.finfo(error.dtype).tiny)
        return (error - revived).square().sum() / energy

    def _keep_rows_unit(self) -> None:
        """A step along the sphere: the gradient without its part along each row, then its norm."""
        gradient = self.decoder.grad
        assert gradient is not None  # the loss always reads the decoder
        along = (gradient * self.decoder).sum(dim=1, keepdim=True)
        gradient.sub_(along * self.decoder)
        self.optimizer.step()
        self.decoder.copy_(normalize(self.decoder, dim=1))

    def weights(self) -> TopKWeights:
        offset = self.offset.detach()
        input_bias = offset if self.settings.is_tied else self.input_mean
        return TopKWeights(
            encoder=self.encoder.detach(),
            encoder_bias=self.encoder_bias.detach(),
            input_bias=input_bias * self.input_scale,
            dictionary=self.decoder.detach(),
            offset=offset * self.output_scale,
            input_scale=self.input_scale,
            output_scale=self.output_scale,
            active_features=self.settings.active_features,
        )


def _top_k(latents: Float[Tensor, "n k"], n_active: int) -> Float[Tensor, "n k"]:
    """The n_active largest of each row, the others zero."""
    if n_active >= latents.shape[1]:
        return latents
    largest = latents.topk(n_active, dim=1)
    return torch.zeros_like(latents).scatter(1, largest.indices, largest.values)
