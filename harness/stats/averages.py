"""Recoveries over several suites: the mean of recoveries, and the recovery of means. They differ; each has its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from harness.stats.clusters import group
from harness.stats.estimate import Estimate, undefined
from harness.stats.means import score_ci
from harness.stats.paired import Scores, checked_pairs, paired_difference


class PairedScores(Protocol):
    """Scores of the same items of one suite, [n] each on the 0..1 scale, and their cluster labels (or None)."""

    @property
    def variant(self) -> Scores: ...  # noqa: D102
    @property
    def baseline(self) -> Scores: ...  # noqa: D102
    @property
    def clusters(self) -> Sequence[str] | None: ...  # noqa: D102


def mean_of_recoveries(recoveries: Mapping[str, Estimate]) -> Estimate:
    """Plain mean of the suites' recoveries, whose errors are independent (different items).

    Interval by MOVER (Zou & Donner 2008): each side of the mean's interval is the root of the summed squares of the
    suites' own distances on that side, so it keeps their asymmetry. Suites without a value are left out and named in
    `reason`; n is the number of pairs over the suites that count.
    """
    method = "mover-mean"
    used = {name: e for name, e in recoveries.items() if e.value is not None and e.ci95 is not None}
    left_out = [name for name in recoveries if name not in used]
    if not used:
        return undefined("no suite has a defined recovery", method=method)
    values = [float(e.value) for e in used.values() if e.value is not None]
    limits = [e.ci95 for e in used.values() if e.ci95 is not None]
    count, mean = len(values), sum(values) / len(values)
    down = math.sqrt(sum((value - low) ** 2 for value, (low, _) in zip(values, limits, strict=True))) / count
    up = math.sqrt(sum((high - value) ** 2 for value, (_, high) in zip(values, limits, strict=True))) / count
    errors = [e.se for e in used.values() if e.se is not None]
    se = math.sqrt(sum(e * e for e in errors)) / count if len(errors) == count else None
    reason = f"over {count} of {len(recoveries)} suites, without {', '.join(left_out)}" if left_out else None
    return Estimate(mean, sum(e.n for e in used.values()), se, (mean - down, mean + up), method, reason)


def recovery_of_means(suites: Mapping[str, PairedScores]) -> Estimate:
    """Variant's mean score over the suites / the baseline's, every suite with equal weight.

    A suite weighs in the ratio by its baseline score, so a weak suite counts little; `mean_of_recoveries` is the other
    convention. A suite whose baseline scores 0 still counts. Undefined where every baseline is 0 or a suite is empty.

    Interval by MOVER for a ratio (Donner & Zou 2012; Zou & Donner 2008): with D the summed difference and B the summed
    baseline, a ratio 1 + t is inside where 0 lies in the MOVER interval of D - t B, built from the suites' own
    intervals (`paired_difference`, `score_ci`) and the estimated correlation of D and B.
    """
    method = "mover-ratio"
    if not suites:
        return undefined("no suite", method=method)
    d_sides, b_sides, covariance, d_variance, b_variance = np.zeros(2), np.zeros(2), 0.0, 0.0, 0.0
    top = bottom = 0.0
    n = 0
    for name, pairs in suites.items():
        v, b = checked_pairs(pairs.variant, pairs.baseline)
        if v.size == 0:
            return undefined(f"{name} has no pair of items", method=method)
        n += int(v.size)
        grouped = group(int(v.size), pairs.clusters)
        difference = paired_difference(v, b, pairs.clusters).estimate
        level = score_ci(b, pairs.clusters)
        for sides, estimate in ((d_sides, difference), (b_sides, level)):
            if estimate.value is not None and estimate.ci95 is not None:
                sides += np.square(np.asarray(estimate.ci95) - estimate.value)
        factor = grouped.count / (grouped.count - 1) / v.size**2 if grouped.count > 1 else 0.0
        d, c = grouped.sums(v - b - float((v - b).mean())), grouped.sums(b - float(b.mean()))
        d_variance += factor * float(d @ d)
        b_variance += factor * float(c @ c)
        covariance += factor * float(d @ c)
        top, bottom = top + float((v - b).mean()), bottom + float(b.mean())
    if bottom == 0:
        return undefined("the baseline scores 0 in every suite: recovery is undefined", n=n, method=method)
    scale = math.sqrt(d_variance * b_variance)
    correlation = covariance / scale if scale > 0 else 0.0
    (d_down, d_up), (b_down, b_up) = np.sqrt(d_sides), np.sqrt(b_sides)
    t = top / bottom

    def outside(candidate: float, d_side: float, b_side: float) -> float:
        """Squared distance of D - t B from 0 over the squared MOVER half-width, minus 1."""
        gap, x = top - candidate * bottom, abs(candidate) * b_side
        cross = -2 * math.copysign(1.0, candidate) * correlation * d_side * x
        return gap * gap - (d_side * d_side + x * x + cross)

    low = _edge(lambda c: outside(c, d_down, b_up if c > 0 else b_down), t, -1.0)
    high = _edge(lambda c: outside(c, d_up, b_down if c > 0 else b_up), t, math.inf)
    variance = d_variance - 2 * t * covariance + t * t * b_variance
    se = math.sqrt(variance) / bottom if variance > 0 else None
    return Estimate(1 + t, n, se, (1 + low, 1 + high), method)


def _edge(f: Callable[[float], float], start: float, end: float) -> float:
    """First root of `f` from `start` (where f <= 0) towards `end`; `end` where there is none."""
    from scipy.optimize import brentq

    sign, step = (1.0, 1e-3) if end > start else (-1.0, 1e-3)
    inner = start
    while True:
        outer = start + sign * step
        if (outer - end) * sign >= 0:
            outer = end
        if f(outer) > 0:
            return float(brentq(f, inner, outer, xtol=1e-12))
        if outer == end or step > 1e6:
            return end
        inner, step = outer, step * 2
