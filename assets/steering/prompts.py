"""The judge's prompts: does a text show a concept, and is it fluent; ratings 0, 1 or 2.

Short and few-shot, so that a 135M judge can follow them; each shot is a turn of its own, so that
the answer is a single digit. A prompt's version is a hash of all its text: an edit makes new
requests, and old scores stay attributable. Rating texts 0–2 on concept and fluency follows
AxBench (Wu et al., arXiv 2501.17148, sec. 3.3). How replies become scores is in judging.py.
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


CONCEPT_PROMPT = JudgePrompt(
    name="steering_concept",
    instruction=(
        "You rate how clearly a text shows a concept. "
        "0: the concept is absent. 1: it is hinted at. 2: it is clearly present. "
        "Ignore grammar and style. Answer with the rating only."
    ),
    question="Concept: {label}\nText: {text}\nRating (0, 1 or 2):",
    shots=(
        ("cooking", "I think that the soup needs more salt and an hour on the stove.", 2),
        ("football", "I think that the law was passed in the spring of that year.", 0),
        ("rain and storms", "She said the sky was dark and she took a coat.", 1),
        ("numbers", "It is said that three of the twelve boats and forty men came back.", 2),
        ("music", "The thing is that the price of the house has gone up again.", 0),
        ("doctors and illness", "We were told that he stayed in bed and felt weak.", 1),
    ),
)

FLUENCY_PROMPT = JudgePrompt(
    name="steering_fluency",
    instruction=(
        "You rate how fluent a text is. "
        "0: broken, repeated or meaningless words. 1: readable with clear mistakes. "
        "2: natural text. The end may be cut off. Answer with the rating only."
    ),
    question="Text: {text}\nRating (0, 1 or 2):",
    shots=(
        ("", "I think that the soup needs more salt and an hour on the stove.", 2),
        ("", "She said the the the the the the the the the the the", 0),
        ("", "The thing is that he go to the market and buys there many thing for eat.", 1),
        ("", "It is said that the old bridge was built by two brothers who never", 2),
        ("", "We were told that ishop ishop shi of of zz ,, which which means", 0),
        ("", "I think that people is happy when is the sun and is the sun is good.", 1),
    ),
)
