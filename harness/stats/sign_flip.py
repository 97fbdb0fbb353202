"""Two-sided sign-flip test of paired scores, quick and with small p-values: what many comparisons at once need."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from harness.stats.clusters import Floats

_ZERO = 1e-12
_EXACT_PATTERNS = 14
"""Up to so many differing clusters every sign pattern is counted."""
_LARGEST_TOTAL = 50_000
"""Of whole-number sums: beyond it the exact distribution would take long, and the saddlepoint is as good."""


def sign_flip_p(sums: Floats) -> float:
    """Two-sided p-value for "the summed difference is 0", from the summed differences of the clusters, [C].

    If the two sides were interchangeable, each cluster's difference could as well have had the other sign (Fisher's
    randomisation test for pairs; clusters are flipped whole, so items within one may be as alike as they like). p is
    the share of sign patterns whose total is at least as far from 0. Whole-number sums (right/wrong scores): exact, by
    the discrete Fourier transform of the product of cosines. Others: every pattern up to 14 clusters, else the
    saddlepoint approximation of Robinson (1982, JRSS B 44:91) in Lugannani and Rice's form. Unlike drawn patterns
    these give p-values as small as 2^-C, which a correction for hundreds of comparisons needs.
    1 where no cluster differs.
    """
    kept = sums[np.abs(sums) > _ZERO]
    if kept.size == 0:
        return 1.0
    whole = np.rint(kept)
    if np.all(np.abs(kept - whole) < 1e-9) and float(np.abs(whole).sum()) <= _LARGEST_TOTAL:
        return _whole_numbers(whole)
    return _all_patterns(kept) if kept.size <= _EXACT_PATTERNS else _saddlepoint(kept)


def _whole_numbers(sums: Floats) -> float:
    sizes, counts = np.unique(np.abs(sums).astype(np.int64), return_counts=True)
    total, observed = int(sizes @ counts), abs(round(float(sums.sum())))
    if observed == 0:
        return 1.0
    width = 1 << (2 * total).bit_length()
    angles = 2 * math.pi * np.arange(width // 2 + 1) / width
    transform = np.ones(width // 2 + 1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        transform *= np.cos(size * angles) ** count
    probability = np.fft.irfft(transform, n=width)
    # The transform is exact to about 1e-15 of 1; the least p possible bounds what is lost below that.
    return _within(2 * float(probability[observed : total + 1].sum()), int(counts.sum()))


def _all_patterns(sums: Floats) -> float:
    observed = abs(float(sums.sum())) - 1e-12 * float(np.abs(sums).sum())
    patterns = (np.arange(2**sums.size)[:, None] >> np.arange(sums.size)) & 1
    return float(np.mean(np.abs((1 - 2 * patterns) @ sums) >= observed))


def _saddlepoint(sums: Floats) -> float:
    """P(|sum of +-s_c| >= |observed|) with K(t) = sum of log cosh(t s_c)."""
    size = np.abs(sums) / float(np.abs(sums).max())
    observed, most = abs(float(np.sign(sums) @ size)), float(size.sum())
    if observed >= most * (1 - _ZERO):
        return _within(0.0, size.size)
    t = _solve(size, observed)
    x = t * size
    cumulant = float(np.sum(x + np.log1p(np.exp(-2 * x)) - math.log(2)))
    w = math.sqrt(max(0.0, 2 * (t * observed - cumulant)))
    u = t * math.sqrt(float(np.sum(np.square(size) * (1 - np.square(np.tanh(x))))))
    if w < 1e-3 or u <= 0:
        return 1.0
    normal = NormalDist()
    # One pattern more: with few clusters the distribution has steps, which the approximation cuts in half.
    return _within(
        2 * (normal.cdf(-w) + normal.pdf(w) * (1 / u - 1 / w)) + 2.0 ** (1 - min(size.size, 1000)), size.size
    )


def _solve(size: Floats, observed: float) -> float:
    """The t >= 0 with K'(t) = observed; K' rises from 0 to the sum of the sizes."""
    low, high = 0.0, 1.0
    while float(size @ np.tanh(high * size)) < observed:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(size @ np.tanh(middle * size)) < observed else (low, middle)
        if high - low <= 1e-10 * high:
            break
    return high


def _within(p: float, clusters: int) -> float:
    """Between the least two-sided p that so many clusters can give, and 1."""
    return min(1.0, max(p, 2.0 ** (1 - min(clusters, 1000))))
