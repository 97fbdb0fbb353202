"""From outcomes to the numbers of a serving benchmark. Pure; times in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.bench.latency import PERCENTILES, e2e, itl, percentile, percentile_interval, tpot, ttft
from harness.bench.serve.arrivals import Load
from harness.bench.serve.client import Outcome
from harness.bench.serve.goodput import Slo, goodput
from harness.bench.serve.lag import LIMIT_S, lateness


def distribution(values: Sequence[float], *, independent: bool = True) -> dict[str, Any]:
    """n, mean and percentiles, each with its 95 % interval where values are independent; null where n is too small."""
    found: dict[str, Any] = {"n": len(values), "mean": sum(values) / len(values) if values else None}
    for p in PERCENTILES:
        value = percentile(values, p)
        interval = percentile_interval(values, p) if independent and value is not None else None
        found[f"p{100 * p:g}"] = {"value": value, "ci95": list(interval) if interval else None}
    return found


def invalid_because(lags: Sequence[float], slips: Sequence[float], limit: float) -> list[str]:
    """Why the client's own lateness makes the result invalid; empty where it does not."""
    why = [] if lags else ["the load was too short to see how late the client itself is"]
    for name, values in (("event loop", lags), ("sending", slips)):
        late = lateness(values)
        if late is not None and late > limit:
            why.append(f"the client's {name} was {1000 * late:.2f} ms late, above {1000 * limit:g} ms")
    return why


def summarise(
    load: Load, outcomes: Sequence[Outcome], *, slo: Slo | None, lags: Sequence[float], lag_limit: float = LIMIT_S
) -> dict[str, Any]:
    """The result of a load.

    Percentiles rest on requests that ended well; failed requests are counted by status and are never good. The time of
    the throughput runs from the first counted request sent to the last one ended.

    Args:
        load: What was asked.
        outcomes: Of every request, warm-up included.
        slo: Limits for goodput, or None.
        lags: The event loop's lateness.
        lag_limit: Seconds of it, at p99, from which the result is invalid.
    """
    counted = [outcome for outcome in outcomes if outcome.index >= load.warm_up]
    finished = [outcome.stamps for outcome in counted if outcome.status == "ok"]
    seconds = max(o.ended for o in counted) - min(o.stamps.sent for o in counted)
    slips = [outcome.stamps.sent - outcome.due for outcome in counted] if load.rate is not None else []
    late = invalid_because(lags, slips, lag_limit)
    tokens = sum(stamps.tokens for stamps in finished)
    return {
        "valid": not late,
        "invalid_because": late,
        "requests": len(counted),
        "statuses": dict(sorted(Counter(outcome.status for outcome in counted).items())),
        "seconds": seconds,
        "requests_per_s": len(finished) / seconds if seconds > 0 else None,
        "output_tokens": tokens,
        "output_tokens_per_s": tokens / seconds if seconds > 0 else None,
        "tokens_counted_by": "server" if all(o.counted for o in counted if o.status == "ok") else "events",
        "ttft": distribution([t for t in map(ttft, finished) if t is not None]),
        "tpot": distribution([t for t in map(tpot, finished) if t is not None]),
        "itl": distribution([gap for stamps in finished for gap in itl(stamps)], independent=False),
        "e2e": distribution([t for t in map(e2e, finished) if t is not None]),
        "goodput": goodput(finished, slo=slo, asked=len(counted), seconds=seconds) if slo and seconds > 0 else None,
        "event_loop_lag": {"n": len(lags), "p99_or_max": lateness(lags), "limit": lag_limit},
        "sending_lag": {"n": len(slips), "p99_or_max": lateness(slips)},
    }
