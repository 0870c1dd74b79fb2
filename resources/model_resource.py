"""The subject model as a Dagster resource: the cache folder, and loading by a study's entry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from assets.activations.config import ModelConfig

if TYPE_CHECKING:
    from resources.subject_model import SubjectModel


class SubjectModelResource(dg.ConfigurableResource):
    """Loads the model that a study names; one copy stays in memory for the process."""

    cache_folder: str
    device: str | None = None

    def load(self, model: ModelConfig) -> SubjectModel:
        from resources.subject_model import load_subject_model

        return load_subject_model(
            model.source,
            revision=model.revision,
            dtype=model.dtype,
            device=self.device,
            cache_folder=Path(self.cache_folder) / "models",
        )

    def revision(self, model: ModelConfig) -> str:
        """What identifies the model's files now; nothing is loaded."""
        from resources.model_sources import source_revision

        return source_revision(model.source, model.revision, Path(self.cache_folder) / "models")
