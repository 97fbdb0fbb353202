"""Intervals for one score: proportions and means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.stats.adjust import Adjustment, adjustment
from harness.stats.binary import edge
from harness.stats.clusters import Floats, group, mean_variance, t_quantile
from harness.stats.estimate import Z95, Estimate, undefined


def wilson_interval(k: float, n: float, crit: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for `k` of `n` (Wilson 1927); `k` and `n` may be effective, non-integer counts."""
    if n <= 0 or not 0 <= k <= n:
        raise ValueError(f"a proportion needs 0 <= k <= n and n > 0, got k={k}, n={n}")
    p, z2 = k / n, crit * crit
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = crit / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At k = 0 and k = n the limit is exact; rounding would leave 1e-17 beyond it.
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return low, high


def wilson_score(k: float, n: float, p: float, fit: Adjustment) -> float:
    """Score statistic of a proportion `p` of related items, which Wilson's interval inverts."""
    gap, variance, at_estimate = k - n * p, n * p * (1 - p), k * (n - k) / n
    if abs(gap) < 1e-12:
        return 0.0
    if variance <= 0:
        return math.copysign(math.inf, gap)
    return gap / math.sqrt(variance * fit.deff(variance / at_estimate if at_estimate > 0 else 1.0))


def proportion_ci(k: int, n: int) -> Estimate:
    """Share of `k` right items among `n` independent ones, with Wilson's 95 % interval."""
    if n == 0:
        return undefined("no items were scored", method="wilson")
    p = k / n
    return Estimate(p, n, math.sqrt(p * (1 - p) / n), wilson_interval(k, n), "wilson")


def mean_ci(
    values: Sequence[float] | Floats,
    clusters: Sequence[str] | None = None,
    *,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of `values` [n] with a t interval; the standard error is clustered with the C/(C-1) correction.

    Where all values are equal the t interval would be "± 0"; with `bounds` (the range of the score) it becomes the
    flip bound: at most 1 - 0.05^(1/n) of all items can differ from the common value.
    """
    y = np.asarray(values, dtype=np.float64)
    n = int(y.size)
    if n == 0:
        return undefined("no items were scored", method="t")
    grouped, value = group(n, clusters), float(y.mean())
    if float(np.ptp(y)) == 0.0:
        if bounds is None:
            return Estimate(value, n, None, None, "t", "all values are equal: they give no interval")
        share = 1 - 0.05 ** (1 / n)
        low, high = value - share * (value - bounds[0]), value + share * (bounds[1] - value)
        return Estimate(value, n, None, (low, high), "flip-bound")
    se = math.sqrt(mean_variance(y, grouped))
    half = t_quantile(grouped) * se
    low, high = value - half, value + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(value, n, se, (low, high), grouped.suffix("t"))


def is_binary(values: Floats) -> bool:
    """Tell whether every value is exactly 0 or 1."""
    return bool(np.all((values == 0.0) | (values == 1.0)))


def score_ci(values: Sequence[float] | Floats, clusters: Sequence[str] | None = None) -> Estimate:
    """Mean of scores on the 0..1 scale: Wilson for right/wrong scores, else t.

    For clustered right/wrong scores Wilson's interval is taken with a design effect and Student's quantile (Korn &
    Graubard 1998; Franco et al. 2019); see `harness.stats.adjust` for both.
    """
    y = np.asarray(values, dtype=np.float64)
    n = int(y.size)
    if n == 0 or not is_binary(y):
        return mean_ci(y, clusters, bounds=(0.0, 1.0))
    grouped = group(n, clusters)
    if not grouped.clustered:
        return proportion_ci(int(y.sum()), n)
    k, p = float(y.sum()), float(y.mean())
    fit = adjustment(y - p, min(k, n - k), grouped)

    def score(at: float) -> float:
        return wilson_score(k, n, at, fit)

    interval = edge(score, fit.crit, p, 0.0), edge(score, -fit.crit, p, 1.0)
    return Estimate(p, n, math.sqrt(mean_variance(y, grouped)), interval, "wilson-clustered")
