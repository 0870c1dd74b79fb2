"""Inputs that several recipes share, with the columns that matter to their readers.

A column that is not named here may change without making anything again: that a fit took another
number of iterations to the same dictionary is no reason to label its features anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from assets.activations.tables import ACTIVATION_SHARDS, TOKENS
from assets.corpus.tables import DOCUMENTS
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS
from assets.recipe import Input
from resources.study import FitSpec

# The fit's features (StageRun.fitted_row), and with their dictionary rows (StageRun.fitted).
FIT_ROW = Input(
    FACTORIZATIONS,
    columns=(
        "status",
        "width",
        "feature_ids",
        "feature_names",
        "offset_vector",
        "coefficient_penalty",
        "activations_digest",
    ),
)
FITTED = (FIT_ROW, Input(DICTIONARY))
# For what follows from the dictionary alone: other activations are no reason to make it again.
FITTED_DICTIONARY = (
    replace(FIT_ROW, columns=tuple(c for c in FIT_ROW.columns or () if c != "activations_digest")),
    Input(DICTIONARY),
)
FIT_COEFFICIENTS = Input(COEFFICIENTS)
# The activations of the fit's site, by the checksums of their files.
SITE_ACTIVATIONS = Input(ACTIVATION_SHARDS, "site", columns=("sha256",))
SITE_TOKENS = Input(
    TOKENS,
    "site",
    columns=("row", "document_id", "position", "token_id", "token", "is_massive"),
)
# Which documents the study has, their concepts, and what halves them.
CONCEPTS = Input(
    DOCUMENTS, "study", columns=("document_id", "minhash", "status", "concept", "parent_concept")
)


def settings_in_effect(section: BaseModel, spec: FitSpec, *without: str) -> dict[str, Any]:
    """A stage's part of a study for one fit: of its two limits the one that counts there.

    `without` names settings that change no number.
    """
    other = "max_features" if spec.fit.is_control else "max_features_controls"
    return section.model_dump(exclude={other, *without})
