"""Definitions over folders of the test's own, and the instance their runs are kept on."""

from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from orchestration.definitions import build_definitions
from orchestration.run_tags import MAIN_JOB
from orchestration.schedules import run_config
from resources.lake import Lake, LakeResource
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource


@dataclass
class Platform:
    """Definitions over folders of the test's own, and the instance their runs are kept on."""

    root: Path
    instance: dg.DagsterInstance
    cache_folder: Path

    @property
    def lake(self) -> Lake:
        return LakeResource(root=str(self.root / "lake")).open()

    def definitions(self) -> dg.Definitions:
        return build_definitions(
            {
                "lake": LakeResource(root=str(self.root / "lake")),
                "studies": StudiesResource(folder=str(self.root / "studies")),
                "subject_models": SubjectModelResource(cache_folder=str(self.cache_folder)),
            }
        )

    def materialize(
        self, study: str = "mini", *, within_budget: bool = False, **limits: float
    ) -> dg.ExecuteInProcessResult:
        """The main job, as the UI launches it; `within_budget`, as the nightly schedule does."""
        return (
            self.definitions()
            .resolve_job_def(MAIN_JOB)
            .execute_in_process(
                instance=self.instance,
                run_config=run_config(study, within_budget=within_budget, limits=limits),
                raise_on_error=False,
            )
        )
