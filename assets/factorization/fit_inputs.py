"""What a fit reads, and the hash by which a later run sees that it has not changed.

Reading it from the lake belongs to definitions.py, using it to fitting.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assets.activations.site_names import ActivationSite
from assets.factorization.config import FitConfig
from assets.factorization.refit import SEPARATOR


@dataclass(frozen=True)
class FitInputs:
    """Everything but the activations themselves, one entry a token.

    `shards` are checksums of the activations' files, in order. `input_shards`, `sae_folder` and
    `sae_fingerprint` belong to the methods that read another site or a public SAE.
    """

    shards: Sequence[str]
    documents: Sequence[str]
    is_massive: Bool[Tensor, " n_tokens"]
    concepts: Sequence[str | None]
    is_held_out: Bool[Tensor, " n_tokens"]
    site: ActivationSite | None = None
    input_shards: Sequence[str] = ()
    sae_folder: Path | None = None
    sae_fingerprint: str | None = None

    def fingerprint(self, settings: str, fit: FitConfig) -> str:
        """`settings` and a hash (16 hex digits) of the inputs that the fit's method uses."""
        digest = hashlib.sha256()
        parts: list[bytes] = [
            "|".join(self.shards).encode(),
            "|".join(self.input_shards).encode(),
            (self.sae_fingerprint or "").encode(),
            self.is_massive.cpu().numpy().tobytes(),
        ]
        if fit.is_supervised:
            parts += [repr(list(self.concepts)).encode(), self.is_held_out.cpu().numpy().tobytes()]
        if fit.rank == "auto":
            parts.append(repr(list(self.documents)).encode())
        for part in parts:
            digest.update(len(part).to_bytes(8, "little") + part)
        return f"{settings}{SEPARATOR}{digest.hexdigest()[:16]}"

    def is_fit(self, fit: FitConfig) -> Bool[Tensor, " n_tokens"]:
        """The tokens that the method fits: not massive, and not held out where it is supervised."""
        return ~self.is_massive & ~self.is_held_out if fit.is_supervised else ~self.is_massive

    def fitted_concepts(self, fit: FitConfig) -> set[str]:
        """Concepts among the tokens of the fit."""
        used = zip(self.concepts, self.is_fit(fit).tolist(), strict=True)
        return {concept for concept, is_used in used if is_used and concept}

    def document_index(self) -> np.ndarray:
        """For each token the number of its document."""
        return np.unique(np.asarray(self.documents), return_inverse=True)[1]


def activations_scale(
    activations: Float[Tensor, "n_tokens d"], is_massive: Bool[Tensor, " n_tokens"]
) -> float:
    """Mean row norm of the tokens that aren't massive, by which a fit divides A."""
    rows = activations[~is_massive.to(activations.device)]
    return float(torch.linalg.vector_norm(rows.float(), dim=1).mean(dtype=torch.float64))
