"""Steering scores: a judge's ratings of steered texts, and what they add up to.

A text is rated 0–2 for showing the feature's label (concept) and 0–2 for fluency; its score is the
harmonic mean 2cf/(c + f), and 0 where either is 0, as in AxBench (arXiv 2501.17148, sec. 3.3). Each
kind of label that is judged (judged_labels.py) gives a text a row; its fluency is asked for once.
A text that the model ended at once shows no concept and is no text: 0 by definition, unasked.

Two ways to read a rating. `json`: the integer that the judge writes. `graded`: the expected rating
Σ r·p(r) / Σ p(r) under the probabilities of its first answer token, r ∈ {0, 1, 2} (Liu et al.,
G-Eval, arXiv 2303.16634, sec. 2); it tells texts apart that a small judge would give one number.
A call that failed, or was answered without a rating, gives NULL, a status and a reason, never 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from assets.labels.judging import MIN_ANSWER_MASS
from assets.shared.chat import Chat, ChatReply, ChatRequest
from assets.steering.judge_prompt import RATINGS, Judge
from assets.steering.judged_labels import ConceptLabel, Labels, kinds_by_sign, label_of
from assets.steering.prompts import CONCEPT_PROMPT, FLUENCY_PROMPT
from assets.steering.tables import BASE_SIGN, EMPTY, NOT_REACHED, STEERING_SCORES

_KEY = ("feature_id", "sign", "target_kl_nats", "text_index")


@dataclass(frozen=True)
class Rating:
    """One rating between 0 and 2, or None and the reason for it."""

    value: float | None
    reason: str | None = None


def harmonic_mean(concept: float, fluency: float) -> float:
    """2cf/(c + f), and 0 where either is 0."""
    if concept < 0 or fluency < 0:
        raise ValueError(f"ratings are at least 0; found {concept} and {fluency}")
    if concept == 0 or fluency == 0:
        return 0.0
    return 2 * concept * fluency / (concept + fluency)


def read_rating(reply: ChatReply, judge: Judge) -> Rating:
    """The rating in a reply, read as the judge was asked to give it."""
    if reply.status != "ok":
        return Rating(None, reply.reason or "the call failed without a reason")
    return _graded(reply) if judge == "graded" else _written(reply)


def build_requests(
    texts: pl.DataFrame, labels: Labels, judge: Judge, judged: Sequence[str] = ("input",)
) -> list[ChatRequest]:
    """Each request once, in a fixed order: concept and fluency of every text that can be judged.

    `texts` are rows of `steered_texts`; those without a text, or without a label of a kind that is
    `judged`, ask nothing. Equal requests (a text's fluency for each kind of label, a base text's by
    many features) are made once.
    """
    requests: dict[str, ChatRequest] = {}
    for row, label in _to_judge(texts, labels, judged):
        for request in _requests_of(row, label, judge) or ():
            requests.setdefault(_identity(request), request)
    return list(requests.values())


def score_texts(
    texts: pl.DataFrame,
    labels: Labels,
    replies: Sequence[ChatReply],
    judge: Judge,
    judged: Sequence[str] = ("input",),
) -> pl.DataFrame:
    """Rows of `steering_scores` without partition columns, one for each text and kind of label.

    `replies` answer `build_requests` of the same arguments in order; ValueError where their number
    differs.
    """
    requests = build_requests(texts, labels, judge, judged)
    if len(requests) != len(replies):
        raise ValueError(
            f"{len(replies)} replies for {len(requests)} judge requests; expected one each"
        )
    answers = {_identity(request): reply for request, reply in zip(requests, replies, strict=True)}
    rows = [
        _score_row(row, label, answers, judge) for row, label in _to_judge(texts, labels, judged)
    ]
    schema = {
        c.name: c.polars_type
        for c in STEERING_SCORES.columns
        if c.name not in STEERING_SCORES.partition_by
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def judge_texts(
    texts: pl.DataFrame,
    labels: Labels,
    chat: Chat,
    *,
    judge: Judge,
    judged: Sequence[str] = ("input",),
    purpose: str = "steering",
) -> tuple[pl.DataFrame, list[ChatReply]]:
    """The rows of `steering_scores`, and the replies they were read from.

    `judged` are input, output or both: the labels that the concept is judged on.
    """
    replies = chat.complete(build_requests(texts, labels, judge, judged), purpose=purpose)
    return score_texts(texts, labels, replies, judge, judged), replies


def _identity(request: ChatRequest) -> str:
    return f"{request.prompt_name}:{request.request_hash('')}"


def _to_judge(
    texts: pl.DataFrame, labels: Labels, judged: Sequence[str]
) -> Iterator[tuple[Mapping[str, Any], ConceptLabel]]:
    """Every text with each label that it is judged on."""
    kinds = kinds_by_sign(judged, set(texts["sign"]) - {BASE_SIGN})
    for row in texts.iter_rows(named=True):
        for kind in kinds[row["sign"]]:
            yield row, label_of(labels, row["feature_id"], kind)


def _requests_of(
    row: Mapping[str, Any], label: ConceptLabel, judge: Judge
) -> tuple[ChatRequest, ChatRequest] | None:
    """The concept and the fluency request of one text, or None where the judge is not asked."""
    if row["status"] != "ok" or label.label is None:
        return None
    passage = f"{row['prompt']}{row['text']}"
    return (
        CONCEPT_PROMPT.request(label.label, passage, judge),
        FLUENCY_PROMPT.request("", passage, judge),
    )


def _score_row(
    row: Mapping[str, Any],
    label: ConceptLabel,
    answers: Mapping[str, ChatReply],
    judge: Judge,
) -> dict[str, Any]:
    scored: dict[str, Any] = {name: row[name] for name in _KEY}
    scored |= {"label": label.label, "label_kind": label.kind, "judge": judge}
    if label.label is None:
        return scored | {"status": "not_attempted", "reason": label.reason}
    if row["status"] == EMPTY:
        reason = f"0 without asking: {row['reason']}"
        zeros = dict.fromkeys(("concept_rating", "fluency_rating", "score"), 0.0)
        return scored | zeros | {"status": "ok", "reason": reason}
    requests = _requests_of(row, label, judge)
    if requests is None:
        return scored | {"status": NOT_REACHED, "reason": f"no text: {row['reason']}"}
    failures: list[str] = []
    for part, request in zip(("concept", "fluency"), requests, strict=True):
        reply = answers[_identity(request)]
        rating = read_rating(reply, judge)
        scored[f"{part}_rating"] = rating.value
        scored[f"{part}_reply"] = reply.text
        scored[f"{part}_request_hash"] = reply.request_hash
        if rating.value is None:
            failures.append(f"{part}: {rating.reason}")
    if failures:
        return scored | {"status": "failed", "reason": "; ".join(failures)}
    score = harmonic_mean(scored["concept_rating"], scored["fluency_rating"])
    return scored | {"status": "ok", "score": score}


def _graded(reply: ChatReply) -> Rating:
    if not reply.first_token_logprobs:
        return Rating(
            None,
            "the endpoint gave no token probabilities, which graded judging reads; "
            "set the study's steering.judge to json",
        )
    mass = dict.fromkeys(RATINGS, 0.0)
    for token, logprob in reply.first_token_logprobs.items():
        for rating in RATINGS:
            if token.strip() == str(rating):
                mass[rating] += math.exp(logprob)
    total = sum(mass.values())
    if total < MIN_ANSWER_MASS:
        return Rating(
            None,
            f"the judge put {total:.3f} of its probability on the ratings 0, 1, 2; "
            f"expected at least {MIN_ANSWER_MASS}",
        )
    return Rating(sum(rating * share for rating, share in mass.items()) / total)


def _written(reply: ChatReply) -> Rating:
    try:
        answer = json.loads(reply.text or "")
    except json.JSONDecodeError:
        return Rating(None, f"expected JSON with a rating, found {(reply.text or '')[:80]!r}")
    rating = answer.get("rating") if isinstance(answer, dict) else None
    if isinstance(rating, bool) or rating not in RATINGS:
        return Rating(None, f"expected a rating of 0, 1 or 2, found {(reply.text or '')[:80]!r}")
    return Rating(float(rating))
