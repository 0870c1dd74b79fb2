"""Study files: YAML read into studies, with errors that name file, key and remedy.

The folder of them is a Dagster resource, which says what partition keys stand for.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import dagster as dg
import yaml
from pydantic import BaseModel, ValidationError

from resources.study import FitSpec, SiteSpec, Study

STUDY_SUFFIX = ".yaml"


class StudyError(ValueError):
    """A study file is missing or says something that cannot be done."""


def schedule_name(study_name: str) -> str:
    """Name of a study's nightly schedule: Dagster takes only letters, digits and underscores."""
    return f"nightly_{re.sub('[^a-z0-9_]', '_', study_name)}"


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
