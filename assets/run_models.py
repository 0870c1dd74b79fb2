"""The models that one materialization asks, and what it spends on them.

The subject model is loaded when asked for and let go of at the end; the study's LLMs are opened
within what is left of the run's budget. How a model is loaded and what a call costs is of
resources/; what an asset asks them is the stages'; when a run stops is stage_run.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.at_work import MAIN_RUN_TAG
from assets.labels.config import LlmRole
from resources.call_budget import BUDGET_TAG, BudgetSpent, CallBudget
from resources.chat_resource import ChatResource
from resources.ledger import Ledger
from resources.model_resource import SubjectModelResource
from resources.study import SiteSpec, Study

if TYPE_CHECKING:
    from resources.chat_model import ChatModel
    from resources.subject_model import SubjectModel


class RunModels:
    """Of one materialization; None stands for a resource that its asset was not given."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        ledger: Ledger,
        subject_models: SubjectModelResource | None,
        chat: ChatResource | None,
    ) -> None:
        self._context = context
        self._ledger = ledger
        self._subject_models = subject_models
        self._chat = chat
        self._budget: CallBudget | None = None
        self._holds_model = False

    def subject(self, site: SiteSpec) -> SubjectModel:
        """The subject model of a site, loaded."""
        assert self._subject_models is not None
        self._holds_model = True
        return self._subject_models.load(site.model)

    def chat_model(
        self, study: Study, role: LlmRole, on_progress: Callable[[int, int], None] | None
    ) -> ChatModel:
        """The study's LLM of a role, within what is left of the run's budget."""
        assert self._chat is not None
        if self._budget is None:
            self._budget = self._budget_of_run()
            # What other assets of this run have spent since the tag was written.
            self._budget.spend(**self._ledger.spent_in(self._context.run_id))
        return self._chat.open(
            study.llm_of(role), self._ledger.lake, on_progress, budget=self._budget
        )

    def llm_costs(self) -> dict[str, Any]:
        """LLM calls sent and their price; nothing where no LLM was asked."""
        if self._budget is None:
            return {}
        return {"llm_calls_made": self._budget.n_taken, "usd": self._budget.usd_taken}

    def stop_after_the_last_minute(self) -> None:
        """Past the budget's minutes nothing more is begun: raises BudgetSpent."""
        budget = self._budget_of_run()
        if budget.is_over_time:
            raise BudgetSpent(f"{budget.spent_because}; left for the next run")

    def let_go(self) -> None:
        """Free the subject model's memory, as the pool's next step may be another process's.

        A main run keeps it: its next step needs it.
        """
        if self._holds_model and MAIN_RUN_TAG not in self._context.run.tags:
            from resources.subject_model import forget_subject_models

            forget_subject_models()

    def _budget_of_run(self) -> CallBudget:
        return CallBudget.from_tag(self._context.run.tags.get(BUDGET_TAG))
