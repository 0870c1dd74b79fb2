"""Several candidate labels, and the one kept: that of the largest pointwise mutual information.

    PMI_λ(label) = log p(label | evidence) − λ · log p(label)

A small LLM likes some labels whatever the evidence ("word", "date"); the second term takes that
liking away. The idea of MILAN (Hernandez et al. 2022, arXiv 2201.11114, sec. 3), with one LLM for
both terms. Candidates are the LLM's greedy answer and `candidates` − 1 sampled ones, seeds in their
requests. log p(label | evidence) is what the LLM gave its own answer; log p(label) is that of the
same words after the same prompt without evidence, forced by a schema that allows nothing else; it
is asked once a label, whatever the number of features.

Tried on SmolLM2-135M with noisy words of the bundled corpus, draws of 32 concepts: three candidates
at temperature 1 and weight 0.5 were chosen on two draws (37 of 64 greedy labels hit the concept or
its parent, 42 reranked). On two others it was 29 and 33 of 64 (5 better, 1 worse: no proof), and 28
with weight 0.

Where the greedy answer is none there is no theme, and nothing is reranked. Where an endpoint gives
no log-probabilities, or gives those after the schema took all other tokens away (a forced label is
then certain), the greedy answer stands. How they are added is shared/answer_logprob.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.label_texts import clean_label
from assets.labels.prompt import Prompt
from assets.labels.prompts import LABEL_SCHEMA, NO_EVIDENCE
from assets.shared.chat import ChatReply, ChatRequest
from assets.shared.refusals import is_refusal

# A forced label more probable than this was not judged by the model.
CERTAIN_NATS = -1e-3

Priors = Mapping[tuple[str, str], float]
"""(prompt version, label) → log p(label) in nats."""


@dataclass(frozen=True)
class Candidate:
    """A label as the LLM wrote it, cleaned (None: no theme), and log p(label | evidence)."""

    text: str
    label: str | None
    logprob: float | None


@dataclass(frozen=True)
class Choice:
    """The candidate that is kept, all different labels, and PMI where candidates were reranked."""

    label: str | None
    candidates: tuple[str, ...]
    pmi_nats: float | None = None


def with_candidates(
    request: ChatRequest, config: LabelsConfig, llm: LlmConfig
) -> tuple[ChatRequest, ...]:
    """The request, and further ones for other candidates where they will be reranked."""
    if not config.is_reranked_for(llm):
        return (request,)
    greedy = replace(request, wants_answer_logprob=True)
    sampled = (
        replace(greedy, temperature=config.candidate_temperature, seed=config.seed + extra)
        for extra in range(1, config.candidates)
    )
    return (greedy, *sampled)


def read_candidates(replies: Sequence[ChatReply]) -> list[Candidate]:
    """What usable replies say, in order, each label once (case not told apart), best log p kept."""
    found: dict[str, Candidate] = {}
    for reply in replies:
        text = _label_text(reply)
        if text is None:
            continue
        label = clean_label(text)
        key = "" if label is None else label.casefold()
        one = Candidate(text, label, reply.answer_logprob)
        kept = found.setdefault(key, one)
        if kept.logprob is not None and one.logprob is not None and one.logprob > kept.logprob:
            found[key] = one
    return list(found.values())


def prior_requests(prompt: Prompt, replies: Sequence[ChatReply], seed: int) -> list[ChatRequest]:
    """What asks for log p(label) of each of a feature's candidates; nothing where none competes."""
    candidates = read_candidates(replies)
    labels = [candidate for candidate in candidates if candidate.label is not None]
    if len(labels) < 2 or candidates[0].label is None:
        return []
    if any(candidate.logprob is None for candidate in labels):
        return []
    return [_forced(prompt, candidate.text, seed) for candidate in labels]


def read_priors(replies: Sequence[ChatReply]) -> dict[tuple[str, str], float]:
    """log p(label) of the labels that replies to `prior_requests` were forced to."""
    priors: dict[tuple[str, str], float] = {}
    for reply in replies:
        text, logprob = _label_text(reply), reply.answer_logprob
        if text is not None and logprob is not None and logprob < CERTAIN_NATS:
            priors[reply.request.prompt_version, text] = logprob
    return priors


def choose(
    replies: Sequence[ChatReply], priors: Priors, prompt_version: str, pmi_weight: float
) -> Choice:
    """The candidate of largest PMI; the first one where a term of any of them is unknown."""
    candidates = read_candidates(replies)
    labels = [candidate for candidate in candidates if candidate.label is not None]
    names = tuple(str(candidate.label) for candidate in labels)
    if not candidates or candidates[0].label is None:
        return Choice(None, names)
    pmi: list[float] = []
    for candidate in labels:
        prior = priors.get((prompt_version, candidate.text))
        if candidate.logprob is not None and prior is not None:
            pmi.append(candidate.logprob - pmi_weight * prior)
    if len(labels) < 2 or len(pmi) < len(labels):
        return Choice(names[0], names)
    best = max(range(len(pmi)), key=lambda i: pmi[i])
    return Choice(names[best], names, pmi[best])


def _forced(prompt: Prompt, label: str, seed: int) -> ChatRequest:
    allowed = {"type": "string", "enum": [label]}
    schema = LABEL_SCHEMA | {"properties": {"label": allowed}}
    request = prompt.request(NO_EVIDENCE, seed=seed, json_schema=schema)
    return replace(request, wants_answer_logprob=True)


def _label_text(reply: ChatReply) -> str | None:
    if reply.status != "ok" or reply.text is None:
        return None
    try:
        text = str(json.loads(reply.text)["label"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
    return None if is_refusal(text) else text
