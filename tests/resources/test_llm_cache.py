"""The cache of LLM answers: no completed call is made twice, whatever killed the run."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from misbehaving_endpoint import Endpoint, HttpAnswer, ask, completion, prompt_of

from assets.labels.call_costs import cost_summary
from assets.labels.config import LlmConfig
from assets.shared.chat import ChatReply
from resources.chat_endpoint import ChatEndpoint
from resources.chat_model import ChatModel
from resources.llm_cache import Answer, LlmCache, LlmCacheError


def test_cache_makes_no_second_call(endpoint: Endpoint, tmp_path: Path) -> None:
    requests = [ask("a"), ask("b", top_logprobs=3), ask("a")]
    first = endpoint.model(tmp_path).complete(requests, purpose="test")
    assert len(endpoint.requests) == 2
    assert [reply.was_reused for reply in first] == [False, False, True]
    second = endpoint.model(tmp_path).complete(requests, purpose="test")
    assert len(endpoint.requests) == 2
    assert all(reply.was_reused for reply in second)

    def content(reply: ChatReply) -> tuple[Any, ...]:
        return (reply.text, reply.prompt_tokens, reply.seconds, dict(reply.first_token_logprobs))

    assert [content(reply) for reply in second] == [content(reply) for reply in first]
    # Another temperature is another request.
    endpoint.model(tmp_path).complete([ask("a", temperature=0.5)], purpose="test")
    assert len(endpoint.requests) == 3


def test_killed_run_makes_no_completed_call_again(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = lambda body, before: HttpAnswer(
        body=completion("fine"), sleep_seconds=60.0 if prompt_of(body) == "q3" else 0.0
    )
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from assets.labels.config import LlmConfig
from assets.shared.chat import ChatRequest
from resources.chat_model import ChatModel
model = ChatModel(LlmConfig(model="m", concurrency=1), cache_folder=Path({str(tmp_path)!r}),
    environment={{"OPENAI_BASE_URL": {endpoint.url!r}}})
model.complete([ChatRequest("p", "v1", ({{"role": "user", "content": f"q{{i}}"}},))
    for i in range(6)], purpose="test")
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(endpoint.requests) < 4 and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert [prompt_of(body) for body in endpoint.requests] == ["q0", "q1", "q2", "q3"]
    endpoint.requests.clear()
    endpoint.answer = lambda body, before: HttpAnswer(body=completion("fine"))
    replies = endpoint.model(tmp_path).complete([ask(f"q{i}") for i in range(6)], purpose="test")
    assert sorted(prompt_of(body) for body in endpoint.requests) == ["q3", "q4", "q5"]
    assert [reply.was_reused for reply in replies] == [True] * 3 + [False] * 3


def test_two_runs_write_one_cache_at_once(tmp_path: Path) -> None:
    caches = [LlmCache(tmp_path) for _ in range(2)]
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for i in range(100):
                caches[number % 2].write(f"{i}", Answer("m", f"written by {number}"))
                assert caches[number % 2].read([f"{i}"])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    # The first answer stays, and both runs see the same one.
    first, second = (cache.read([f"{i}" for i in range(100)]) for cache in caches)
    assert first == second and len(first) == 100


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "llm_answers.sqlite").write_text("this is no database, but long enough to be read")
    with pytest.raises(LlmCacheError, match=r"llm_answers\.sqlite.*mend or remove"):
        LlmCache(tmp_path)


def test_an_unusable_answer_that_would_come_again_is_kept(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded LLM's: another attempt would spend the call for the same text."""
    endpoint.answer = lambda body, before: HttpAnswer(body=completion('{"label": "and, and'))
    monkeypatch.setattr(
        "resources.embedded_llm.embedded_endpoint",
        lambda config: ChatEndpoint(
            model="m", base_url=endpoint.url, api_key=None, timeout_seconds=10, max_retries=0
        ),
    )
    request = ask("q", json_schema={"type": "object", "required": ["label"]})
    replies = [
        ChatModel(LlmConfig(), cache_folder=tmp_path).complete([request], purpose="test")[0]
        for _ in range(2)
    ]
    assert len(endpoint.requests) == 1
    assert [reply.was_reused for reply in replies] == [False, True]
    assert {(reply.status, reply.is_final, reply.reason) for reply in replies} == {
        ("failed", True, replies[0].reason)
    }
    made = cost_summary(replies[:1])
    assert (made["n_llm_calls_failed"], made["n_llm_answers_unusable"]) == (0, 1)
