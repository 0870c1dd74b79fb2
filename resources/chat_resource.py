"""The chat model as a Dagster resource: the study says which model, the environment has the key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from assets.labels.config import LlmConfig
from resources.call_budget import CallBudget
from resources.lake import Lake

if TYPE_CHECKING:
    from resources.chat_model import ChatModel


class ChatResource(dg.ConfigurableResource):
    """Hands out the chat model of a study, with the lake's cache of calls."""

    def open(
        self,
        llm: LlmConfig,
        lake: Lake,
        on_progress: Callable[[int, int], None] | None = None,
        budget: CallBudget | None = None,
    ) -> ChatModel:
        """`on_progress` is told (calls done, calls asked for).

        A batch for which `budget` does not suffice raises BudgetSpent; its answers are kept.
        """
        from resources.chat_model import ChatModel

        return ChatModel(
            llm,
            cache_folder=lake.llm_cache_folder,
            on_progress=on_progress,
            budget=budget,
        )
