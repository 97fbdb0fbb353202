"""Latencies from raw time stamps: every name defined once. Pure functions; all times in seconds of one clock.

Names and definitions:
    ttft: first token - request sent. An event without text (a role, a keep-alive) is no token.
    e2e: last token - request sent.
    tpot: (e2e - ttft) / (n - 1), n the number of output tokens: time per output token after the first. Undefined for
        one token. This is vLLM's and MLPerf's definition; others count the first token in.
    itl: every gap between consecutive arrivals, the first token's wait left out. Of several requests, gaps are pooled,
        not averaged per request. A server that sends several tokens in one event shows fewer, longer gaps; tpot does
        not suffer from that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PERCENTILES = (0.5, 0.9, 0.95, 0.99)
LEAST_BEYOND = 5


@dataclass(frozen=True)
class Stamps:
    """When things happened to one request.

    Attributes:
        sent: The request was handed to the connection.
        arrivals: Arrival of each piece of output that holds text, ascending; the first is the first token.
        tokens: Output tokens, as the server counts them, else the number of arrivals.
    """

    sent: float
    arrivals: tuple[float, ...]
    tokens: int


def ttft(stamps: Stamps) -> float | None:
    """Time to first token; None if none came."""
    return stamps.arrivals[0] - stamps.sent if stamps.arrivals else None


def e2e(stamps: Stamps) -> float | None:
    """Time to last token; None if none came."""
    return stamps.arrivals[-1] - stamps.sent if stamps.arrivals else None


def tpot(stamps: Stamps) -> float | None:
    """Time per output token after the first; None with fewer than two."""
    if len(stamps.arrivals) < 2 or stamps.tokens < 2:
        return None
    return (stamps.arrivals[-1] - stamps.arrivals[0]) / (stamps.tokens - 1)


def itl(stamps: Stamps) -> tuple[float, ...]:
    """Gaps between consecutive arrivals."""
    return tuple(after - before for before, after in zip(stamps.arrivals, stamps.arrivals[1:], strict=False))


def supports(n: int, p: float) -> bool:
    """Whether `n` values support the `p` quantile: at least five of them are expected on its thinner side.

    So the median needs 10 values, p90 50, p95 100 and p99 500. With fewer, the quantile's own 95 % interval (order
    statistics) has no upper end or nearly none.
    """
    return round(n * min(p, 1.0 - p), 9) >= LEAST_BEYOND


def percentile(values: Sequence[float], p: float) -> float | None:
    """The `p` quantile by nearest rank (the ceil(n p)-th smallest value); None where n does not support it."""
    if not supports(len(values), p):
        return None
    return sorted(values)[max(0, math.ceil(round(len(values) * p, 9)) - 1)]


def percentile_interval(values: Sequence[float], p: float) -> tuple[float, float] | None:
    """At-least-95 % interval of the `p` quantile by order statistics (binomial); None where n does not support it.

    It takes the values as independent; so it fits one value per request, not the gaps within requests.
    """
    from scipy.stats import binom

    n = len(values)
    if not supports(n, p):
        return None
    ordered = sorted(values)
    low, high = int(binom.ppf(0.025, n, p)), int(binom.ppf(0.975, n, p)) + 1
    return (ordered[low - 1], ordered[high - 1]) if 1 <= low and high <= n else None


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """p50, p90, p95 and p99; null where n does not support them."""
    return {f"p{100 * p:g}": percentile(values, p) for p in PERCENTILES}
