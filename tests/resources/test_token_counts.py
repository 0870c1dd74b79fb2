"""Tokens said beforehand: as measured in the lake, else by the LLM's tokenizer, else by pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
from misbehaving_endpoint import ask

from assets.labels.call_records import llm_calls_frame
from assets.labels.config import LlmConfig
from assets.labels.tables import LLM_CALLS
from assets.shared.chat import ChatReply, ChatRequest
from resources.chat_model import ChatModel
from resources.embedded_llm import EmbeddedLlmError
from resources.lake import Lake
from resources.lake_commit import Commit
from resources.token_counts import TOKENS_PER_MESSAGE, TokenCounter, Tokens, n_pieces

COMMIT = Commit(asset="labels", partition="p", run_id="r", fingerprint="f")


def reply(request: ChatRequest, prompt: int, completion: int, model: str = "m") -> ChatReply:
    return ChatReply(
        request,
        request.request_hash(model),
        model,
        "ok",
        text="yes",
        prompt_tokens=prompt,
        completion_tokens=completion,
    )


def lake_with(root: Path, *replies: ChatReply) -> Lake:
    lake = Lake(root)
    partition = {"site": "s", "fit": "f", "stage": "labels"}
    lake.replace({LLM_CALLS: llm_calls_frame(replies, "labels")}, partition, COMMIT)
    return lake


def test_a_prompt_asked_before_takes_the_mean_of_its_calls(tmp_path: Path) -> None:
    calls = (reply(ask("one two"), 10, 2), reply(ask("three"), 14, 4), reply(ask("x"), 99, 9, "n"))
    counter = TokenCounter(LlmConfig(model="m"), lake_with(tmp_path, *calls, calls[0]))
    assert counter.of_prompt(ask("whatever else"), "answer") == Tokens(12.0, 3.0)
    assert Tokens(12.0, 3.0).times(3) == Tokens(36.0, 9.0)


def test_another_wording_is_counted_and_corrected_by_what_the_llm_took(tmp_path: Path) -> None:
    text = "the quick brown fox"
    known = reply(ask(text), 2 * n_pieces(text) + TOKENS_PER_MESSAGE, 1)
    other = ChatRequest("another", "v1", ({"role": "user", "content": "rain and snow"},))
    measured = TokenCounter(LlmConfig(model="m"), lake_with(tmp_path, known))
    assert measured.of_prompt(other, "two words") == Tokens(2 * 3 + TOKENS_PER_MESSAGE, 2 * 2 + 1)
    # Of an LLM that was never asked, a piece is a token.
    fresh = TokenCounter(LlmConfig(model="n"), Lake(tmp_path))
    assert fresh.of_prompt(other, "two words") == Tokens(3 + TOKENS_PER_MESSAGE, 3)


def test_no_answer_is_longer_than_its_limit(tmp_path: Path) -> None:
    counter = TokenCounter(LlmConfig(model="m"), Lake(tmp_path))
    assert counter.of_prompt(ask("q", max_tokens=1), "many words here").completion == 1


@pytest.mark.parametrize(
    ("text", "pieces"),
    [("", 0), ("rain", 1), ("mountain", 2), ("2024", 4), ("Is it so?\n", 5), ("(0 = no)", 5)],
)
def test_pieces(text: str, pieces: int) -> None:
    assert n_pieces(text) == pieces


def test_a_plan_is_made_where_the_embedded_llm_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_installed(**_: int) -> str:
        raise EmbeddedLlmError("not installed")

    monkeypatch.setattr("resources.token_counts.embedded_base_url", not_installed)
    counter = TokenCounter(LlmConfig(), Lake(tmp_path))
    assert counter.of_prompt(ask("rain and snow"), "yes").prompt == 3 + TOKENS_PER_MESSAGE


@pytest.mark.slow
def test_the_embedded_llm_counts_its_prompts_as_it_charges_them(tmp_path: Path) -> None:
    llm = LlmConfig()
    messages = (
        {"role": "system", "content": "You are given words. Name their topic."},
        {"role": "user", "content": "Words: rain, «snow», 42"},
        {"role": "assistant", "content": "weather"},
        {"role": "user", "content": "Words: sofa, desk"},
    )
    request = ChatRequest("p", "v1", messages, max_tokens=4)
    said = TokenCounter(llm, Lake(tmp_path)).of_prompt(request, "furniture")
    [made] = ChatModel(llm).complete([request], purpose="test")
    assert said.prompt == made.prompt_tokens
