"""A yes/no judge whose answer is graded: P(yes) from the first answer token's probabilities.

    P(yes) = Σ p(tokens that read "yes") / Σ p(tokens that read "yes" or "no")

A small judge answers "no" to nearly everything when read as text; its probabilities still order
texts. Where the endpoint gives no log-probabilities the written yes or no counts as 1 or 0.
"""

from __future__ import annotations

import math
import re

from assets.shared.chat import ChatReply


def probability_of_yes(reply: ChatReply) -> float | None:
    """P(yes) of a judge's reply, 0 to 1; None where it failed or says neither yes nor no."""
    if reply.status != "ok":
        return None
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in reply.first_token_logprobs.items():
        word = _yes_or_no(token)
        if word is not None:
            mass[word] += math.exp(logprob)
    total = mass["yes"] + mass["no"]
    if total > 0:
        return mass["yes"] / total
    word = _yes_or_no((reply.text or "").split(maxsplit=1)[0] if (reply.text or "").split() else "")
    return None if word is None else float(word == "yes")


def _yes_or_no(token: str) -> str | None:
    word = re.sub(r"\W", "", token).casefold()
    return word if word in ("yes", "no") else None
