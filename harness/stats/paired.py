"""Variant against baseline on the same items: difference, recovery, and the mean of recoveries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.stats.adjust import adjustment
from harness.stats.binary import mcnemar_exact, tang_interval, tango_interval
from harness.stats.bootstrap import Interval, difference_interval, ratio_interval
from harness.stats.clusters import Clusters, Floats, group, mean_variance
from harness.stats.estimate import Estimate, PairedEstimate, undefined
from harness.stats.means import is_binary

Scores = Sequence[float] | Floats


def checked_pairs(variant: Scores, baseline: Scores) -> tuple[Floats, Floats]:
    """Return both lists of scores as arrays, [n] each; ValueError where they do not fit or leave 0..1."""
    v, b = np.asarray(variant, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if v.shape != b.shape or v.ndim != 1:
        raise ValueError(f"pairs need two equally long lists of scores, got {v.shape} and {b.shape}")
    # Written so that a NaN is refused too.
    if v.size and not (np.minimum(v, b).min() >= 0 and np.maximum(v, b).max() <= 1):
        raise ValueError("scores must lie between 0 and 1")
    return v, b


def _flips(v: Floats, b: Floats) -> tuple[int, int]:
    return int(np.sum(v > b)), int(np.sum(v < b))


def _se_or_none(variance: float) -> float | None:
    return math.sqrt(variance) if variance > 0 else None


def difference_limits(v: Floats, b: Floats, grouped: Clusters, *, tail: float = 0.025) -> Interval:
    """Interval for mean(v) - mean(b) of checked scores, [n] each and n > 0, with `tail` probability on each side."""
    if not (is_binary(v) and is_binary(b)):
        return difference_interval(v, b, grouped, tail=tail)
    difference, (gained, lost) = v - b, _flips(v, b)
    fit = adjustment(difference - difference.mean(), gained + lost, grouped, tail)
    low, high = tango_interval(gained, lost, v.size, fit=fit)
    return Interval(low, high, _se_or_none(mean_variance(difference, grouped)), grouped.suffix("tango"))


def paired_difference(variant: Scores, baseline: Scores, clusters: Sequence[str] | None = None) -> PairedEstimate:
    """Mean of variant - baseline over the same items, [n] scores on the 0..1 scale.

    Right/wrong scores: Tango's score interval and the exact McNemar test. In clusters the interval takes the design
    effect of the differences (Rao & Scott 1992; see `harness.stats.adjust`), while McNemar's test still takes items as
    independent: `loss_p_value` does not. Other scores: studentised cluster bootstrap, or the flip bound below ten
    differing items.
    """
    v, b = checked_pairs(variant, baseline)
    n = int(v.size)
    if n == 0:
        return PairedEstimate(undefined("no pair of items"), 0, 0, 0)
    gained, lost = _flips(v, b)
    result = difference_limits(v, b, group(n, clusters))
    estimate = Estimate(float((v - b).mean()), n, result.se, (result.low, result.high), result.method)
    p_value = mcnemar_exact(gained, lost) if is_binary(v) and is_binary(b) else None
    return PairedEstimate(estimate, gained + lost, gained, lost, p_value)


def recovery(variant: Scores, baseline: Scores, clusters: Sequence[str] | None = None) -> PairedEstimate:
    """Recovery, mean(variant) / mean(baseline), over the same items, [n] scores on the 0..1 scale.

    Right/wrong scores: the score interval of Tang, Tang & Chan (2003), with a design effect when clustered. Other
    scores: studentised cluster bootstrap or flip bound. Undefined, not 0 or infinite, where the baseline scores 0.
    """
    v, b = checked_pairs(variant, baseline)
    n = int(v.size)
    if n == 0:
        return PairedEstimate(undefined("no pair of items"), 0, 0, 0)
    grouped = group(n, clusters)
    gained, lost = _flips(v, b)
    if not b.any():
        reason = "the baseline scores 0: recovery is undefined"
        return PairedEstimate(undefined(reason, n=n), gained + lost, gained, lost)
    value = float(v.sum() / b.sum())
    if is_binary(v) and is_binary(b):
        residual = v - value * b  # its mean is 0: the linearised ratio
        fit = adjustment(residual, gained + lost, grouped)
        both = float(np.sum((v == 1) & (b == 1)))
        interval = tang_interval(both, gained, lost, n, fit=fit)
        se = _se_or_none(mean_variance(residual, grouped) / float(b.mean()) ** 2) if gained + lost else None
        estimate = Estimate(value, n, se, interval, grouped.suffix("tang"))
        return PairedEstimate(estimate, gained + lost, gained, lost, mcnemar_exact(gained, lost))
    result = ratio_interval(v, b, grouped)
    estimate = Estimate(value, n, result.se, (result.low, result.high), result.method)
    return PairedEstimate(estimate, gained + lost, gained, lost)
