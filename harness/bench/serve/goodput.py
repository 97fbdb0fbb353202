"""Goodput: how many requests were answered as fast as promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.bench.latency import Stamps, tpot, ttft
from harness.errors import ConfigError


@dataclass(frozen=True)
class Slo:
    """Limits that one request must keep, all of them, in seconds; None limits nothing."""

    ttft: float | None = None
    tpot: float | None = None


PRESETS = {
    "llama2-70b": Slo(2.0, 0.200),
    "llama2-70b-interactive": Slo(0.450, 0.040),
    "llama3.1-8b": Slo(2.0, 0.100),
    "llama3.1-8b-interactive": Slo(0.500, 0.030),
    "llama3.1-405b": Slo(6.0, 0.175),
    "llama3.1-405b-interactive": Slo(4.5, 0.080),
    "mixtral-8x7b": Slo(2.0, 0.200),
    "deepseek-r1": Slo(2.0, 0.080),
    "deepseek-r1-interactive": Slo(1.5, 0.015),
}
"""The limits of MLPerf inference (mlcommons/inference, loadgen/mlperf.conf), which asks them of the p99."""


def pick_slo(preset: str | None, *, ttft_ms: float | None = None, tpot_ms: float | None = None) -> Slo | None:
    """A preset, with limits of one's own in milliseconds in place of its limits; None if nothing is given.

    Raises:
        ConfigError: There is no such preset, or a limit is not above 0.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"unknown SLO preset {preset!r}; choose one of {', '.join(PRESETS)}")
    if any(limit is not None and not limit > 0 for limit in (ttft_ms, tpot_ms)):
        raise ConfigError("an SLO limit is a number of milliseconds above 0")
    base = PRESETS[preset] if preset else Slo()
    slo = Slo(
        base.ttft if ttft_ms is None else ttft_ms / 1000,
        base.tpot if tpot_ms is None else tpot_ms / 1000,
    )
    return slo if slo != Slo() else None


def keeps(stamps: Stamps, slo: Slo) -> bool:
    """Whether a finished request kept every limit; a tpot that one token does not define is kept."""
    first, each = ttft(stamps), tpot(stamps)
    if first is None:
        return False
    return (slo.ttft is None or first <= slo.ttft) and (slo.tpot is None or each is None or each <= slo.tpot)


def goodput(finished: Sequence[Stamps], *, slo: Slo, asked: int, seconds: float) -> dict[str, float]:
    """Good requests per second, and their share of all that were asked: a failed one counts as not good.

    Args:
        finished: Requests that ended well.
        slo: The limits.
        asked: Requests sent in the measured time, failed ones included.
        seconds: From the first request sent to the last one ended.
    """
    good = sum(keeps(stamps, slo) for stamps in finished)
    return {"good": good, "share": good / asked, "per_second": good / seconds}
