"""A study: everything a user decides, read from one YAML file into a frozen, checked value.

A study names a corpus, the models with their layers, the fits, the LLM, and what each stage does.
Each stage declares its own part in assets/<stage>/config.py; this file only puts them together and
says what the partition keys stand for. Reading files is study_files.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
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
from resources.night_config import BudgetConfig, NightlyConfig

NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]*$"


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
