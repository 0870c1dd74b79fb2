"""A study: everything a user decides, read from one YAML file into a frozen, checked value.

A study names a corpus, the models with their layers, the fits, the LLM, and what each stage does.
Each stage declares its own part in assets/<stage>/config.py; this file only puts them together
and turns what is wrong with a file into an error that names file, key and remedy.
"""

from __future__ import annotations

import difflib
import re
import types
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import dagster as dg
import yaml
from dagster._utils.schedules import is_valid_cron_schedule
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from assets.ablation.config import AblationConfig
from assets.activations.config import ActivationsConfig, ModelConfig
from assets.activations.site_names import ActivationSite
from assets.comparison.config import ComparisonConfig
from assets.corpus.config import CorpusConfig
from assets.detection.config import DetectionConfig
from assets.evidence.config import EvidenceConfig
from assets.factorization.config import FitConfig
from assets.faithfulness.config import FaithfulnessConfig
from assets.hierarchy.config import HierarchyConfig
from assets.labels.config import LabelsConfig, LlmConfig, LlmRole
from assets.steering.config import SteeringConfig
from assets.steering.judged_labels import kinds_by_sign
from resources.model_sources import default_model_name

STUDY_SUFFIX = ".yaml"
NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]*$"


class StudyError(ValueError):
    """A study file is missing or says something that cannot be done."""


class BudgetConfig(BaseModel):
    """What one nightly run may cost; what it does not reach is left for the next night."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: float | None = Field(
        default=None, ge=0, description="Price of LLM calls (needs the prices in `llm`); null: any"
    )
    llm_calls: int | None = Field(default=None, ge=0, description="LLM calls sent; null: any")
    minutes: float | None = Field(
        default=None, ge=0, description="After which nothing more is begun; null: any"
    )


class NightlyConfig(BaseModel):
    """When the study is materialized by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str = Field(default="0 2 * * *", description="Cron expression of the nightly run.")
    timezone: str = Field(default="UTC", description="IANA time zone of the cron expression.")
    budget: BudgetConfig = BudgetConfig()
    switch: Literal["on", "off"] = Field(
        default="off",
        description="`on` starts the schedule by itself; `off` leaves it to the UI's switch.",
    )

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str) -> str:
        if not is_valid_cron_schedule(cron):
            raise ValueError(f"{cron!r} is no cron expression; expected e.g. '0 2 * * *'")
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, timezone: str) -> str:
        if timezone not in zoneinfo.available_timezones():
            raise ValueError(f"{timezone!r} is no IANA time zone; expected e.g. Europe/Berlin")
        return timezone

    @model_validator(mode="before")
    @classmethod
    def _accept_yaml_booleans(cls, values: Any) -> Any:
        # YAML 1.1 reads a bare `on` or `off` as a boolean.
        if isinstance(values, dict) and isinstance(values.get("switch"), bool):
            return {**values, "switch": "on" if values["switch"] else "off"}
        return values


class Study(BaseModel):
    """One study file. Keys that it does not know are errors, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME_PATTERN, description="Name; the first part of every site key.")
    description: str = Field(default="", description="What the study is for, in a sentence.")
    corpus: CorpusConfig
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    activations: ActivationsConfig = ActivationsConfig()
    fits: tuple[FitConfig, ...] = Field(min_length=1)
    faithfulness: FaithfulnessConfig = FaithfulnessConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    llm: LlmConfig = Field(
        default=LlmConfig(), description="Writes labels and probe sentences, and judges them too"
    )
    judge_llm: LlmConfig | None = Field(
        default=None,
        description="Judges in place of `llm`: scores labels, rates steered texts; null: `llm`",
    )
    labels: LabelsConfig = LabelsConfig()
    detection: DetectionConfig = DetectionConfig()
    steering: SteeringConfig = SteeringConfig()
    ablation: AblationConfig = AblationConfig()
    hierarchy: HierarchyConfig = HierarchyConfig()
    comparison: ComparisonConfig = ComparisonConfig()
    nightly: NightlyConfig = NightlyConfig()

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Study:
        for what, keys in (
            ("models", [model_name(model) for model in self.models]),
            ("fits", [fit.key for fit in self.fits]),
        ):
            repeated = sorted({key for key in keys if keys.count(key) > 1})
            if repeated:
                raise ValueError(
                    f"{what} repeat the key {repeated[0]!r}; give one of them a `name`"
                )
        return self

    @model_validator(mode="after")
    def _every_fit_has_a_site(self) -> Study:
        for fit in self.fits:
            for model in self.models:
                needed = [kind for kind in fit.kinds_needed if kind not in model.kinds]
                if needed:
                    raise ValueError(
                        f"fit {fit.key!r} needs the kinds {', '.join(fit.kinds_needed)} of each "
                        f"model; {model_name(model)} has {', '.join(model.kinds)}: add "
                        f"{', '.join(needed)} to its `kinds`"
                    )
            if not any(fit.runs_at(kind) for model in self.models for kind in model.kinds):
                kinds = sorted({kind for model in self.models for kind in model.kinds})
                raise ValueError(
                    f"fit {fit.key!r} runs at no site of the study, whose kinds are "
                    f"{', '.join(kinds)}; mend the fit's `kinds` or the models'"
                )
        return self

    @model_validator(mode="after")
    def _judged_labels_are_asked_for(self) -> Study:
        judged = kinds_by_sign(self.steering.judged_labels, self.steering.signs)
        wanted = {kind for kinds in judged.values() for kind in kinds}
        # Without a kind the LLM writes no label at all.
        if self.labels.kinds and (missing := sorted(wanted - set(self.labels.kinds))):
            raise ValueError(
                f"steering.judged_labels ({', '.join(self.steering.judged_labels)}) needs labels "
                f"that labels.kinds ({', '.join(self.labels.kinds)}) has not: add "
                f"{', '.join(missing)} there"
            )
        return self

    @model_validator(mode="after")
    def _a_budget_in_usd_has_prices(self) -> Study:
        self.check_budget(self.nightly.budget)
        return self

    def check_budget(self, budget: BudgetConfig) -> None:
        """Raise ValueError for a budget in USD where the LLM has no prices."""
        if budget.usd is None:
            return
        roles: tuple[LlmRole, ...] = ("llm", "judge_llm")
        for role in roles:
            if not self.llm_of(role).has_prices:
                raise ValueError(
                    "a budget in USD (nightly.budget.usd, or USD= of a run) needs the prices of "
                    "the LLM: add `usd_per_million_prompt_tokens` and "
                    "`usd_per_million_completion_tokens` "
                    f"to `{'llm' if self.judge_llm is None else role}`, "
                    "or set a budget by `llm_calls`"
                )

    def llm_of(self, role: LlmRole) -> LlmConfig:
        """The LLM that has a role."""
        return self.judge_llm or self.llm if role == "judge_llm" else self.llm

    def fits_at(self, kind: str) -> list[FitConfig]:
        """The fits that are made at sites of a kind, in file order."""
        return [fit for fit in self.fits if fit.runs_at(kind)]

    def sites(self) -> list[SiteSpec]:
        """Every activation site of the study, in file order."""
        return [
            SiteSpec(study=self, model=model, layer=layer, kind=kind)
            for model in self.models
            for layer in model.layers
            for kind in model.kinds
        ]


def schedule_name(study_name: str) -> str:
    """Name of a study's nightly schedule: Dagster takes only letters, digits and underscores."""
    return f"nightly_{re.sub('[^a-z0-9_]', '_', study_name)}"


def model_name(model: ModelConfig) -> str:
    """The model's name in site keys and tables."""
    return model.name or default_model_name(model.source)


@dataclass(frozen=True)
class SiteSpec:
    """What one `site` partition key stands for."""

    study: Study
    model: ModelConfig
    layer: int
    kind: str

    @property
    def model_name(self) -> str:
        return model_name(self.model)

    @property
    def activation_site(self) -> ActivationSite:
        return ActivationSite(self.layer, self.kind)

    @property
    def key(self) -> str:
        return f"{self.study.name}:{self.model_name}@{self.activation_site.key}"

    def siblings(self) -> list[SiteSpec]:
        """All sites of the same model in the study: one forward pass can serve them together."""
        return [site for site in self.study.sites() if site.model == self.model]


@dataclass(frozen=True)
class FitSpec:
    """What one (`site`, `fit`) partition key stands for."""

    site: SiteSpec
    fit: FitConfig

    @property
    def study(self) -> Study:
        return self.site.study

    @property
    def partition(self) -> dict[str, str]:
        return {"site": self.site.key, "fit": self.fit.key}

    @property
    def input_site(self) -> SiteSpec | None:
        """The site of the same layer that the fit reads beside its own; None: no other."""
        kind = self.fit.input_kind
        return None if kind is None else replace(self.site, kind=kind)


@dataclass(frozen=True)
class SiteFits:
    """All fits of a site together: a `site` partition of what compares them."""

    site: SiteSpec

    @property
    def study(self) -> Study:
        return self.site.study

    @property
    def key(self) -> str:
        return self.site.key

    def fits(self) -> list[FitSpec]:
        """The fits that the study makes at the site, in file order."""
        return [FitSpec(self.site, fit) for fit in self.study.fits_at(self.site.kind)]


def load_study(path: Path) -> Study:
    """The study in a YAML file; StudyError names the file, the key and the nearest valid one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(f"no study file {path}; copy studies/demo.yaml to begin one") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path} holds {type(content).__name__}; expected keys such as `corpus:`")
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise StudyError(f"{path}:\n  " + "\n  ".join(lines)) from error


def _describe(problem: Any) -> str:
    location = problem["loc"]
    where = ".".join(str(part) for part in location)
    if problem["type"] != "extra_forbidden":
        found = "" if problem["type"] == "missing" else f" (found {problem['input']!r})"
        return f"{where}: {problem['msg']}{found}"
    valid = sorted(_fields_at(Study, location[:-1]))
    near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.0)
    nearest = f"; the nearest valid key is `{near[0]}`" if near else ""
    return f"{where}: unknown key `{location[-1]}`{nearest}. Valid keys: {', '.join(valid)}"


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> set[str]:
    """Field names of the model that stands at `location` inside `model`."""
    annotation: Any = model
    for part in location:
        nested = next(_models_in(annotation), None)
        if nested is None:
            return set()
        if isinstance(part, str) and part in nested.model_fields:
            annotation = nested.model_fields[part].annotation
    nested = next(_models_in(annotation), None)
    return set(nested.model_fields) if nested else set()


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple, list, dict):
        for argument in get_args(annotation):
            yield from _models_in(argument)


class StudiesResource(dg.ConfigurableResource):
    """The folder of study files, and what the partition keys made of them stand for."""

    folder: str

    def readable(self) -> tuple[list[Study], list[StudyError]]:
        """Every right study in the folder, by file name, and what is wrong with the others."""
        studies: dict[str, Study] = {}
        problems: list[StudyError] = []
        for path in self._files():
            try:
                study = load_study(path)
                clash = next(
                    (n for n in studies if schedule_name(n) == schedule_name(study.name)), None
                )
                if clash is not None:
                    raise StudyError(
                        f"{path}: the name {study.name!r} is too like that of study {clash!r}; "
                        "choose another"
                    )
                studies[study.name] = study
            except StudyError as error:
                problems.append(error)
        return list(studies.values()), problems

    def study(self, name: str) -> Study:
        """The study of a name; a wrong file of another study is no matter."""
        studies, problems = self.readable()
        for study in studies:
            if study.name == name:
                return study
        # The file asked for may be one of the wrong ones: then its error is the answer.
        for problem in problems:
            if f"{name}{STUDY_SUFFIX}" in str(problem):
                raise problem
        raise StudyError(
            f"no study named {name!r} in {self.folder}; there are: "
            f"{', '.join(study.name for study in studies) or 'none'}"
            + "".join(f"\nleft out: {problem}" for problem in problems)
        )

    def _files(self) -> list[Path]:
        return sorted(Path(self.folder).glob(f"*{STUDY_SUFFIX}"))

    def site(self, site_key: str) -> SiteSpec:
        study = self.study(re.split(":", site_key, maxsplit=1)[0])
        sites = {site.key: site for site in study.sites()}
        if site_key not in sites:
            raise StudyError(
                f"study {study.name!r} has no site {site_key!r} (any more); it has: "
                f"{', '.join(sites)}. Add the layer to the study or pick another partition"
            )
        return sites[site_key]

    def fit(self, site_key: str, fit_key: str) -> FitSpec:
        site = self.site(site_key)
        fits = {fit.key: fit for fit in site.study.fits}
        if fit_key not in fits:
            raise StudyError(
                f"study {site.study.name!r} has no fit {fit_key!r}; it has: {', '.join(fits)}"
            )
        if not fits[fit_key].runs_at(site.kind):
            at_site = ", ".join(fit.key for fit in site.study.fits_at(site.kind)) or "none"
            raise StudyError(
                f"fit {fit_key!r} is not made at sites of kind {site.kind} (its `kinds` in study "
                f"{site.study.name!r}); the fits of {site_key} are: {at_site}"
            )
        return FitSpec(site=site, fit=fits[fit_key])
