"""What an asset partition is made from, by name: code, settings, prompts, model and inputs.

A `Recipe` stands beside each asset in its definitions.py. `parts` resolves it for one partition to
a flat mapping of names to values, e.g.

    code                              3f0c…      settings.labels.max_features      6
    prompt.words_input                9ab1…      model.revision                    77de…
    input.contexts                    41c8…      llm.model                         gpt-x

whose hash is the partition's fingerprint. Two mappings compared name by name say why a partition
is made again (ledger/reasons.py). The asset's guard and the planner use the same recipe, so what
the plan says is what happens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel

from assets.activations.config import ModelConfig
from assets.fingerprints import code_version, version_of_modules
from assets.labels.config import LlmRole
from assets.shared.content_hash import data_version
from assets.shared.schema import Table
from resources.chat_replies import REPAIR, embedded_versions
from resources.study import FitSpec, SiteFits, SiteSpec, Study

Spec: TypeAlias = Study | SiteSpec | FitSpec | SiteFits
Parts: TypeAlias = Mapping[str, str]


class World(Protocol):
    """What a recipe asks of the lake and of the world outside."""

    study_folder: Path

    def versions(self, table: str, partition: str) -> Mapping[str, str] | None:
        """Versions of a table's columns in a partition; None where it was never written."""
        ...

    def model_revision(self, model: ModelConfig) -> str: ...

    def llm_endpoint(self) -> str:
        """Address of the LLM, "" for the client's own."""
        ...


MISSING = "missing"
LONGEST_VALUE = 60
DIGITS = 16
# Code outside of assets/ that numbers follow from.
READING_REPLIES = (
    "resources.chat_replies",
    "resources.completion_answers",
    "resources.embedded_llm",
    "resources.json_answers",
)
LOADING_MODELS = ("resources.subject_model", "resources.model_sources")


@dataclass(frozen=True)
class Input:
    """A table that is read: of the same partition, or of the site or study that it belongs to, or,
    by what compares fits, of every fit of the site.

    `columns` are those that matter; None stands for all. `when` says for which specs it is read.
    """

    table: Table
    of: Literal["fit", "fits", "site", "input_site", "study"] = "fit"
    columns: tuple[str, ...] | None = None
    when: Callable[[Any], bool] = lambda spec: True

    def partitions(self, spec: Spec) -> dict[str, str]:
        """Keys of the partitions that are read, by the input's name; none where it reads none."""
        name = f"input.{self.table.name}"
        if not self.when(spec):
            return {}
        if self.of == "study":
            return {name: study_of(spec).name}
        if self.of == "fits":
            assert isinstance(spec, SiteFits)
            return {f"{name}.of {one.fit.key}": partition_text(one) for one in spec.fits()}
        if self.of == "site":
            assert isinstance(spec, FitSpec | SiteFits)
            return {name: spec.site.key}
        assert isinstance(spec, FitSpec)
        if self.of == "fit":
            return {name: partition_text(spec)}
        other = spec.input_site
        return {} if other is None else {f"{name}.of_input": other.key}


@dataclass(frozen=True)
class Recipe:
    """How one multi-asset is made; `name` is its name in Dagster.

    `settings(spec)` gives the parts of the study that it depends on, by name; `prompts(spec)` the
    versions of the prompts that it may send; `observed` hashes of files that it reads outside the
    lake. `modules` narrows the code where a room holds several assets. `uses_model` says whether
    the subject model's revision matters; `llms` which of the study's LLMs are asked.
    """

    name: str
    stage: str
    tables: tuple[Table, ...]
    inputs: tuple[Input, ...] = ()
    settings: Callable[[Any], Mapping[str, Any]] = lambda spec: {}
    prompts: Callable[[Any], Mapping[str, str]] = lambda spec: {}
    observed: Callable[[Any, Path], Mapping[str, str]] = lambda spec, study_folder: {}
    modules: tuple[str, ...] | None = None
    uses_model: bool = False
    llms: tuple[LlmRole, ...] = ()

    @property
    def uses_llm(self) -> bool:
        return bool(self.llms)

    @property
    def compares_fits(self) -> bool:
        """Whether its partitions are sites that are made after all their fits."""
        return any(one.of == "fits" for one in self.inputs)

    def parts(self, spec: Spec, world: World) -> dict[str, str]:
        """All that decides this partition's content, by name."""
        parts = {"code": code_version(self.stage, self.modules)}
        parts |= _flat("settings", self.settings(spec))
        parts |= {f"prompt.{name}": version for name, version in self.prompts(spec).items()}
        observed = self.observed(spec, world.study_folder)
        parts |= {f"observed.{name}": value for name, value in observed.items()}
        if self.uses_model:
            assert not isinstance(spec, Study)
            site = spec if isinstance(spec, SiteSpec) else spec.site
            parts["model.revision"] = world.model_revision(site.model)
            parts["model.dtype"] = site.model.dtype
            parts["code.of_models"] = version_of_modules(LOADING_MODELS)
        if self.llms:
            parts["code.of_replies"] = version_of_modules(READING_REPLIES)
        for role in self.llms:
            llm = study_of(spec).llm_of(role)
            parts[f"{role}.model"] = llm.recorded_name
            if llm.is_embedded:
                parts[f"{role}.versions"] = embedded_versions()
                parts[f"{role}.embedded_context"] = str(llm.embedded_context)
            else:
                parts[f"{role}.json_repair_attempts"] = str(llm.json_repair_attempts)
                parts |= _flat(f"{role}.repair_prompt", REPAIR)
                # None where they are not set: fingerprints of before stay.
                parts |= _flat(role, llm.answer_options)
                if address := world.llm_endpoint():
                    parts[f"{role}.endpoint"] = address
        for one in self.inputs:
            for name, partition in one.partitions(spec).items():
                found = world.versions(one.table.name, partition)
                parts[name] = MISSING if found is None else data_version(found, _known(one, found))
        return parts


def fingerprint_of(parts: Parts) -> str:
    """Hash (16 hex digits) of all parts."""
    text = json.dumps(dict(parts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def partition_text(spec: Spec) -> str:
    """A partition's key as one text, as the lake's commits and the ledger give it."""
    if isinstance(spec, Study):
        return spec.name
    return f"{spec.site.key} | {spec.fit.key}" if isinstance(spec, FitSpec) else spec.key


def lake_partition(spec: Spec) -> dict[str, str]:
    """The partition's columns and values in the lake."""
    if isinstance(spec, Study):
        return {"study": spec.name}
    return spec.partition if isinstance(spec, FitSpec) else {"site": spec.key}


def study_of(spec: Spec) -> Study:
    """The study that a partition belongs to."""
    return spec if isinstance(spec, Study) else spec.study


def _known(one: Input, found: Mapping[str, str]) -> tuple[str, ...] | None:
    """The columns that matter and have a version: a table may have gained one since."""
    if one.columns is None:
        return None
    return tuple(name for name in one.columns if name in found)


def _flat(prefix: str, value: Any) -> dict[str, str]:
    """Nested settings as dotted names; long values as their hash."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        flat: dict[str, str] = {}
        for name, inner in value.items():
            flat |= _flat(f"{prefix}.{name}", inner)
        return flat
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if len(text) > LONGEST_VALUE:
        text = f"{text[:20]}… {hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"
    return {prefix: text}
