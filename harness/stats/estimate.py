"""The one shape every statistic takes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)
"""Two-sided 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with what is needed to believe it.

    Attributes:
        value: the point estimate, or None where it is undefined (then `reason` says why).
        n: items (or pairs) it rests on.
        se: standard error; None where the data give none (for example, no item differs).
        ci95: 95 % interval (low, high), or None.
        method: one of the names in `harness.report.methods.METHODS`.
        reason: why `value` or `ci95` is None.
    """

    value: float | None
    n: int
    se: float | None
    ci95: tuple[float, float] | None
    method: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PairedEstimate:
    """An estimate from pairs of items, with its flips.

    Attributes:
        estimate: difference or ratio, variant against baseline.
        n_discordant: pairs whose two scores differ.
        b01: pairs that the variant gained (baseline lower, variant higher).
        b10: pairs that the variant lost (baseline higher, variant lower).
        p_value: exact McNemar p for binary scores, else None.
    """

    estimate: Estimate
    n_discordant: int
    b01: int
    b10: int
    p_value: float | None = None


def undefined(reason: str, *, n: int = 0, method: str = "none") -> Estimate:
    """Return an estimate without a value, and the reason."""
    return Estimate(value=None, n=n, se=None, ci95=None, method=method, reason=reason)
