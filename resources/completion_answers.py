"""A chat completion, of a single call or of a line of a batch's output, read as an `Answer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from assets.shared.answer_logprob import answer_logprob
from resources.call_failures import CallFailed
from resources.llm_cache import Answer

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

FILTERED = "the provider's content filter stopped the answer"
LONGEST_REFUSAL = 200
# Of an error that came with HTTP 200 and tells no status: what is behind the endpoint failed.
UPSTREAM_FAILED = 503
TEXT_PARTS = ("text", "output_text")


def answer_of(
    completion: ChatCompletion,
    *,
    model: str,
    wants_answer_logprob: bool,
    without_secrets: Callable[[str], str],
    seconds: float = 0.0,
    price_factor: float = 1.0,
) -> Answer:
    """The answer in a completion; a refusal is one too.

    Raises CallFailed where it is no chat completion.
    """
    choices = getattr(completion, "choices", None)
    if not choices:
        shown = without_secrets(str(completion))[:80]
        raise CallFailed(f"reply is no chat completion (no choices): {shown!r}")
    choice, usage = choices[0], completion.usage
    refusal = getattr(choice.message, "refusal", None)
    if not refusal and choice.finish_reason == "content_filter":
        refusal = FILTERED
    return Answer(
        model=model,
        text=without_secrets(_storable(_text(choice.message.content))),
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        seconds=seconds,
        finish_reason=choice.finish_reason,
        refusal=without_secrets(_storable(refusal))[:LONGEST_REFUSAL] if refusal else None,
        price_factor=price_factor,
        answer_logprob=_logprob(choice.logprobs) if wants_answer_logprob else None,
        first_token_logprobs=_first_token_logprobs(choice.logprobs),
    )


def error_in(completion: Any) -> tuple[int, set[str], str] | None:
    """(status, codes, message) of an error that a gateway sent in the place of an answer, with
    HTTP 200, as its upstream failed; None where there is none.
    """
    choices = getattr(completion, "choices", None) or [None]
    error = getattr(completion, "error", None) or getattr(choices[0], "error", None)
    if not error:
        return None
    said = error if isinstance(error, Mapping) else {"message": error}
    code = str(said.get("code") or "")
    is_status = code.isdecimal() and 400 <= int(code) < 600
    status = int(code) if is_status else UPSTREAM_FAILED
    codes = {str(said[name]) for name in ("code", "type") if said.get(name)}
    return status, codes, str(said.get("message") or said)


def _text(content: Any) -> str:
    """The text of a message; some servers send it in parts, those of its thoughts among them."""
    if not isinstance(content, (list, tuple)):
        return content or ""
    parts = [part if isinstance(part, Mapping) else {"text": part} for part in content]
    return "".join(
        part["text"]
        for part in parts
        if part.get("type", "text") in TEXT_PARTS and isinstance(part.get("text"), str)
    )


def _storable(text: str) -> str:
    """Half a surrogate pair, as a cut-off escape leaves, is no UTF-8: no file would take it."""
    return text.encode("utf-8", "replace").decode()


def _logprob(logprobs: Any) -> float | None:
    content = (logprobs.content if logprobs else None) or ()
    return answer_logprob([(token.token, token.logprob) for token in content])


def _first_token_logprobs(logprobs: Any) -> dict[str, float]:
    """Answer token → nats, at the first generated token that is not white space."""
    for token in (logprobs.content if logprobs else None) or ():
        if token.token.strip():
            best: dict[str, float] = {}
            for candidate in token.top_logprobs or ():
                best.setdefault(_storable(candidate.token), candidate.logprob)
            return best
    return {}
