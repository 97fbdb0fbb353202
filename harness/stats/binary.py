"""Score intervals for paired right/wrong items: difference (Tango) and ratio (Tang), and the exact McNemar test.

Notation for n pairs: `n11` both right, `b01` gained (only the variant right), `b10` lost (only the baseline right).
Both intervals invert a score test, so they stay honest with no or few flips, where Wald and Fieller collapse.
Counts may be effective (divided by a design effect), hence floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.stats.estimate import Z95

_NUDGE = 1e-10
"""The score equation has a spurious root at the estimate itself when no pair differs; the search starts beside it."""


def _positive_root(a: float, b: float, c: float) -> float:
    """Larger root of a x^2 + b x + c, a > 0, without cancellation."""
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    if b > 0:
        return -2 * c / (b + root) if b + root > 0 else 0.0
    return (root - b) / (2 * a)


def _solve(f: Callable[[float], float], start: float, end: float) -> float:
    """Root of `f` between `start` and `end`; `end` where `f` does not change sign (the limit is the boundary)."""
    from scipy.optimize import brentq

    if start == end or f(start) * f(end) > 0:
        return end
    return float(brentq(f, start, end, xtol=1e-12, rtol=1e-12))


def tango_interval(b01: float, b10: float, n: float, crit: float = Z95) -> tuple[float, float]:
    """Score interval for p(variant right) - p(baseline right) of `n` pairs (Tango 1998, Stat. Med. 17:891).

    Inverts (b01 - b10 - n d)^2 = crit^2 n (2 q + d (1 - d)), q the maximum-likelihood share of lost pairs given d.
    """
    if n <= 0 or min(b01, b10) < 0 or b01 + b10 > n * (1 + 1e-12):
        raise ValueError(f"need n > 0 and 0 <= b01 + b10 <= n, got b01={b01}, b10={b10}, n={n}")

    def spread(d: float) -> float:
        lost = _positive_root(2 * n, (2 * n - b01 + b10) * d - b01 - b10, -b10 * d * (1 - d))
        return crit * math.sqrt(max(n * (2 * lost + d * (1 - d)), 0.0))

    estimate = (b01 - b10) / n
    low = _solve(lambda d: b01 - b10 - n * d - spread(d), max(estimate - _NUDGE, -1.0), -1.0)
    high = _solve(lambda d: b01 - b10 - n * d + spread(d), min(estimate + _NUDGE, 1.0), 1.0)
    return low, high


def tang_interval(n11: float, b01: float, b10: float, n: float, crit: float = Z95) -> tuple[float, float]:
    """Score interval for p(variant right) / p(baseline right) (Tang, Tang & Chan 2003, Stat. Med. 22:1217).

    Inverts (x - r y)^2 = crit^2 (n (1 + r) q + m (r - 1)) with x, y the right items of variant and baseline,
    m = n11 + b01 + b10, and q the maximum-likelihood share of lost pairs given the ratio r.
    Raises ValueError where the baseline has no right item: the ratio is undefined.
    """
    x, y, m = n11 + b01, n11 + b10, n11 + b01 + b10
    if n <= 0 or min(n11, b01, b10) < 0 or m > n * (1 + 1e-12):
        raise ValueError(f"need n > 0 and 0 <= n11 + b01 + b10 <= n, got {n11}, {b01}, {b10}, n={n}")
    if y == 0:
        raise ValueError("the ratio is undefined: the baseline has no right item")

    def spread(r: float) -> float:
        lost = _positive_root(n * (1 + r), y * r * r - (x + 2 * b10), b10 * (1 - r) * m / n)
        return crit * math.sqrt(max(n * (1 + r) * lost + m * (r - 1), 0.0))

    def upper(r: float) -> float:
        return x - r * y + spread(r)

    estimate = x / y
    end = 2 * estimate + 1
    while upper(end) > 0:
        end *= 2
    high = _solve(upper, estimate + _NUDGE, end)
    low = 0.0 if x == 0 else _solve(lambda r: x - r * y - spread(r), max(estimate - _NUDGE, 0.0), 0.0)
    return low, high


def mcnemar_exact(b01: int, b10: int) -> float:
    """Two-sided exact McNemar p-value: binomial test of the gained among the discordant pairs; 1 when none differs."""
    if b01 + b10 == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(b01, b01 + b10, 0.5).pvalue)
