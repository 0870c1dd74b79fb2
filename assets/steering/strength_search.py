"""The search for the strength at which a KL curve meets a target.

KL(α) is known only where it was evaluated. For small α it is quadratic (its matrix is the Fisher
information; Kullback 1959, ch. 2), so log KL over log α begins as a line of slope 2, and measured
curves keep near it as far as targets lie (docs/decisions.md). The search goes along that line from
its start to a middling KL, the same whatever the target, and from there to the target; after two
steps that fell short it climbs (or goes down) by factors of 4. Once tried strengths enclose the
target, log α is interpolated over log KL: through the two by a parabola of slope 2 at the lower
one, later as the polynomial through the four nearest to the target, as far as they rise together,
else by the line. Every third of these bisects log α. The curve need not be monotone: the first
crossing from below among the tried strengths is followed.

A search sees no points but its own, so what it finds depends neither on other targets nor on other
features; the evaluations that searches of one curve share are made once outside (calibration.py).
Nothing here knows a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from scipy.interpolate import krogh_interpolate

# Float32 log-probabilities leave about this much noise in a KL: below, only its smallness counts.
_KL_NOISE = 1e-5
_MIDDLING_KL = 0.25
# A KL within this factor of the middling one is near enough.
_NEAR_ENOUGH = 2.0
_MOST_STEPS_TO_MIDDLE = 2
_SLOPE = 2.0
# Two points whose slope is farther from 2 than by this factor tell of no parabola.
_SLOPE_RATIO = 1.4
_MOST_STEPS_ALONG_SLOPE = 2
_WIDEST_STEP = 64.0
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
    _n_to_middle: int = 0
    _n_outwards: int = 0
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
        if (towards_middle := self._towards_middle()) is not None:
            return towards_middle
        tried = sorted(self.points)
        # A KL that is not finite means a strength too large for the model: it is above any target.
        above = [i for i, a in enumerate(tried) if not self.points[a] <= self.target]
        if not above:
            return self._climb(*tried[:-3:-1])
        if above[0] == 0:
            return self._descend(*tried[:2])
        return self._between(tried[above[0] - 1], tried[above[0]])

    def _towards_middle(self) -> float | None:
        """A strength of about the middling KL, while all there is was tried for its sake."""
        last = next(reversed(self.points))
        is_for_middle = len(self.points) == self._n_to_middle + 1
        if not is_for_middle or self._n_to_middle == _MOST_STEPS_TO_MIDDLE:
            return None
        if not self._is_interpolable(last):
            return None
        if abs(math.log(self.points[last] / _MIDDLING_KL)) <= math.log(_NEAR_ENOUGH):
            return None
        strength = min(max(self._along_slope(last, _MIDDLING_KL), self.minimum), self.maximum)
        if strength in self.points:
            return None
        self._n_to_middle += 1
        return strength

    def _along_slope(self, strength: float, kl: float, slope: float = _SLOPE) -> float:
        """Where `kl` lies if log KL goes on from `strength` with this slope."""
        factor = (kl / self.points[strength]) ** (1 / slope)
        return strength * min(max(factor, 1 / _WIDEST_STEP), _WIDEST_STEP)

    def _outwards(self, outermost: float, inner: float | None, rung: float) -> float:
        """Beyond the strengths tried: along the slope at first, then by a factor of `rung`."""
        self._n_outwards += 1
        if self._n_outwards > _MOST_STEPS_ALONG_SLOPE or not self._is_interpolable(outermost):
            return outermost * rung
        slope = _SLOPE
        if inner is not None and self._is_interpolable(inner):
            rise = math.log(self.points[outermost] / self.points[inner])
            slope = min(max(rise / math.log(outermost / inner), _SLOPE / 2), 2 * _SLOPE)
        return self._along_slope(outermost, self.target, slope)

    def _climb(self, last: float, inner: float | None = None) -> float | None:
        if last >= self.maximum:
            self._stopped = (
                f"KL stays below {self.target:g} nats up to the largest strength {self.maximum:.4g}"
            )
            return None
        return min(self._outwards(last, inner, _RUNG), self.maximum)

    def _descend(self, first: float, inner: float | None = None) -> float | None:
        if first <= self.minimum:
            self._stopped = (
                f"KL is above {self.target:g} nats at the smallest strength {self.minimum:.4g}"
            )
            return None
        return max(self._outwards(first, inner, 1 / _RUNG), self.minimum)

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
        if not near and self._is_near_slope(low, high):
            return self._on_parabola(low, high)
        near.sort(key=lambda a: (abs(math.log(self.points[a]) - target), a))
        chosen = sorted((low, high, *near[: _INTERPOLATED_POINTS - 2]))
        log_kls = [math.log(self.points[a]) for a in chosen]
        if all(here < there for here, there in pairwise(log_kls)):
            log_strengths = [math.log(a) for a in chosen]
            met = float(krogh_interpolate(log_kls, log_strengths, target))
            if math.log(low) < met < math.log(high):
                return met
        return self._on_line(low, high)

    def _is_near_slope(self, low: float, high: float) -> bool:
        slope = math.log(self.points[high] / self.points[low]) / math.log(high / low)
        return _SLOPE / _SLOPE_RATIO < slope < _SLOPE * _SLOPE_RATIO

    def _on_parabola(self, low: float, high: float) -> float:
        """log α over log KL through both strengths, with the slope of small strengths at `low`."""
        width = math.log(high / low)
        whole = math.log(self.points[high] / self.points[low])
        part = math.log(self.target / self.points[low])
        bend = (width - whole / _SLOPE) / whole**2
        step = part / _SLOPE + bend * part**2
        return math.log(low) + step if 0 < step < width else self._on_line(low, high)

    def _on_line(self, low: float, high: float) -> float:
        share = math.log(self.target / self.points[low])
        share /= math.log(self.points[high] / self.points[low])
        return math.log(low) + share * math.log(high / low)
