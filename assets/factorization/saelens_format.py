"""Public sparse autoencoders in SAELens format: a folder's two files, and what they compute.

`cfg.json` names the architecture and how inputs are prepared; `sae_weights.safetensors` holds
W_enc, b_enc, W_dec, b_dec and what the architecture adds. With x the prepared input, h = x W_enc +
b_enc:

    standard   relu(h)
    topk       the k largest of h (times the decoder norms where the config says so), relu
    jumprelu   relu(h) where h > threshold (BatchTopK autoencoders are saved as this)
    gated      relu(x (W_enc exp(r_mag)) + b_mag) where x W_enc + b_gate > 0

The format is that of SAELens 6 (Bloom, Tigges, Duong, Chanin; sae_lens/saes) and of its older
flat configs. Weights are read by safetensors alone. Which latents become features is public_sae.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from assets.activations.site_names import ActivationSite
from assets.factorization.inputs import FactorizationError

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
EXTRA_WEIGHTS = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
NORMALIZATIONS = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm")
# TransformerLens's names of hooks, as far as they are sites here; resid_pre is a block earlier.
_HOOK_PATTERN = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<hook>.+)")
_KINDS_OF_HOOKS = {
    "hook_resid_post": "resid_post",
    "hook_resid_pre": "resid_post",
    "hook_mlp_out": "mlp_out",
    "hook_attn_out": "attn_out",
    "mlp.hook_post": "mlp_hidden",
}
_LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class PublicSae:
    """A sparse autoencoder as its files say; weights by SAELens's names, in float32."""

    architecture: str
    weights: dict[str, Tensor]
    normalization: str
    applies_decoder_bias: bool
    hook_name: str | None
    k: int | None
    rescales_by_decoder_norm: bool

    @property
    def width(self) -> int:
        return self.weights["W_dec"].shape[1]

    @property
    def n_latents(self) -> int:
        return self.weights["W_dec"].shape[0]

    def encode(self, prepared: Float[Tensor, "n d"]) -> Float[Tensor, "n d_sae"]:
        """Latent activations, as coefficients of decoder rows of unit norm."""
        weights = self.weights
        norms = torch.linalg.vector_norm(weights["W_dec"], dim=1)
        if self.applies_decoder_bias:
            prepared = prepared - weights["b_dec"]
        hidden = prepared @ weights["W_enc"]
        if self.architecture == "gated":
            is_open = hidden + weights["b_gate"] > 0
            magnitudes = hidden * weights["r_mag"].exp() + weights["b_mag"]
            active = torch.relu(magnitudes) * is_open
        elif self.architecture == "jumprelu":
            hidden = hidden + weights["b_enc"]
            active = torch.relu(hidden) * (hidden > weights["threshold"])
        elif self.architecture == "topk":
            assert self.k is not None  # read_public_sae sees to it
            hidden = hidden + weights["b_enc"]
            if self.rescales_by_decoder_norm:
                hidden = hidden * norms
            largest = hidden.topk(self.k, dim=1)
            active = torch.zeros_like(hidden).scatter(1, largest.indices, largest.values.relu())
            if self.rescales_by_decoder_norm:
                return active
        else:
            active = torch.relu(hidden + weights["b_enc"])
        return active * weights.get("finetuning_scaling_factor", 1.0) * norms

    def prepared(
        self, rows: Float[Tensor, "n d"], mean_norm: float
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
        """Rows as the encoder wants them, with scale and shift: rows = prepared * scale + shift.

        `mean_norm` is the mean row norm of the corpus, from which expected_average_only_in takes
        its one scale (SAELens estimates it so where it isn't folded into the weights).
        """
        shift = rows.new_zeros(len(rows), 1)
        scale = torch.ones_like(shift)
        root_width = rows.shape[1] ** 0.5
        if self.normalization == "expected_average_only_in":
            scale = scale * (mean_norm / root_width)
        elif self.normalization == "constant_norm_rescale":
            norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            scale = torch.where(norms > 0, norms, 1.0) / root_width
        elif self.normalization == "layer_norm":
            shift = rows.mean(dim=1, keepdim=True)
            scale = (rows - shift).std(dim=1, keepdim=True) + _LAYER_NORM_EPSILON
        return (rows - shift) / scale, scale, shift


def read_public_sae(folder: Path) -> PublicSae:
    """The autoencoder in a folder; FactorizationError names the file for anything else."""
    config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    for path in (config_path, weights_path):
        if not path.is_file():
            raise FactorizationError(
                f"no file {path}; expected a folder in SAELens format with {CONFIG_FILE} and "
                f"{WEIGHTS_FILE}: mend the fit's path"
            )
    config = _config(config_path)
    architecture = str(config["architecture"])
    # Until SAELens 6, TopK was a standard architecture with another activation function.
    if architecture == "standard" and config.get("activation_fn") == "topk":
        architecture = "topk"
    if architecture not in EXTRA_WEIGHTS:
        raise FactorizationError(
            f"{config_path}: found architecture {architecture!r}; expected one of "
            f"{', '.join(EXTRA_WEIGHTS)}"
        )
    if config["normalize_activations"] not in NORMALIZATIONS:
        raise FactorizationError(
            f"{config_path}: found normalize_activations {config['normalize_activations']!r}; "
            f"expected one of {', '.join(NORMALIZATIONS)}"
        )
    if config.get("reshape_activations", "none") != "none":
        raise FactorizationError(
            f"{config_path}: reshape_activations {config['reshape_activations']!r} belongs to an "
            "attention's inner values, which are no activation site here; choose another SAE"
        )
    k = config.get("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    weights = _weights(weights_path, architecture)
    n_latents = weights["W_dec"].shape[0]
    if architecture == "topk" and not (isinstance(k, int) and 1 <= k <= n_latents):
        raise FactorizationError(
            f"{config_path}: found k {k!r} for a topk SAE of {n_latents} latents; expected the "
            "number of active latents"
        )
    return PublicSae(
        architecture=architecture,
        weights=weights,
        normalization=config["normalize_activations"],
        applies_decoder_bias=bool(config["apply_b_dec_to_input"]),
        hook_name=config.get("hook_name"),
        k=k,
        rescales_by_decoder_norm=bool(config.get("rescale_acts_by_decoder_norm", False)),
    )


def site_of_hook(hook_name: str | None) -> ActivationSite | None:
    """The site that a TransformerLens hook is; None for hooks that are none or are unknown."""
    match = _HOOK_PATTERN.fullmatch(hook_name or "")
    if match is None or match["hook"] not in _KINDS_OF_HOOKS:
        return None
    layer = int(match["layer"]) - (match["hook"] == "hook_resid_pre")
    return ActivationSite(layer, _KINDS_OF_HOOKS[match["hook"]]) if layer >= 0 else None


def _config(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FactorizationError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(raw, dict):
        raise FactorizationError(f"{path} holds {type(raw).__name__}; expected an object")
    config = {**(raw.get("metadata") or {}), **raw}
    for old, new in (("hook_point", "hook_name"), ("activation_fn_str", "activation_fn")):
        config.setdefault(new, config.get(old))
    defaults = {"architecture": "standard", "apply_b_dec_to_input": True}
    config = {**defaults, **config}
    normalization = config.get("normalize_activations") or "none"
    # An old flag in place of the name.
    config["normalize_activations"] = (
        "expected_average_only_in" if normalization is True else normalization
    )
    return config


def _weights(path: Path, architecture: str) -> dict[str, Tensor]:
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise FactorizationError(f"{path} is no readable safetensors file: {error}") from error
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").exp()
    if "scaling_factor" in tensors:
        tensors["finetuning_scaling_factor"] = tensors.pop("scaling_factor")
    wanted = ("W_enc", "W_dec", "b_dec", *EXTRA_WEIGHTS[architecture])
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise FactorizationError(
            f"{path}: {', '.join(missing)} missing for architecture {architecture}; found "
            f"{', '.join(sorted(tensors))}"
        )
    if tensors["W_dec"].ndim != 2:
        raise FactorizationError(
            f"{path}: W_dec has shape {list(tensors['W_dec'].shape)}; expected [d_sae, d_in]"
        )
    n_latents, width = tensors["W_dec"].shape
    shapes = {"W_enc": (width, n_latents), "W_dec": (n_latents, width), "b_dec": (width,)}
    for name, tensor in tensors.items():
        expected = shapes.get(name, (n_latents,))
        is_used = name in wanted or name == "finetuning_scaling_factor"
        if is_used and tuple(tensor.shape) != expected:
            raise FactorizationError(
                f"{path}: {name} has shape {list(tensor.shape)}; expected {list(expected)} beside "
                f"W_dec [{n_latents}, {width}]"
            )
    return tensors
