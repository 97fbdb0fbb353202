"""Whether a series of speed ratios has a step: by ranks, since such noise has heavy tails and outliers."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from harness.schema.base import Interval
from harness.stats.clusters import Floats

SEED = 20_264
DRAWS = 400_000
LEAST_P = 1 / (DRAWS + 1)
"""No test of speeds gives less."""
_SCREEN = 100
"""The normal distribution's p of a single cut may be so many times the exact one, at the levels that are asked for."""


def rank_statistic(values: Floats) -> Floats:
    """Standardised rank sum behind every cut, [T] -> [T - 1] (Pettitt 1979, Applied Statistics 28:126; ties share)."""
    from scipy.stats import rankdata

    return _standardise(rankdata(values)[None, :])[0]


def _standardise(ranks: Floats) -> Floats:
    """Rank sums of the points behind each cut, centred and scaled; [series, T] -> [series, T - 1]."""
    count = ranks.shape[1]
    before = np.arange(1, count)
    after = count - before
    behind = ranks.sum(axis=1, keepdims=True) - np.cumsum(ranks, axis=1)[:, :-1]
    return np.asarray((behind - after * (count + 1) / 2) / np.sqrt(before * after * (count + 1) / 12))


@lru_cache(maxsize=256)
def _largest(count: int) -> Floats:
    """Largest |statistic| of series of `count` points in random order, sorted, [DRAWS]."""
    rng = np.random.default_rng([SEED, count])
    found = []
    for _ in range(0, DRAWS, 10_000):
        orders = rng.random((10_000, count)).argsort(axis=1).astype(np.float64) + 1
        found.append(np.abs(_standardise(orders)).max(axis=1))
    return np.sort(np.concatenate(found))


def ranks_p(values: Floats, level: float) -> tuple[float, int]:
    """p-value of the largest statistic over all cuts, and the number of points before that cut.

    Exact but for the drawing wherever the points could have come in any order, whatever their distribution. Nothing is
    drawn where the normal distribution says that p is far above `level`: its p is then returned.
    """
    from scipy.special import ndtr

    statistic = np.abs(rank_statistic(values))
    at = int(np.argmax(statistic))
    screen = 2 * float(ndtr(-statistic[at]))
    if screen > _SCREEN * level:
        return screen, at + 1
    largest = _largest(int(values.size))
    beyond = DRAWS - int(np.searchsorted(largest, statistic[at] - 1e-9))
    return (beyond + 1) / (DRAWS + 1), at + 1


def shift(before: Floats, after: Floats) -> tuple[float, Interval | None]:
    """Hodges and Lehmann's shift of `after` over `before`, and its 95 % interval (Moses); None with too few points."""
    differences = np.sort((after[:, None] - before[None, :]).ravel())
    pairs, count = before.size * after.size, before.size + after.size
    skip = math.floor(pairs / 2 - 1.959964 * math.sqrt(pairs * (count + 1) / 12))
    middle = float(np.median(differences))
    if skip < 1:
        return middle, None
    return middle, (float(differences[skip - 1]), float(differences[-skip]))
