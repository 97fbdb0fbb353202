"""From values to places on a plot's axis, and where its ticks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS = 6


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear or logarithmic scale from `low`..`high` to the places `first`..`last`."""

    low: float
    high: float
    first: float
    last: float
    log: bool
    ticks: tuple[float, ...]

    def holds(self, value: float) -> bool:
        """Whether a value has a place: finite, and above 0 on a logarithmic scale."""
        return math.isfinite(value) and (not self.log or value > 0)

    def at(self, value: float) -> float:
        """Place of a value; what lies outside is put on the edge."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, self._inside(value)))
        return self.first + (self.last - self.first) * (value - low) / (high - low)

    def _inside(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def shown(self, tick: float) -> str:
        """A tick as text."""
        if tick and (abs(tick) >= 1e6 or abs(tick) < 1e-4):
            return f"{tick:.0e}".replace("e+0", "e").replace("e-0", "e-")
        return f"{tick:,.6g}" if abs(tick) < 1000 else f"{tick:,.0f}"


def fitted(values: Sequence[float], ends: tuple[float, float], *, log: bool = False, whole: bool = False) -> Scale:
    """A scale that holds all finite `values` (above 0 where logarithmic), with round (or `whole`) ticks."""
    kept = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(kept), max(kept)) if kept else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        return _logarithmic(low, high, ends)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-12):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = _step((high - low) / _TICKS)
    step = max(1.0, math.ceil(step)) if whole else step
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(step * k, 12) for k in range(start, stop + 1))
    return Scale(ticks[0], ticks[-1], *ends, False, ticks)


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * 0.999)


def _logarithmic(low: float, high: float, ends: tuple[float, float]) -> Scale:
    begin, end = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    end = max(end, begin + 1)
    # Over one or two decades there are steps between; over many, not every decade.
    inner = (1.0, 2.0, 5.0) if end - begin <= 2 else (1.0,)
    stride = max(1, math.ceil((end - begin) / _TICKS))
    marks = [base * 10.0**power for power in range(begin, end + 1, stride) for base in inner]
    ticks = tuple(tick for tick in marks if tick <= 10.0**end * 1.0001)
    return Scale(10.0**begin, 10.0**end, *ends, True, ticks)
