"""Intervals for paired continuous scores (ROUGE, pass@k): studentised cluster bootstrap, and the flip bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from harness.stats.adjust import Adjustment, adjustments
from harness.stats.clusters import Clusters, Floats

SEED = 20_260
"""Fixed, so that the same records always give the same interval."""
RESAMPLES = 4_000
MIN_DISCORDANT = 10
"""Below this many differing pairs (in clusters: their number over the design effect) the flip bound is used."""
MIN_CLUSTERS = 5
"""Below this many clusters a resample often holds one cluster only; Student's t is used alone."""
_CHUNK = 250


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval, its standard error (None where there is none) and the method that gave it."""

    low: float
    high: float
    se: float | None
    method: str


def clopper_pearson_upper(k: float, n: float, tail: float = 0.025) -> float:
    """Exact upper limit of a proportion, `k` of `n`, with `tail` probability beyond it (Clopper & Pearson 1934).

    Effective, non-integer counts are allowed (Korn & Graubard 1998).
    """
    if k >= n:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(k + 1, n - k, 1 - tail))


def flip_bound(variant: Floats, baseline: Floats, tail: float = 0.025, deff: float = 1.0) -> tuple[float, float]:
    """Interval for the mean difference of 0..1 scores that holds however few items differ.

    A mean difference d obeys -P(item gets worse) <= d <= P(item gets better) because no item moves by more than 1;
    each probability is replaced by its exact 97.5 % upper limit ("rule of three" when none was seen), at the effective
    size n / `deff` where items are clustered. Conservative.
    """
    n = variant.size
    worse, better = int(np.sum(variant < baseline)), int(np.sum(variant > baseline))
    return (
        -clopper_pearson_upper(worse / deff, n / deff, tail),
        clopper_pearson_upper(better / deff, n / deff, tail),
    )


def bounded(variant: Floats, baseline: Floats, clusters: Clusters, tail: float) -> tuple[float, float]:
    """Flip bound at the effective sample size of the clusters, [n] scores each."""
    (fit,) = flip_fits((variant != baseline)[None], clusters, tail)
    normal = NormalDist().inv_cdf(1 - tail)
    return flip_bound(variant, baseline, tail, fit.deff() * (fit.crit / normal) ** 2)


def flip_fits(changed: NDArray[np.bool_], clusters: Clusters, tail: float = 0.025) -> list[Adjustment]:
    """Adjustments for the share of items that differ: `changed` [R, n] says which do."""
    flags = changed.astype(np.float64)
    if not clusters.clustered:
        return [Adjustment(NormalDist().inv_cdf(1 - tail))] * len(flags)
    n, total = flags.shape[1], flags.sum(axis=1)
    sizes = clusters.sums(np.ones(n))
    residuals = clusters.sums(flags) - total[:, None] / n * sizes
    return adjustments(residuals, total * (n - total) / (n - 1), total, sizes, tail=tail)


def too_few(changed: NDArray[np.bool_], clusters: Clusters) -> NDArray[np.bool_]:
    """Whether fewer than MIN_DISCORDANT independent items differ, [R]: flips of one cluster count as one or few."""
    deff = np.array([fit.deff() for fit in flip_fits(changed, clusters)])
    return changed.sum(axis=1) / np.maximum(deff, 1.0) < MIN_DISCORDANT


def ratio_interval(variant: Floats, baseline: Floats, clusters: Clusters, *, tail: float = 0.025) -> Interval:
    """Interval for mean(variant) / mean(baseline), paired by item and resampled by cluster; never below 0.

    The standard error is the linearised one (residuals v - r b, summed by cluster); the bootstrap studentises with
    the same formula in every resample.
    """
    mean = float(baseline.mean())
    if too_few((variant != baseline)[None], clusters)[0]:
        low, high = bounded(variant, baseline, clusters, tail)
        return Interval(max(0.0, 1 + low / mean), 1 + high / mean, None, clusters.suffix("flip-bound"))
    if not variant.any():
        # Nothing was right: bound the share of items above 0.
        share = bounded(variant, variant, clusters, tail)[1]
        return Interval(0.0, share / mean, None, clusters.suffix("flip-bound"))
    result = _one(variant, baseline, clusters, int(np.sum(variant != baseline)), tail)
    return Interval(max(0.0, result.low), result.high, result.se, result.method)


def difference_interval(variant: Floats, baseline: Floats, clusters: Clusters, *, tail: float = 0.025) -> Interval:
    """Interval for mean(variant) - mean(baseline), paired by item and resampled by cluster."""
    flips = int(np.sum(variant != baseline))
    if too_few((variant != baseline)[None], clusters)[0]:
        low, high = bounded(variant, baseline, clusters, tail)
        return Interval(low, high, None, clusters.suffix("flip-bound"))
    result = _one(variant - baseline, np.ones_like(variant), clusters, flips, tail)
    return Interval(max(-1.0, result.low), min(1.0, result.high), result.se, result.method)


def _one(x: Floats, y: Floats, clusters: Clusters, flips: int, tail: float) -> Interval:
    low, high, se = studentised_limits(x[None], y[None], clusters, np.array([float(flips)]), tail=tail)
    return Interval(float(low[0]), float(high[0]), float(se[0]), clusters.suffix("bootstrap-t"))


def studentised_limits(
    x: Floats, y: Floats, clusters: Clusters, flips: Floats, *, tail: float = 0.025, resamples: int | None = None
) -> tuple[Floats, Floats, Floats]:
    """Limits for sum(x) / sum(y) of many data sets at once, and the clustered standard error, [R] each.

    Args:
        x: Item values of the numerator, [R, n].
        y: Item values of the denominator, [R, n]; ones for a mean.
        clusters: Clusters of the n items, the same in every data set.
        flips: Differing pairs of each data set, [R].
        tail: Probability beyond each limit.
        resamples: Bootstrap resamples; RESAMPLES by default.

    Each side is the wider of two: the bootstrap-t limit (Davison & Hinkley 1997, section 5.2), which follows the skew
    that a few large losses give, and Student's t with Satterthwaite's degrees of freedom (`adjustments`), which knows
    how badly a variance that rests on few clusters or few flips is known. In simulation either alone falls short
    where the other does not.
    """
    top, bottom = clusters.sums(x), clusters.sums(y)
    ratio, whole = x.sum(axis=1) / y.sum(axis=1), y.sum(axis=1)
    residuals = x - ratio[:, None] * y
    n, count = x.shape[1], clusters.count
    alone = n / (n - 1) * np.square(residuals).sum(axis=1)
    sums = top - ratio[:, None] * bottom
    fits = adjustments(sums, alone, flips, clusters.sums(np.ones(n)), tail=tail)
    deff, crit = np.array([fit.deff() for fit in fits]), np.array([fit.crit for fit in fits])
    width = np.sqrt(alone * deff) / whole
    below, above = -crit, crit
    if count >= MIN_CLUSTERS:
        first, last = _pivot_quantiles(top, bottom, tail, resamples or RESAMPLES)
        below, above = np.minimum(below, -last), np.maximum(above, -first)
    se = np.sqrt(count / (count - 1) * np.square(sums).sum(axis=1)) / whole
    return ratio + below * width, ratio + above * width, se


def _resamples(count: int, resamples: int) -> Iterator[Floats]:
    """How often each of `count` clusters is drawn, [chunk, count] at a time, `resamples` rows in all."""
    rng = np.random.default_rng(SEED)
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        drawn = rng.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _pivot_quantiles(top: Floats, bottom: Floats, tail: float, resamples: int) -> tuple[Floats, Floats]:
    """Quantiles `tail` and 1 - `tail` of (ratio* - ratio) / se* over the resamples, for sums [R, C]."""
    runs, count = top.shape
    ratio, factor = top.sum(axis=1) / bottom.sum(axis=1), count / (count - 1)
    moments = np.concatenate([top, bottom, top * top, top * bottom, bottom * bottom]).T
    pivots: list[Floats] = []
    for weights in _resamples(count, resamples):
        t, b, tt, tb, bb = (weights @ moments).reshape(-1, 5, runs).swapaxes(0, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = t / b
            spread = factor * np.maximum(tt - 2 * drawn * tb + drawn * drawn * bb, 0.0)
            pivots.append((drawn - ratio) * b / np.sqrt(spread))
    pivot = np.concatenate(pivots)
    # A resample in which no item differs has no spread: it says nothing of the pivot, and sorts last.
    pivot[~np.isfinite(pivot)] = np.nan
    pivot.sort(axis=0)
    known = np.sum(np.isfinite(pivot), axis=0)

    def at(share: float) -> Floats:
        place = np.maximum(known - 1, 0) * share
        left = np.floor(place).astype(np.intp)
        right, columns = np.minimum(left + 1, np.maximum(known - 1, 0)), np.arange(runs)
        return pivot[left, columns] + (place - left) * (pivot[right, columns] - pivot[left, columns])

    return np.nan_to_num(at(tail), nan=0.0), np.nan_to_num(at(1 - tail), nan=0.0)
