"""Requests of every kind, and a model that sends them in batches to a provider on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batch_endpoint import BatchEndpoint
from misbehaving_endpoint import KEY, ask

from assets.labels.config import LlmConfig
from resources.batch_register import FOLDER
from resources.call_budget import CallBudget
from resources.chat_model import ChatModel

LABEL = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
REQUESTS = [
    *(ask(f"label {i}", json_schema=LABEL) for i in range(5)),
    *(ask(f"judge {i}", top_logprobs=5) for i in range(5)),
    ask("write", temperature=0.7, wants_answer_logprob=True),
]


def model(
    provider: BatchEndpoint, folder: Path, budget: CallBudget | None = None, **options: Any
) -> ChatModel:
    settings = {"batch": True, "batch_poll_seconds": 0.01, "max_retries": 1, "timeout_seconds": 20}
    return ChatModel(
        LlmConfig.model_validate({"model": "m", **settings, **options}),
        cache_folder=folder,
        environment={"OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": KEY},
        budget=budget,
    )


def open_files(folder: Path) -> list[Path]:
    return list((folder / FOLDER).glob("*.json"))


def prompt_of(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"]
