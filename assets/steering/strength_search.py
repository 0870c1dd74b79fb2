"""The search for the strengths at which a KL curve meets several targets at once.

KL(α) is known only where it was evaluated; every evaluated point serves all targets of one feature
and sign. Small strengths obey KL ≈ c·α², so a target above all evaluated ones is stepped to by
(target / KL)^(1/slope) with slope 2 or the flatter one seen; once two tried strengths enclose it,
the next one is interpolated in (log α, log KL), every third one bisects log α. The curve need not
be monotone: the first crossing from below among the tried strengths is followed. Nothing here knows
a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# Float32 log-probabilities leave about this much noise in a KL: below, only its smallness counts.
_KL_NOISE = 1e-5
_LARGEST_STEP = 8.0
_SMALLEST_STEP = 1.5
_NARROWEST_BRACKET = 1e-6
# Where a curve rises slower than this power of the strength, it is crossed in the largest steps.
_FLAT = 0.5


@dataclass(frozen=True)
class FoundStrength:
    """What the search reached for one target; `reason` says why not, where it did not."""

    target_kl: float
    strength: float | None
    achieved_kl: float | None
    is_converged: bool
    reason: str | None


@dataclass
class StrengthSearch:
    """One KL curve, several targets: ask `proposals`, tell `record`, until none is proposed."""

    targets: Sequence[float]
    start: float
    minimum: float = 1e-3
    maximum: float = math.inf
    tolerance: float = 0.05
    max_evaluations: int = 48
    points: dict[float, float] = field(default_factory=dict)
    _stopped: dict[float, str] = field(default_factory=dict)
    _n_enclosed: dict[float, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= self.maximum:
            raise ValueError(
                f"strengths from {self.minimum} to {self.maximum} make no range; "
                "expected 0 < minimum <= maximum"
            )
        if not self.targets or min(self.targets) <= 0:
            raise ValueError(f"target KLs must be positive; found {list(self.targets)}")
        self.start = min(max(self.start, self.minimum), self.maximum)

    def record(self, strength: float, kl: float) -> None:
        """The curve's value at a strength; not finite where the model overflowed."""
        self.points[strength] = kl

    def proposals(self) -> list[float]:
        """Strengths to evaluate next, one an open target, without repeats; empty at the end."""
        if not self.points:
            return [self.start]
        proposed: dict[float, None] = {}
        for target in self.targets:
            if target in self._stopped or self._converged(target) is not None:
                continue
            strength = self._next(target)
            if strength is None:
                continue
            if len(self.points) + len(proposed | {strength: None}) > self.max_evaluations:
                if not proposed:
                    self._stopped[target] = f"stopped after {len(self.points)} evaluations"
                continue
            proposed[strength] = None
        return list(proposed)

    def result(self, target: float) -> FoundStrength:
        """The strength of a target, or the reason for its absence and the closest KL seen."""
        converged = self._converged(target)
        if converged is not None:
            return FoundStrength(target, converged, self.points[converged], True, None)
        finite = {a: kl for a, kl in self.points.items() if math.isfinite(kl)}
        if not finite:
            return FoundStrength(target, None, None, False, "every KL evaluated was not finite")
        closest = min(finite, key=lambda a: abs(finite[a] - target))
        reason = self._stopped.get(target, f"stopped after {len(self.points)} evaluations")
        reason += f"; closest: {finite[closest]:.4g} nats at strength {closest:.4g}"
        return FoundStrength(target, None, finite[closest], False, reason)

    def _converged(self, target: float) -> float | None:
        errors = {abs(kl / target - 1): a for a, kl in self.points.items() if math.isfinite(kl)}
        if not errors or min(errors) > self.tolerance:
            return None
        return errors[min(errors)]

    def _next(self, target: float) -> float | None:
        tried = sorted(self.points)
        # A KL that is not finite means a strength too large for the model: it is above any target.
        above = [i for i, a in enumerate(tried) if not self.points[a] <= target]
        if not above:
            return self._grow(target, tried[-1])
        if above[0] == 0:
            return self._shrink(target, tried[0])
        return self._between(target, tried[above[0] - 1], tried[above[0]])

    def _grow(self, target: float, last: float) -> float | None:
        if last >= self.maximum:
            self._stopped[target] = (
                f"KL stays below {target:g} nats up to the largest strength {self.maximum:.4g}"
            )
            return None
        kl = self.points[last]
        slope = self._slope_before(last)
        step = _LARGEST_STEP
        if kl > _KL_NOISE and slope > _FLAT:
            step = min((target / kl) ** (1 / slope), _LARGEST_STEP)
        return min(last * max(step, _SMALLEST_STEP), self.maximum)

    def _slope_before(self, last: float) -> float:
        """d log KL / d log α up to the largest strength tried, at most the 2 of small strengths."""
        before = max((a for a in self.points if a < last), default=None)
        if before is None or not self.points[before] > _KL_NOISE:
            return 2.0
        rise = math.log(max(self.points[last], _KL_NOISE) / self.points[before])
        return min(rise / math.log(last / before), 2.0)

    def _shrink(self, target: float, first: float) -> float | None:
        if first <= self.minimum:
            self._stopped[target] = (
                f"KL is above {target:g} nats at the smallest strength {self.minimum:.4g}"
            )
            return None
        kl = self.points[first]
        step = math.sqrt(target / kl) if math.isfinite(kl) else 1 / _LARGEST_STEP
        # A little below the estimate, so that the target is enclosed.
        return max(first * min(max(0.9 * step, 1e-2), 1 / _SMALLEST_STEP), self.minimum)

    def _between(self, target: float, low: float, high: float) -> float | None:
        width = math.log(high / low)
        if width < _NARROWEST_BRACKET:
            self._stopped[target] = f"KL jumps over {target:g} nats at strength {low:.6g}"
            return None
        tries = self._n_enclosed[target] = self._n_enclosed.get(target, 0) + 1
        kl_low, kl_high = self.points[low], self.points[high]
        share = 0.5
        if tries % 3 and kl_low > _KL_NOISE and math.isfinite(kl_high):
            share = math.log(target / kl_low) / math.log(kl_high / kl_low)
        return low * math.exp(width * min(max(share, 0.02), 0.98))
