"""Steering scores: a judge's ratings of steered texts, and what they add up to.

A text is rated 0–2 for showing the feature's label (concept) and 0–2 for fluency; its score is the
harmonic mean 2cf/(c + f), and 0 where either is 0, as in AxBench (arXiv 2501.17148, sec. 3.3). Each
kind of label that is judged (judged_labels.py) gives a text a row; its fluency is asked for once.
A text that the model ended at once shows no concept and is no text: 0 by definition, unasked.

Three ways to read a rating. `json`: the integer that the judge writes. `graded`: the expected
rating Σ r·p(r) / Σ p(r) under the probabilities of its first answer token, r ∈ {0, 1, 2} (Liu et
al., G-Eval, arXiv 2303.16634, sec. 2); it tells texts apart that a small judge would give one
number. With Σ p(r) < MIN_RATING_MASS the judge was about to say something else: no rating.
`written`: the digit that a graded judge wrote, where its endpoint gives no probabilities. Expected
and written ratings are not averaged: if one answer has a digit alone, all of a fit are read so.
A call that failed, or was answered without a rating, gives NULL, a status and a reason, never 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from assets.shared.chat import Chat, ChatReply, ChatRequest
from assets.steering.judge_prompt import RATINGS, Judge
from assets.steering.judged_labels import ConceptLabel, Labels, kinds_by_sign, label_of
from assets.steering.prompts import CONCEPT_PROMPT, FLUENCY_PROMPT
from assets.steering.tables import BASE_SIGN, EMPTY, NOT_REACHED, STEERING_SCORES

# How ratings are read: as the judge was asked for them, or, of a graded one, its digits alone.
Reading = Literal["graded", "json", "written"]
# SmolLM2-135M-Instruct has 0.65 to 0.98 on 0, 1 and 2 (330 ratings of a demo's texts, median 0.92).
MIN_RATING_MASS = 0.5
_KEY = ("feature_id", "sign", "target_kl_nats", "text_index")


@dataclass(frozen=True)
class Rating:
    """One rating between 0 and 2, or None and the reason for it.

    `answer_mass` is the share of the first answer token's probability on 0, 1 and 2; None where no
    probabilities are known.
    """

    value: float | None
    reason: str | None = None
    answer_mass: float | None = None


def harmonic_mean(concept: float, fluency: float) -> float:
    """2cf/(c + f), and 0 where either is 0."""
    if concept < 0 or fluency < 0:
        raise ValueError(f"ratings are at least 0; found {concept} and {fluency}")
    if concept == 0 or fluency == 0:
        return 0.0
    return 2 * concept * fluency / (concept + fluency)


def reading_of(replies: Sequence[ChatReply], judge: Judge) -> Reading:
    """How all `replies` of a fit are read: `written` where one has a digit and no probabilities."""
    if judge == "graded" and any(_is_digit_alone(reply) for reply in replies):
        return "written"
    return judge


def read_rating(reply: ChatReply, reading: Reading) -> Rating:
    """The rating in a reply, read in one of the three ways."""
    if reply.status != "ok":
        return Rating(None, reply.reason or "the call failed without a reason")
    match reading:
        case "graded":
            return _graded(reply)
        case "written":
            return _digit(reply)
        case "json":
            return _in_json(reply)


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
    reading = reading_of(replies, judge)
    rows = [
        _score_row(row, label, answers, judge, reading)
        for row, label in _to_judge(texts, labels, judged)
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
    reading: Reading,
) -> dict[str, Any]:
    scored: dict[str, Any] = {name: row[name] for name in _KEY}
    scored |= {"label": label.label, "label_kind": label.kind, "judge": reading}
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
        rating = read_rating(reply, reading)
        scored[f"{part}_rating"] = rating.value
        scored[f"{part}_answer_mass"] = rating.answer_mass
        scored[f"{part}_reply"] = reply.text
        scored[f"{part}_request_hash"] = reply.request_hash
        if rating.value is None:
            failures.append(f"{part}: {rating.reason}")
    if failures:
        return scored | {"status": "failed", "reason": "; ".join(failures)}
    score = harmonic_mean(scored["concept_rating"], scored["fluency_rating"])
    return scored | {"status": "ok", "score": score}


def _is_digit_alone(reply: ChatReply) -> bool:
    """A rating without probabilities; other words without them tell nothing of the endpoint."""
    is_alone = reply.status == "ok" and not reply.first_token_logprobs
    return is_alone and _digit(reply).value is not None


def _mass(reply: ChatReply) -> dict[int, float]:
    """Probability of each rating as the first answer token."""
    mass: dict[int, float] = dict.fromkeys(RATINGS, 0.0)
    for token, logprob in reply.first_token_logprobs.items():
        for rating in RATINGS:
            if token.strip() == str(rating):
                mass[rating] += math.exp(logprob)
    return mass


def _answer_mass(reply: ChatReply) -> float | None:
    """Capped at 1, which rounded log-probabilities can exceed."""
    return min(sum(_mass(reply).values()), 1.0) if reply.first_token_logprobs else None


def _graded(reply: ChatReply) -> Rating:
    share = _answer_mass(reply)
    if share is None:
        return Rating(
            None,
            "expected a rating of 0, 1 or 2 with token probabilities, found "
            f"{_shown(reply)} without any",
        )
    if share < MIN_RATING_MASS:
        return Rating(
            None,
            f"the judge put {share:.3f} of its probability on the ratings 0, 1, 2, expected at "
            f"least {MIN_RATING_MASS}; where many texts say so, set the study's steering.judge to "
            "json, or another judge",
            share,
        )
    mass = _mass(reply)
    expected = sum(rating * p for rating, p in mass.items()) / sum(mass.values())
    return Rating(expected, answer_mass=share)


def _digit(reply: ChatReply) -> Rating:
    written, share = (reply.text or "").strip(), _answer_mass(reply)
    if written not in map(str, RATINGS):
        return Rating(None, f"expected a rating of 0, 1 or 2, found {_shown(reply)}", share)
    return Rating(float(written), answer_mass=share)


def _in_json(reply: ChatReply) -> Rating:
    try:
        answer = json.loads(reply.text or "")
    except json.JSONDecodeError:
        return Rating(None, f"expected JSON with a rating, found {_shown(reply)}")
    rating = answer.get("rating") if isinstance(answer, dict) else None
    if isinstance(rating, bool) or rating not in RATINGS:
        return Rating(None, f"expected a rating of 0, 1 or 2, found {_shown(reply)}")
    return Rating(float(rating))


def _shown(reply: ChatReply) -> str:
    return repr((reply.text or "")[:80])
