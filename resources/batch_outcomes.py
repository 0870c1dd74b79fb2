"""What became of a request of a batch: the answer of its line, or why there is none.

An outcome is an `Answer` or a `CallFailed` with its reason, free of secrets. Which requests are
sent, what is kept and what is asked again are chat_batch.py; the format of a line batch_lines.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from resources.batch_lines import OutputLine
from resources.call_failures import CallFailed, CallRefused, TransientFailure, failure_of
from resources.chat_endpoint import ChatEndpoint
from resources.completion_answers import answer_of, error_in
from resources.llm_cache import Answer

if TYPE_CHECKING:
    from openai.types import Batch

NO_ROOM = "token_limit_exceeded"

Outcome: TypeAlias = Answer | CallFailed


def outcome_of(
    line: OutputLine, endpoint: ChatEndpoint, *, wants_answer_logprob: bool, price_factor: float
) -> Outcome:
    """What a line of an output or error file says; `price_factor` is that of calls in batches."""
    from openai.types.chat import ChatCompletion

    try:
        if line.body is not None:
            completion = ChatCompletion.construct(**line.body)
            if (said := error_in(completion)) is not None:
                failure = endpoint.failure_with_200(*said)
                return (
                    endpoint.refusal(failure)
                    if isinstance(failure, CallRefused)
                    else _over(failure)
                )
            return answer_of(
                completion,
                model=endpoint.model,
                wants_answer_logprob=wants_answer_logprob,
                without_secrets=endpoint.without_key,
                price_factor=price_factor,
            )
        words = endpoint.scrub(line.message)
        if line.status == 0:
            return CallFailed(f"{', '.join(sorted(line.codes)) or 'no answer'}: {words}")
        failure = failure_of(line.status, set(line.codes), words, model=endpoint.model)
    except CallFailed as not_a_completion:
        return not_a_completion
    except Exception as error:  # a body that is no completion
        return CallFailed(f"reply could not be read: {endpoint.scrub(str(error))[:300]}")
    return endpoint.refusal(failure) if isinstance(failure, CallRefused) else _over(failure)


def _over(failure: CallFailed | TransientFailure) -> CallFailed:
    return CallFailed(failure.reason) if isinstance(failure, TransientFailure) else failure


def has_no_room(ended: Batch) -> bool:
    """Whether it failed since too many tokens would have waited at the provider."""
    said = (ended.errors.data if ended.errors else None) or []
    return ended.status == "failed" and any(
        error.code == NO_ROOM or "enqueued token limit" in str(error.message).lower()
        for error in said
    )


def why_none(ended: Batch, endpoint: ChatEndpoint) -> CallFailed:
    """Why an ended batch has no line for a request."""
    said = (ended.errors.data if ended.errors else None) or []
    words = "; ".join(f"{error.code}: {error.message}" for error in said[:3])
    if ended.status == "failed":
        codes = {str(error.code) for error in said}
        failure = failure_of(400, codes, words or "no reason given", model=endpoint.model)
        reason = f"the provider failed batch {ended.id}: {failure}"
    else:
        reason = f"batch {ended.id} was {ended.status} without an answer to this request"
    return CallFailed(endpoint.scrub(reason))
