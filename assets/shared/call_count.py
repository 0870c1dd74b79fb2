"""How many LLM calls of one prompt a fit takes, before any is made: at most, and usually.

`usual` stands in where no run of the study tells better (orchestration/llm_estimate.py). Its shares
of `most` were measured on the studies `demo` and `two_models` with the embedded LLM
(docs/decisions.md); how a prompt is counted is in each room's call_counts.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

P_co = TypeVar("P_co", covariant=True)


@dataclass(frozen=True)
class CallCount(Generic[P_co]):
    """`most` calls of a prompt where nothing is missing or equal, and how many it usually is."""

    prompt: P_co
    most: int
    usual: float
