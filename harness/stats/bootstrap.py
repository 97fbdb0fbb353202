"""Intervals for paired continuous scores (ROUGE, pass@k): studentised cluster bootstrap, and the flip bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.stats.clusters import Clusters, Floats, critical

SEED = 20_260
"""Fixed, so that the same records always give the same interval."""
RESAMPLES = 4_000
MIN_DISCORDANT = 10
"""Below this many differing pairs a bootstrap rarely redraws them and its interval is too narrow."""
MIN_CLUSTERS = 10
"""Below this many clusters a resample often holds one cluster only; Student's t is used."""
_CHUNK = 250


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval, its standard error (None where there is none) and the method that gave it."""

    low: float
    high: float
    se: float | None
    method: str


def clopper_pearson_upper(k: int, n: int, tail: float = 0.025) -> float:
    """Exact upper limit of a proportion, `k` of `n`, with `tail` probability beyond it (Clopper & Pearson 1934)."""
    if k >= n:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(k + 1, n - k, 1 - tail))


def flip_bound(variant: Floats, baseline: Floats) -> tuple[float, float]:
    """Interval for the mean difference of 0..1 scores that holds however few items differ.

    A mean difference d obeys -P(item gets worse) <= d <= P(item gets better) because no item moves by more than 1;
    each probability is replaced by its exact 97.5 % upper limit ("rule of three" when none was seen). Conservative.
    """
    n = variant.size
    worse, better = int(np.sum(variant < baseline)), int(np.sum(variant > baseline))
    return -clopper_pearson_upper(worse, n), clopper_pearson_upper(better, n)


def ratio_interval(variant: Floats, baseline: Floats, clusters: Clusters) -> Interval:
    """Interval for mean(variant) / mean(baseline), paired by item and resampled by cluster.

    The standard error is the linearised one (residuals v - r b, summed by cluster); the bootstrap studentises with
    the same formula in every resample. The lower limit is held at 0.
    """
    if int(np.sum(variant != baseline)) < MIN_DISCORDANT:
        low, high = flip_bound(variant, baseline)
        mean = float(baseline.mean())
        return Interval(max(0.0, 1 + low / mean), 1 + high / mean, None, "flip-bound")
    if not variant.any():
        # Nothing was right: the share of items above 0 is at most 1 - 0.05^(1/n).
        share = 1 - 0.05 ** (1 / variant.size)
        return Interval(0.0, min(share / float(baseline.mean()), 1 / float(baseline.mean())), None, "flip-bound")
    result = _studentised(clusters.sums(variant), clusters.sums(baseline), clusters)
    return Interval(max(0.0, result.low), result.high, result.se, result.method)


def difference_interval(variant: Floats, baseline: Floats, clusters: Clusters) -> Interval:
    """Interval for mean(variant) - mean(baseline), paired by item and resampled by cluster."""
    if int(np.sum(variant != baseline)) < MIN_DISCORDANT:
        low, high = flip_bound(variant, baseline)
        return Interval(low, high, None, "flip-bound")
    ones = np.ones_like(variant)
    result = _studentised(clusters.sums(variant - baseline), clusters.sums(ones), clusters)
    return Interval(max(-1.0, result.low), min(1.0, result.high), result.se, result.method)


def _studentised(top: Floats, bottom: Floats, clusters: Clusters) -> Interval:
    """Bootstrap-t interval for sum(top) / sum(bottom), both [C] sums by cluster (Davison & Hinkley 1997, §5.2)."""
    count = clusters.count
    ratio = float(top.sum() / bottom.sum())
    factor = count / (count - 1)
    se = math.sqrt(factor * float(np.square(top - ratio * bottom).sum())) / float(bottom.sum())
    if count < MIN_CLUSTERS or se == 0.0:
        half = critical(clusters, normal=False) * se
        return Interval(ratio - half, ratio + half, se, clusters.suffix("t"))
    rng = np.random.default_rng(SEED)
    moments = np.stack([top, bottom, top * top, top * bottom, bottom * bottom])
    pivots: list[Floats] = []
    for _ in range(0, RESAMPLES, _CHUNK):
        drawn = moments[:, rng.integers(0, count, size=(_CHUNK, count))].sum(axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = drawn[0] / drawn[1]
            residual = np.maximum(drawn[2] - 2 * ratios * drawn[3] + ratios * ratios * drawn[4], 0.0)
            errors = np.sqrt(factor * residual) / drawn[1]
            pivots.append((ratios - ratio) / errors)
    pivot = np.concatenate(pivots)
    low, high = np.quantile(pivot[np.isfinite(pivot)], [0.025, 0.975])
    return Interval(ratio - float(high) * se, ratio - float(low) * se, se, clusters.suffix("bootstrap-t"))
