"""Variant against baseline on the same items: difference, recovery, and the mean of recoveries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from harness.stats.binary import mcnemar_exact, tang_interval, tango_interval
from harness.stats.bootstrap import difference_interval, ratio_interval
from harness.stats.clusters import Clusters, Floats, critical, design_effect, group, mean_variance
from harness.stats.estimate import Estimate, PairedEstimate, undefined
from harness.stats.means import is_binary

Scores = Sequence[float] | Floats


def _pairs(variant: Scores, baseline: Scores) -> tuple[Floats, Floats]:
    v, b = np.asarray(variant, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if v.shape != b.shape or v.ndim != 1:
        raise ValueError(f"pairs need two equally long lists of scores, got {v.shape} and {b.shape}")
    if v.size and (min(v.min(), b.min()) < 0 or max(v.max(), b.max()) > 1):
        raise ValueError("scores must lie between 0 and 1")
    return v, b


def _flips(v: Floats, b: Floats) -> tuple[int, int]:
    return int(np.sum(v > b)), int(np.sum(v < b))


def _binary_terms(v: Floats, b: Floats, grouped: Clusters) -> tuple[float, float]:
    """Design effect of the per-item difference, and the quantile that goes with it."""
    return design_effect(v - b, grouped), critical(grouped, normal=True)


def _se_or_none(variance: float) -> float | None:
    return math.sqrt(variance) if variance > 0 else None


def paired_difference(variant: Scores, baseline: Scores, clusters: Sequence[str] | None = None) -> PairedEstimate:
    """Mean of variant - baseline over the same items, [n] scores on the 0..1 scale.

    Right/wrong scores: Tango's score interval (counts divided by the design effect of the differences when items are
    clustered, Rao & Scott 1992) and the exact McNemar test. Other scores: studentised cluster bootstrap, or the flip
    bound below ten differing items.
    """
    v, b = _pairs(variant, baseline)
    n = int(v.size)
    if n == 0:
        return PairedEstimate(undefined("no pair of items"), 0, 0, 0)
    grouped = group(n, clusters)
    gained, lost = _flips(v, b)
    value = float((v - b).mean())
    if is_binary(v) and is_binary(b):
        deff, crit = _binary_terms(v, b, grouped)
        interval = tango_interval(gained / deff, lost / deff, n / deff, crit)
        se = _se_or_none(mean_variance(v - b, grouped))
        estimate = Estimate(value, n, se, interval, grouped.suffix("tango"))
        return PairedEstimate(estimate, gained + lost, gained, lost, mcnemar_exact(gained, lost))
    result = difference_interval(v, b, grouped)
    estimate = Estimate(value, n, result.se, (result.low, result.high), result.method)
    return PairedEstimate(estimate, gained + lost, gained, lost)


def recovery(variant: Scores, baseline: Scores, clusters: Sequence[str] | None = None) -> PairedEstimate:
    """Recovery, mean(variant) / mean(baseline), over the same items, [n] scores on the 0..1 scale.

    Right/wrong scores: the score interval of Tang, Tang & Chan (2003), with Rao-Scott counts when clustered. Other
    scores: studentised cluster bootstrap or flip bound. Undefined, not 0 or infinite, where the baseline scores 0.
    """
    v, b = _pairs(variant, baseline)
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
        deff, crit = _binary_terms(v, b, grouped)
        both = float(np.sum((v == 1) & (b == 1)))
        interval = tang_interval(both / deff, gained / deff, lost / deff, n / deff, crit)
        residual = v - value * b  # its mean is 0: the linearised ratio
        se = _se_or_none(mean_variance(residual, grouped) / float(b.mean()) ** 2) if gained + lost else None
        estimate = Estimate(value, n, se, interval, grouped.suffix("tang"))
        return PairedEstimate(estimate, gained + lost, gained, lost, mcnemar_exact(gained, lost))
    result = ratio_interval(v, b, grouped)
    estimate = Estimate(value, n, result.se, (result.low, result.high), result.method)
    return PairedEstimate(estimate, gained + lost, gained, lost)


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
