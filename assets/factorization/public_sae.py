"""A public sparse autoencoder as a method: its strongest latents on this corpus are the features.

    A ≈ coefficients @ dictionary + offset

with decoder rows brought to unit norm and their norms moved into the coefficients. Where the SAE
normalises each token by its own scale and shift, these go into the coefficients too; only the
offset, which is one vector here, takes their mean over the fit's tokens. Nothing is fitted. The
files and the encoder are saelens_format.py.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.site_names import ActivationSite
from assets.factorization.factorization import Factors, FitTask
from assets.factorization.inputs import FactorizationError, mean_row_norm
from assets.factorization.saelens_format import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    PublicSae,
    read_public_sae,
    site_of_hook,
)
from assets.factorization.sparse_rows import unit_rows

HUB_PREFIX = "hf://"
# Activations of all latents held at a time, in numbers.
ENCODED_NUMBERS = 64_000_000


def fit_public_sae(task: FitTask) -> Factors:
    """The latents of the folder's SAE that fire on the fit's tokens, strongest first.

    At most the task's rank of them, by energy over the fit's tokens; all where the fit has none.
    Raises FactorizationError where the folder, the width or the site is not the fit's.
    """
    folder = task.sae_folder or Path(str(task.fit.path))
    sae = _on_device_of(read_public_sae(folder), task.activations)
    _check_site(sae, folder, task)
    sample = task.activations[task.is_fit]
    mean_norm = mean_row_norm(sample)
    energy = task.activations.new_zeros(sae.n_latents, dtype=torch.float64)
    chunk = max(1, ENCODED_NUMBERS // sae.n_latents)
    for part in sample.split(chunk):
        energy += _coefficients(sae, part, mean_norm).double().square().sum(dim=0)
    n_live = int((energy > 0).sum())
    if n_live == 0:
        raise FactorizationError(
            f"{folder}: none of the {sae.n_latents} latents fires on the fit's {len(sample)} "
            "tokens; is the SAE of this model, layer and kind of site?"
        )
    n_kept = n_live if task.fit.rank is None else min(task.rank, n_live)
    kept = energy.argsort(descending=True, stable=True)[:n_kept]
    return Factors(
        dictionary=unit_rows(sae.weights["W_dec"][kept]),
        coefficients=torch.cat(
            [_coefficients(sae, part, mean_norm)[:, kept] for part in task.activations.split(chunk)]
        ),
        n_iter=0,
        is_converged=True,
        stop_reason=(
            f"read, not fitted ({sae.architecture}): {n_kept} of {sae.n_latents} latents kept, "
            f"{n_live} fire on the fit's tokens"
        ),
        objective_trace=[],
        feature_names=[f"latent {latent}" for latent in kept.tolist()],
        offset=_offset(sae, sample, mean_norm),
    )


def sae_folder(path: str, site: ActivationSite, study_folder: Path | None = None) -> Path:
    """The local folder that a fit's `path` names for a site.

    A relative path starts at the study file's folder, then at the working folder. A path
    hf://<owner>/<repository>/<folder> is fetched by huggingface_hub into its cache.
    """
    named = path.replace("{layer}", str(site.layer)).replace("{kind}", site.kind)
    if named.startswith(HUB_PREFIX):
        return _from_hub(named)
    given = Path(named).expanduser()
    starts = [Path.cwd()] if study_folder is None else [study_folder, Path.cwd()]
    candidates = [(start / given).resolve() for start in starts]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FactorizationError(
        f"sae path {path!r}: no such folder; looked at {', '.join(map(str, candidates))}: mend the "
        f"path in the study, or name a repository by {HUB_PREFIX}<owner>/<repository>/<folder>"
    )


def sae_fingerprint(folder: Path) -> str:
    """sha256 over both files of a public SAE, so that new weights make a new fit."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _coefficients(
    sae: PublicSae, rows: Float[Tensor, "n d"], mean_norm: float
) -> Float[Tensor, "n d_sae"]:
    prepared, scale, _ = sae.prepared(rows, mean_norm)
    return sae.encode(prepared) * scale


def _offset(sae: PublicSae, sample: Float[Tensor, "n d"], mean_norm: float) -> Float[Tensor, " d"]:
    _, scale, shift = sae.prepared(sample, mean_norm)
    return sae.weights["b_dec"] * scale.mean() + shift.mean()


def _on_device_of(sae: PublicSae, activations: Tensor) -> PublicSae:
    weights = {name: tensor.to(activations) for name, tensor in sae.weights.items()}
    return PublicSae(**{**vars(sae), "weights": weights})


def _check_site(sae: PublicSae, folder: Path, task: FitTask) -> None:
    width = task.activations.shape[1]
    if sae.width != width:
        raise FactorizationError(
            f"{folder}: the SAE has d_in {sae.width}; expected the site's width {width}: it is of "
            "another model or kind of site"
        )
    made_for = site_of_hook(sae.hook_name)
    if made_for is not None and task.site is not None and made_for != task.site:
        raise FactorizationError(
            f"{folder}: the SAE is of hook {sae.hook_name!r}, site {made_for.key}; expected site "
            f"{task.site.key}: take the SAE of that site ({{layer}} in the path stands for the "
            "layer), or run the fit at the SAE's by `kinds` and the model's layers"
        )


def _from_hub(path: str) -> Path:
    from huggingface_hub import snapshot_download

    parts = path.removeprefix(HUB_PREFIX).strip("/").split("/")
    if len(parts) < 2:
        raise FactorizationError(
            f"sae path {path!r} names no repository; expected {HUB_PREFIX}<owner>/<repository>/"
            "<folder>"
        )
    inside = "/".join(parts[2:])
    wanted = [f"{inside}/{name}".lstrip("/") for name in (CONFIG_FILE, WEIGHTS_FILE)]
    try:
        return Path(snapshot_download("/".join(parts[:2]), allow_patterns=wanted)) / inside
    except Exception as error:  # the hub's client fails in many ways: offline, 404, gated
        raise FactorizationError(
            f"sae path {path!r} could not be fetched: {error}; check the spelling and the network, "
            "or give a local folder"
        ) from error
