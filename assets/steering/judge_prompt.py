"""A rating task as a value: an instruction, a question's form, rated examples; and its requests.

A version is a hash of all that is said, so an edit makes new requests and old scores stay
attributable. What the tasks say is in prompts.py, how replies become scores in judging.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from assets.shared.chat import ChatRequest

Judge = Literal["graded", "json"]
RATINGS = (0, 1, 2)
_MAX_LABEL_CHARACTERS = 300
_MAX_TEXT_CHARACTERS = 2000
_TOP_LOGPROBS = 20

RATING_SCHEMA = {
    "type": "object",
    "properties": {"rating": {"type": "integer", "enum": list(RATINGS)}},
    "required": ["rating"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class JudgePrompt:
    """One rating task: an instruction, a form for the question, and rated examples."""

    name: str
    instruction: str
    question: str
    shots: tuple[tuple[str, str, int], ...]

    def version(self, judge: Judge) -> str:
        """12 hex digits of the prompt's whole text and of the form of its answer."""
        content = [self.instruction, self.question, list(self.shots), judge, RATING_SCHEMA]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    def request(self, label: str, text: str, judge: Judge) -> ChatRequest:
        """The request that rates `text` (against `label`, where the question asks for one)."""
        messages: list[dict[str, str]] = [{"role": "system", "content": self.instruction}]
        for shot_label, shot_text, rating in self.shots:
            messages.append({"role": "user", "content": self._ask(shot_label, shot_text)})
            messages.append({"role": "assistant", "content": _answer(rating, judge)})
        messages.append({"role": "user", "content": self._ask(label, text)})
        is_graded = judge == "graded"
        return ChatRequest(
            prompt_name=self.name,
            prompt_version=self.version(judge),
            messages=tuple(messages),
            json_schema=None if is_graded else RATING_SCHEMA,
            max_tokens=1 if is_graded else 32,
            temperature=0.0,
            top_logprobs=_TOP_LOGPROBS if is_graded else 0,
        )

    def _ask(self, label: str, text: str) -> str:
        return self.question.format(
            label=_one_line(label)[:_MAX_LABEL_CHARACTERS],
            text=_one_line(text)[:_MAX_TEXT_CHARACTERS],
        )


def _answer(rating: int, judge: Judge) -> str:
    return str(rating) if judge == "graded" else json.dumps({"rating": rating})


def _one_line(text: str) -> str:
    return " ".join(text.split())
