"""The search for the strength at which a KL curve meets a target.

KL(α) is known only where it was evaluated. First it climbs (or goes down) a ladder of strengths
start·4^n, the same whatever the target, until two rungs enclose the target. From there on the next
strength is interpolated: log α as the polynomial in log KL through the four points nearest to the
target, as far as they rise together, else the line through the two that enclose it (four points
spare one evaluation in seven against two, and most curves are near a power of α). Every third one
bisects log α. The curve need not be monotone: the first crossing from below among the tried
strengths is followed.

A search sees no points but its own, so what it finds depends neither on other targets nor on other
features; the evaluations of common rungs are shared outside (calibration.py). Nothing here knows a
model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from scipy.interpolate import krogh_interpolate

# Float32 log-probabilities leave about this much noise in a KL: below, only its smallness counts.
_KL_NOISE = 1e-5
# A power of 2, so that every search of one curve makes the same rungs to the last bit.
_RUNG = 4.0
_NARROWEST_BRACKET = 1e-6
_INTERPOLATED_POINTS = 4


@dataclass(frozen=True)
class FoundStrength:
    """What the search reached; `reason` says why the target was missed, where it was."""

    target_kl: float
    strength: float | None
    achieved_kl: float | None
    is_converged: bool
    reason: str | None


@dataclass
class StrengthSearch:
    """One KL curve and one target: ask `proposal`, tell `record`, until there is none."""

    target: float
    start: float
    minimum: float = 1e-3
    maximum: float = math.inf
    tolerance: float = 0.05
    max_evaluations: int = 48
    points: dict[float, float] = field(default_factory=dict)
    _stopped: str | None = None
    _n_enclosed: int = 0
    _pending: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= self.maximum:
            raise ValueError(
                f"strengths from {self.minimum} to {self.maximum} make no range; "
                "expected 0 < minimum <= maximum"
            )
        if self.target <= 0:
            raise ValueError(f"a target KL must be positive; found {self.target}")
        self.start = min(max(self.start, self.minimum), self.maximum)

    def record(self, strength: float, kl: float) -> None:
        """The curve's value at a strength; not finite where the model overflowed."""
        self.points[strength] = kl
        self._pending = None

    def proposal(self) -> float | None:
        """The strength to evaluate next, the same until it is recorded; None at the end."""
        if self._pending is None and self._stopped is None and self._converged() is None:
            self._pending = self._next()
        return self._pending

    def result(self) -> FoundStrength:
        """The strength, or the reason for its absence and the closest KL seen."""
        converged = self._converged()
        if converged is not None:
            return FoundStrength(self.target, converged, self.points[converged], True, None)
        finite = {a: kl for a, kl in self.points.items() if math.isfinite(kl)}
        if not finite:
            return FoundStrength(
                self.target, None, None, False, "every KL evaluated was not finite"
            )
        closest = min(finite, key=lambda a: abs(finite[a] - self.target))
        reason = self._stopped or f"stopped after {len(self.points)} evaluations"
        reason += f"; closest: {finite[closest]:.4g} nats at strength {closest:.4g}"
        return FoundStrength(self.target, None, finite[closest], False, reason)

    def _converged(self) -> float | None:
        for strength, kl in self.points.items():
            if abs(kl / self.target - 1) <= self.tolerance:
                return strength
        return None

    def _next(self) -> float | None:
        if not self.points:
            return self.start
        if len(self.points) >= self.max_evaluations:
            self._stopped = f"stopped after {len(self.points)} evaluations"
            return None
        tried = sorted(self.points)
        # A KL that is not finite means a strength too large for the model: it is above any target.
        above = [i for i, a in enumerate(tried) if not self.points[a] <= self.target]
        if not above:
            return self._climb(tried[-1])
        if above[0] == 0:
            return self._descend(tried[0])
        return self._between(tried[above[0] - 1], tried[above[0]])

    def _climb(self, last: float) -> float | None:
        if last >= self.maximum:
            self._stopped = (
                f"KL stays below {self.target:g} nats up to the largest strength {self.maximum:.4g}"
            )
            return None
        return min(last * _RUNG, self.maximum)

    def _descend(self, first: float) -> float | None:
        if first <= self.minimum:
            self._stopped = (
                f"KL is above {self.target:g} nats at the smallest strength {self.minimum:.4g}"
            )
            return None
        return max(first / _RUNG, self.minimum)

    def _between(self, low: float, high: float) -> float | None:
        width = math.log(high / low)
        if width < _NARROWEST_BRACKET:
            self._stopped = f"KL jumps over {self.target:g} nats at strength {low:.6g}"
            return None
        self._n_enclosed += 1
        share = 0.5
        if self._n_enclosed % 3 and self._is_interpolable(low) and self._is_interpolable(high):
            share = (self._interpolated(low, high) - math.log(low)) / width
        return low * math.exp(width * min(max(share, 0.02), 0.98))

    def _is_interpolable(self, strength: float) -> bool:
        kl = self.points[strength]
        return math.isfinite(kl) and kl > _KL_NOISE

    def _interpolated(self, low: float, high: float) -> float:
        """log α at which the curve through points near the target meets it."""
        target = math.log(self.target)
        near = [a for a in self.points if self._is_interpolable(a) and a not in (low, high)]
        near.sort(key=lambda a: (abs(math.log(self.points[a]) - target), a))
        chosen = sorted((low, high, *near[: _INTERPOLATED_POINTS - 2]))
        log_kls = [math.log(self.points[a]) for a in chosen]
        if all(here < there for here, there in pairwise(log_kls)):
            log_strengths = [math.log(a) for a in chosen]
            met = float(krogh_interpolate(log_kls, log_strengths, target))
            if math.log(low) < met < math.log(high):
                return met
        kl_low, kl_high = math.log(self.points[low]), math.log(self.points[high])
        share = (target - kl_low) / (kl_high - kl_low)
        return math.log(low) + share * math.log(high / low)
