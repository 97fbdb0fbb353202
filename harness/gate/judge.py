"""How a value and its interval are held against a bound, and how messages print them."""

from __future__ import annotations

import math

from harness.gate.result import Verdict

ALPHA = 0.025
"""One-sided level of every decision on skill: one side of the 95 % intervals that the tables show."""


def judge(value: float, ci95: tuple[float, float], bound: float, *, strictly: bool = False) -> Verdict:
    """Pass if the whole interval is at or above `bound` (`strictly`: above it), fail if it is below, else inconclusive.

    Raises ValueError for a number that is not finite: it could otherwise slip through every comparison.
    """
    if not all(math.isfinite(x) for x in (value, *ci95, bound)):
        raise ValueError(f"cannot judge {value} {ci95} against {bound}")
    low, high = ci95
    if low > bound or (low == bound and not strictly):
        return "pass"
    return "fail" if high < bound else "inconclusive"


def items_to_decide(n: int, value: float, ci95: tuple[float, float], bound: float) -> int | None:
    """Return roughly how many items in all would move the interval off `bound`; None if no number would.

    The interval shrinks with the root of n; only the side between the value and the bound counts.
    """
    gap = abs(value - bound)
    half = value - ci95[0] if value > bound else ci95[1] - value
    if gap < 1e-9 or half <= 0:
        return None
    return max(n + 1, math.ceil(n * (half / gap) ** 2))


def percent(x: float) -> str:
    """Print a fraction in per cent, for messages."""
    return f"{100 * x + 0.0:.2f} %"


def describe(value: float, ci95: tuple[float, float] | None, n: int) -> str:
    """Print a value, its interval and n, for messages."""
    interval = "" if ci95 is None else f" [{100 * ci95[0] + 0.0:.2f}, {100 * ci95[1] + 0.0:.2f}]"
    return f"{percent(value)}{interval}, n = {n:,}"


def more_items(needed: int | None, n: int) -> str:
    """Say what would decide an inconclusive result."""
    if needed is None:
        return "the value sits on the bound: more items will hardly decide"
    return f"about {needed:,} items would decide (there are {n:,})"
