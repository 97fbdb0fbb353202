"""Score intervals for paired right/wrong items: difference (Tango) and ratio (Tang), and the exact McNemar test.

Notation for n pairs: `n11` both right, `b01` gained (only the variant right), `b10` lost (only the baseline right).
Both intervals invert a score test, so they stay honest with no or few flips, where Wald and Fieller collapse.
Counts may be averages over seeds, hence floats. For related items the statistic is divided by the root of the design
effect (Rao & Scott 1992), which is the same as dividing all counts by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.stats.adjust import Adjustment
from harness.stats.estimate import Z95


def _positive_root(a: float, b: float, c: float) -> float:
    """Larger root of a x^2 + b x + c, a > 0, without cancellation."""
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    if b > 0:
        return -2 * c / (b + root) if b + root > 0 else 0.0
    return (root - b) / (2 * a)


def constrained_lost(b01: float, b10: float, n: float, d: float) -> float:
    """Maximum-likelihood share of lost pairs when the difference is held at `d` (Tango 1998)."""
    return _positive_root(2 * n, (2 * n - b01 + b10) * d - b01 - b10, -b10 * d * (1 - d))


def _tango_variance(b01: float, b10: float, n: float, d: float) -> float:
    return n * (2 * constrained_lost(b01, b10, n, d) + d * (1 - d))


def _tang_variance(n11: float, b01: float, b10: float, n: float, r: float) -> float:
    x, y, m = n11 + b01, n11 + b10, n11 + b01 + b10
    lost = _positive_root(n * (1 + r), y * r * r - (x + 2 * b10), b10 * (1 - r) * m / n)
    return n * (1 + r) * lost + m * (r - 1)


def _score(gap: float, variance: float, at_estimate: float, fit: Adjustment | None) -> float:
    """Gap over its standard error under the tested value, widened for clusters.

    0 where the gap is 0, infinite where only the variance is. `at_estimate` is the variance at the estimate itself.
    """
    if abs(gap) < 1e-12:
        return 0.0
    if variance <= 0:
        return math.copysign(math.inf, gap)
    score = gap / math.sqrt(variance)
    if fit is None:
        return score
    return score / math.sqrt(fit.deff(variance / at_estimate if at_estimate > 0 else 1.0))


def tango_score(b01: float, b10: float, n: float, d: float, fit: Adjustment | None = None) -> float:
    """Score statistic of the paired difference `d`, standard normal at the truth (Tango 1998).

    (b01 - b10 - n d) / sqrt(n (2 q + d (1 - d))), q the maximum-likelihood share of lost pairs given d; divided by the
    root of the design effect where `fit` is given.
    """
    at_estimate = _tango_variance(b01, b10, n, (b01 - b10) / n) if fit else 0.0
    return _score(b01 - b10 - n * d, _tango_variance(b01, b10, n, d), at_estimate, fit)


def tang_score(n11: float, b01: float, b10: float, n: float, r: float, fit: Adjustment | None = None) -> float:
    """Score statistic of the paired ratio `r`, standard normal at the truth (Tang, Tang & Chan 2003).

    (x - r y) / sqrt(n (1 + r) q + m (r - 1)) with x, y the right items of variant and baseline, m = n11 + b01 + b10,
    and q the maximum-likelihood share of lost pairs given the ratio r; divided by the root of the design effect where
    `fit` is given.
    """
    x, y = n11 + b01, n11 + b10
    at_estimate = _tang_variance(n11, b01, b10, n, x / y) if fit else 0.0
    return _score(x - r * y, _tang_variance(n11, b01, b10, n, r), at_estimate, fit)


def edge(score: Callable[[float], float], target: float, start: float, end: float) -> float:
    """Where the falling `score` meets `target` between `start` and `end`; `end` where it never does."""
    if start == end or (score(end) - target) * target < 0:
        return end
    # The score leaps from 0 at the estimate when no pair differs, so the root is bracketed, not polished.
    for _ in range(100):
        middle = (start + end) / 2
        if middle in (start, end) or abs(end - start) < 1e-13:
            break
        start, end = (middle, end) if (score(middle) - target) * target < 0 else (start, middle)
    return start


def tango_interval(
    b01: float, b10: float, n: float, crit: float = Z95, fit: Adjustment | None = None
) -> tuple[float, float]:
    """Score interval for p(variant right) - p(baseline right) of `n` pairs (Tango 1998, Stat. Med. 17:891).

    With `fit` its quantile replaces `crit`, and the score is that of related items.
    """
    if not n > 0 or not min(b01, b10) >= 0 or b01 + b10 > n * (1 + 1e-12):
        raise ValueError(f"need n > 0 and 0 <= b01 + b10 <= n, got b01={b01}, b10={b10}, n={n}")
    target, estimate = fit.crit if fit else crit, (b01 - b10) / n

    def score(d: float) -> float:
        return tango_score(b01, b10, n, d, fit)

    return edge(score, target, estimate, -1.0), edge(score, -target, estimate, 1.0)


def tang_interval(
    n11: float, b01: float, b10: float, n: float, crit: float = Z95, fit: Adjustment | None = None
) -> tuple[float, float]:
    """Score interval for p(variant right) / p(baseline right) (Tang, Tang & Chan 2003, Stat. Med. 22:1217).

    With `fit` its quantile replaces `crit`, and the score is that of related items; the upper limit is infinite where
    no ratio can be excluded. Raises ValueError where the baseline has no right item: the ratio is undefined.
    """
    x, y, m = n11 + b01, n11 + b10, n11 + b01 + b10
    if not n > 0 or not min(n11, b01, b10) >= 0 or m > n * (1 + 1e-12):
        raise ValueError(f"need n > 0 and 0 <= n11 + b01 + b10 <= n, got {n11}, {b01}, {b10}, n={n}")
    if y == 0:
        raise ValueError("the ratio is undefined: the baseline has no right item")
    target, estimate = fit.crit if fit else crit, x / y

    def score(r: float) -> float:
        return tang_score(n11, b01, b10, n, r, fit)

    end = 2 * estimate + 1
    while score(end) > -target and end < 1e9:
        end *= 2
    low = 0.0 if x == 0 else edge(score, target, estimate, 0.0)
    return low, edge(score, -target, estimate, end) if end < 1e9 else math.inf


def mcnemar_exact(b01: int, b10: int) -> float:
    """Two-sided exact McNemar p-value: binomial test of the gained among the discordant pairs; 1 when none differs."""
    if b01 + b10 == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(b01, b01 + b10, 0.5).pvalue)
