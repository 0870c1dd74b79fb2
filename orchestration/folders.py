"""Where things lie by default: the project's folders, or where FEATURELAKE_* variables say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from resources.chat_resource import ChatResource
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource

PROJECT_FOLDER = Path(__file__).resolve().parent.parent


def default_resources() -> dict[str, Any]:
    """Resources in the project's folder, or where FEATURELAKE_* environment variables say."""

    def folder(variable: str, default: str) -> str:
        return str(Path(os.environ.get(variable, PROJECT_FOLDER / default)).resolve())

    return {
        "lake": LakeResource(root=folder("FEATURELAKE_LAKE", "lake")),
        "studies": StudiesResource(folder=folder("FEATURELAKE_STUDIES", "studies")),
        "subject_models": SubjectModelResource(cache_folder=folder("FEATURELAKE_CACHE", ".cache")),
        "chat": ChatResource(),
    }
