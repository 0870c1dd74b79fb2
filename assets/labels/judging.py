"""What a judge's reply says of a text and a label, from 0 (does not fit) to 1 (fits).

Yes or no, graded by the first answer token's probabilities:

    P(yes) = Σ p(tokens that read "yes") / Σ p(tokens that read "yes" or "no")

A judge that was about to say something else, with less than MIN_ANSWER_MASS on the two together (on
the digits, where those are asked for), gave no answer. Where the endpoint gives no
log-probabilities the written yes or no counts as 1 or 0.

Likelihood: what the text adds to the log-probability of the label, forced as its topic,

    P(fits) = σ(log p(label | text) − log p(label | no text))

above 0.5 where the text makes the label more probable. That a fitting text does with any word of it
marked: of fuzzing against random negatives the AUROC tells more than the balanced accuracy. An
endpoint that gives log-probabilities after the schema took all other tokens away (a forced label is
then certain) gave no answer.

Forced choice: 1 where the judge named the label, 0 where it named the foil.

Ratings of 0 to 9 are read as their expectation under the first answer token's probabilities; by
likelihood, log p(label | text with the word marked) stands for them.

SmolLM2-135M is blind to yes or no (seven wordings, 128 to 256 texts of the bundled corpus and their
concepts: AUROC 0.38 to 0.52) and to ratings (four wordings, 108 marked words, planted labels such
as "month": correlation −0.02 to 0.15), and weak at choices (named on 78 % of the concept's texts,
48 % of others). Likelihoods tell the planted labels' words and texts apart (docs/results.md).
"""

from __future__ import annotations

import json
import math
import re

from scipy.special import expit

from assets.labels.label_candidates import CERTAIN_NATS
from assets.shared.chat import ChatReply

# Below this share of the first token's probability, the judge was about to say something else.
MIN_ANSWER_MASS = 0.05


def probability_of_yes(reply: ChatReply) -> float | None:
    """P(yes) of a judge's reply, 0 to 1; None where it failed or answered neither."""
    if reply.status != "ok":
        return None
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in reply.first_token_logprobs.items():
        word = _yes_or_no(token)
        if word is not None:
            mass[word] += math.exp(logprob)
    if reply.first_token_logprobs:
        total = mass["yes"] + mass["no"]
        return mass["yes"] / total if total >= MIN_ANSWER_MASS else None
    word = _yes_or_no((reply.text or "").split(maxsplit=1)[0] if (reply.text or "").split() else "")
    return None if word is None else float(word == "yes")


def label_logprob(reply: ChatReply) -> float | None:
    """log p of a forced label, in nats; None where it failed or no model judged it."""
    if reply.status != "ok" or reply.answer_logprob is None:
        return None
    return reply.answer_logprob if reply.answer_logprob < CERTAIN_NATS else None


def likelihood_of_fit(reply: ChatReply, prior: ChatReply | None) -> float | None:
    """σ(log p(label | text) − log p(label)), 0 to 1; None where either is unknown."""
    given = label_logprob(reply)
    alone = None if prior is None else label_logprob(prior)
    return None if given is None or alone is None else float(expit(given - alone))


def choice_of_label(reply: ChatReply, label: str) -> float | None:
    """1.0 where a forced choice fell on `label`, 0.0 where on the foil; None where it failed."""
    if reply.status != "ok":
        return None
    try:
        return float(json.loads(reply.text or "")["label"] == label)
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def expected_digit(reply: ChatReply) -> float | None:
    """Σ r·p(r) / Σ p(r) over the first answer token's digits r, 0 to 9; None where there is none.

    Without log-probabilities the written digit counts alone.
    """
    if reply.status != "ok":
        return None
    mass: dict[int, float] = {}
    for token, logprob in reply.first_token_logprobs.items():
        digit = _digit(token)
        if digit is not None:
            mass[digit] = mass.get(digit, 0.0) + math.exp(logprob)
    if reply.first_token_logprobs:
        total = sum(mass.values())
        expected = sum(digit * p for digit, p in mass.items())
        return expected / total if total >= MIN_ANSWER_MASS else None
    digit = _digit(reply.text or "")
    return None if digit is None else float(digit)


def _digit(token: str) -> int | None:
    word = token.strip()
    return int(word) if len(word) == 1 and word in "0123456789" else None


def _yes_or_no(token: str) -> str | None:
    word = re.sub(r"\W", "", token).casefold()
    return word if word in ("yes", "no") else None
