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


# Chosen among five forms by SmolLM2-135M's graded ratings of 16 texts that show their concept
# against the same texts asked about another one (AUROC 0.71, 14 of 16 pairs in order; 0.57 for a
# form that defined the ratings at length) and of 12 fluent against 6 broken texts (AUROC 0.85).
CONCEPT_PROMPT = JudgePrompt(
    name="steering_concept",
    instruction="Is the text about the concept? 0 = no, 1 = partly, 2 = yes.",
    question="Text: {text}\nIs it about {label}? (0 = no, 1 = partly, 2 = yes)",
    shots=(
        ("cooking", "I think that the soup needs more salt.", 2),
        ("football", "I think that the soup needs more salt.", 0),
        ("rain", "She said the sky was dark.", 1),
        ("football", "The team scored two goals.", 2),
        ("cooking", "The team scored two goals.", 0),
        ("health", "He stayed in bed.", 1),
    ),
)

FLUENCY_PROMPT = JudgePrompt(
    name="steering_fluency",
    instruction="Rate from 0 to 2 how well the text is written.",
    question="Text: {text}\nRating:",
    shots=(
        ("", "I think that the soup needs more salt and an hour on the stove.", 2),
        ("", "She said the the the the the the the the the the the", 0),
        ("", "The thing is that he go to the market and buys there many thing for eat.", 1),
        ("", "It is said that the old bridge was built by two brothers who never", 2),
        ("", "We were told that ishop ishop shi of of zz ,, which which means", 0),
        ("", "I think that people is happy when is the sun and is the sun is good.", 1),
    ),
)


def judge_versions(judge: Judge) -> dict[str, str]:
    """Name and version of both prompts, for a form of answer."""
    return {prompt.name: prompt.version(judge) for prompt in (CONCEPT_PROMPT, FLUENCY_PROMPT)}
