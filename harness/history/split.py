"""The best cut of a part of a series: what the tests say of it, and the levels on both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.history import skill_test, speed_test
from harness.history.series import Series
from harness.schema.base import Interval


@dataclass(frozen=True, slots=True)
class Split:
    """A cut and its p-value.

    Attributes:
        at: place of the first point after the step, in the part.
        p: largest p-value of the tests that apply, each over all places of the part.
    """

    at: int
    p: float


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels on both sides of a cut.

    Attributes:
        before: level before it.
        after: level after it.
        ci95: of the change, 95 %, not corrected for the search: a difference of scores, or a ratio of speeds.
    """

    before: float
    after: float
    ci95: Interval | None


def best_split(series: Series, part: Sequence[int], level: float) -> Split | None:
    """The best cut of the points at `part`; None where no test can be made or a speed moved less than its noise."""
    return _skill_split(series, part, level) if series.kind == "skill" else _speed_split(series, part, level)


def levels(series: Series, part: Sequence[int], at: int) -> Levels:
    """Levels before and after the cut of the points at `part` before its point `at`."""
    values = _values(series, part)
    if series.kind == "speed":
        moved, interval = speed_test.shift(np.log(values[:at]), np.log(values[at:]))
        before = float(np.median(values[:at]))
        ratio = None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))
        return Levels(before, before * math.exp(moved), ratio)
    before, after = float(values[:at].mean()), float(values[at:].mean())
    return Levels(before, after, _interval(series, part, at))


def _values(series: Series, part: Sequence[int]) -> skill_test.Floats:
    return np.array([series.points[i].value for i in part])


def _skill_split(series: Series, part: Sequence[int], level: float) -> Split | None:
    values = _values(series, part)
    at = skill_test.least_squares_cut(values)
    p = skill_test.commits_p(values, at)
    if p > level:
        return Split(at, p)
    if series.items is not None and series.clusters is not None:
        changes = skill_test.cluster_differences(series.items[list(part)], series.clusters)
        return Split(at, max(p, skill_test.items_p(changes, at, level)))
    errors = [series.points[i].se for i in part]
    if any(error is None for error in errors):
        return None
    return Split(at, max(p, skill_test.unpaired_p(values, np.array(errors, dtype=np.float64), at)))


def _speed_split(series: Series, part: Sequence[int], level: float) -> Split | None:
    values = np.log(_values(series, part))
    p, at = speed_test.ranks_p(values, level)
    floors = [floor for i in part if (floor := series.points[i].noise_floor) is not None]
    moved, _ = speed_test.shift(values[:at], values[at:])
    if floors and abs(moved) <= math.log1p(float(np.median(floors))):
        return None
    return Split(at, p)


def _interval(series: Series, part: Sequence[int], at: int) -> Interval | None:
    """95 % interval of a change of scores: over clusters where the items are known, else as of independent levels."""
    from harness.stats.clusters import mean_variance, t_quantile
    from harness.stats.estimate import Z95

    if series.items is not None and series.clusters is not None:
        rows = series.items[list(part)]
        change = rows[at:].mean(axis=0) - rows[:at].mean(axis=0)
        half = t_quantile(series.clusters) * math.sqrt(mean_variance(change, series.clusters))
        middle = float(change.mean())
        return middle - half, middle + half
    errors = [series.points[i].se for i in part]
    if any(error is None for error in errors):
        return None
    known = np.array(errors, dtype=np.float64)
    values = _values(series, part)
    middle = float(values[at:].mean() - values[:at].mean())
    half = Z95 * math.hypot(float(known[:at].max()), float(known[at:].max()))
    return middle - half, middle + half
