"""How many LLM calls of one prompt a fit takes, before any is made: at most, and usually.

`usual` stands in where no run of the study tells better (orchestration/llm_estimate.py). Its shares
of `most` were measured on the studies `demo` and `two_models` with the embedded LLM
(docs/decisions.md); how a prompt is counted is in each room's call_counts.py. Some of the usual
calls are those of fits before, and answered by the cache: about a text of their own they never
are, but those about a label alone, or about an unsteered text, may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

P_co = TypeVar("P_co", covariant=True)


@dataclass(frozen=True)
class UsualLabels:
    """What is usual of the labels that an LLM gives to the features of a fit; shares from 0 to 1.

    `given`: features with a theme; `distinct`: of the labels, those that differ within the fit;
    `as_other_fits`: those that features of other fits are given, too.
    """

    given: float = 1.0
    distinct: float = 1.0
    as_other_fits: float = 0.0


# What a larger LLM is taken to give; the embedded one's are general, and the same again and again.
ALL_DIFFERENT = UsualLabels()
EMBEDDED_LABELS = UsualLabels(given=0.9, distinct=0.85, as_other_fits=0.38)


@dataclass(frozen=True)
class CallCount(Generic[P_co]):
    """`most` calls of a prompt where nothing is missing or equal, and how many it usually is.

    Of the usual ones, `as_other_fits` are the same as those of some other fit.
    """

    prompt: P_co
    most: int
    usual: float
    as_other_fits: float = 0.0
