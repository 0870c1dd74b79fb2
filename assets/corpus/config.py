"""The corpus part of a study: where the documents are, which fields hold what, and the caps.

Reading lives in read.py; nothing here touches a file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Fields read in place of the default ones where those are absent.
TEXT_FIELD_ALIASES = {"text": "prompt"}
CONCEPT_FIELD_ALIASES = {"concept": "label"}

FieldName = Annotated[str, Field(min_length=1)]


class CorpusConfig(BaseModel):
    """Which documents a study uses.

    Rows past `max_documents`, past a concept's `max_documents_per_concept`, or of a concept that
    `concepts` leaves out are not examined, so they are neither documents nor rejected rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        default="bundled:concepts",
        min_length=1,
        description="bundled:concepts, or a .jsonl, .json, .csv or .parquet file, or a folder of "
        ".txt files; a relative path starts at the study file's folder, then at the working folder",
    )
    text_field: FieldName = Field(
        default="text",
        description="Field or column with the text; 'text' also accepts 'prompt' in its absence",
    )
    concept_field: FieldName = Field(
        default="concept",
        description="Field or column with the concept; 'concept' also accepts 'label' in its "
        "absence; documents without one are fine",
    )
    parent_concept_field: FieldName = Field(
        default="parent_concept", description="Field or column with the parent concept"
    )
    concepts: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Keep only documents of these concepts"
    )
    max_documents: int | None = Field(default=None, ge=1, description="Keep the first this many")
    max_documents_per_concept: int | None = Field(
        default=None,
        ge=1,
        description="Keep the first this many of each concept; no cap on those without one",
    )
    max_characters: int = Field(
        default=20_000,
        ge=1,
        description="Longest text accepted, in characters; longer is a bad row",
    )
    bad_rows: Literal["error", "reject"] = Field(
        default="error",
        description="error: a bad row ends the reading; reject: it is kept in the table documents "
        "with status rejected and a reason",
    )

    @field_validator("path")
    @classmethod
    def _path_is_not_blank(cls, path: str) -> str:
        if not path.strip():
            raise ValueError("found a blank path; expected bundled:concepts, a file or a folder")
        return path

    @field_validator("concepts")
    @classmethod
    def _concepts_are_distinct(cls, concepts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        repeated = sorted({c for c in concepts or () if (concepts or ()).count(c) > 1})
        if repeated:
            raise ValueError(f"found {', '.join(repeated)} more than once; name each concept once")
        return concepts

    @property
    def text_fields(self) -> tuple[str, ...]:
        """Names under which the text is looked for, first choice first."""
        return _with_alias(self.text_field, TEXT_FIELD_ALIASES)

    @property
    def concept_fields(self) -> tuple[str, ...]:
        """Names under which the concept is looked for, first choice first."""
        return _with_alias(self.concept_field, CONCEPT_FIELD_ALIASES)


def _with_alias(name: str, aliases: dict[str, str]) -> tuple[str, ...]:
    return (name, aliases[name]) if name in aliases else (name,)
