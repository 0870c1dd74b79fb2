"""The embedded LLM's log-probability of a forced label is the model's own; the parts join up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.label_candidates import read_priors
from assets.labels.label_scores import label_score_rows
from assets.labels.label_tasks import label_requests, label_rows, prior_requests_of, requests_of
from assets.labels.prompts import LABEL_SCHEMA, WORDS_INPUT
from assets.labels.score_questions import score_requests
from assets.labels.tables import LABEL_SCORES, LABELS
from assets.shared.answer_logprob import answer_logprob
from assets.shared.chat import ChatRequest
from resources.chat_model import ChatModel
from resources.subject_model import load_subject_model
from tests.labels.planted_judges import contexts
from tests.labels.test_label_tasks import CONTEXTS, PARTITION, VOCABULARY


def by_transformers(request: ChatRequest, answer: str, folder: Path) -> float | None:
    """log p of the answer after the same chat by the same weights, without llama.cpp."""
    subject = load_subject_model("smollm2-135m-instruct", cache_folder=folder / "models")
    turns = "".join(
        f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in request.messages
    )
    prompt = subject.tokenizer(f"{turns}<|im_start|>assistant\n")["input_ids"]
    whole = subject.tokenizer(f"{turns}<|im_start|>assistant\n{answer}")["input_ids"]
    assert whole[: len(prompt)] == prompt
    with torch.no_grad():
        logprobs = subject.model(torch.tensor([whole])).logits[0].log_softmax(dim=-1)
    return answer_logprob(
        [
            (subject.tokenizer.decode([token]), float(logprobs[place - 1, token]))
            for place, token in enumerate(whole)
            if place >= len(prompt)
        ]
    )


@pytest.mark.slow
def test_forced_labels_candidates_and_scores_of_the_embedded_llm(cache_folder: Path) -> None:
    llm, chat = LlmConfig(), ChatModel(LlmConfig())
    for label in ("days of the week", "zebra farming"):
        only = LABEL_SCHEMA | {"properties": {"label": {"type": "string", "enum": [label]}}}
        request = WORDS_INPUT.request({"words": "Monday, Friday"}, seed=0, json_schema=only)
        (reply,) = chat.complete([replace(request, wants_answer_logprob=True)], purpose="test")
        assert json.loads(reply.text or "") == {"label": label}
        expected = by_transformers(request, reply.text or "", cache_folder)
        # llama.cpp keeps weights at 8 bits and the prompt's keys and values at 16.
        assert reply.answer_logprob == pytest.approx(expected, rel=0.05, abs=0.1)
    config = LabelsConfig(kinds=("input", "combined"), candidates=3, n_held_out=1)
    tasks = label_requests(CONTEXTS, VOCABULARY, config, features=[0, 1], llm=llm)
    replies = chat.complete(requests_of(tasks), purpose="labels")
    forced = chat.complete(prior_requests_of(tasks, replies, config), purpose="priors")
    rows = label_rows(
        tasks,
        replies,
        CONTEXTS,
        config,
        all_features=[0, 1],
        beyond="none is",
        priors=read_priors(forced),
    )
    LABELS.conform(rows, PARTITION)
    asked = rows.filter(rows["kind"] != "token_summary")
    reranked = asked.filter(asked["n_candidates"] > 1, asked["status"] == "ok")
    assert len(forced) > 0 and len(reranked) > 0
    assert reranked["pmi_nats"].null_count() == 0
    questions = score_requests(rows, contexts(2), config, llm=llm)
    answers = chat.complete([task.request for task in questions], purpose="scores")
    scores = label_score_rows(questions, answers, rows, config, llm=llm)
    LABEL_SCORES.conform(scores, PARTITION)
    assert set(scores["method"]) == {"detection_likelihood"}
    assert scores["n_failed"].sum() == 0
