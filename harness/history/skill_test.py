"""Whether a series of scores has a step. The same items are asked at every commit: most noise is shared and cancels.

A deterministic model that did not change scores exactly the same, so the sampling error of a score says nothing about
the noise from commit to commit. What can mislead is that answers which changed lost or gained by chance (other items
would have shown nothing), and that a variant scatters by itself. Each has a test, and a step needs both.
"""

from __future__ import annotations

import math

import numpy as np

from harness.stats.clusters import Clusters, Floats

SEED = 20_263
_MOST_DRAWS = 200_000
_ENOUGH = 30
"""Draws beyond the observed change that tell p well enough where it is above the level (Besag & Clifford 1991)."""
_TINY = 1e-12
"""Sums of exact scores are equal to about 1e-15; their squares to far less than this."""
LEAST_POINTS = 4
"""Fewer do not tell how a variant scatters from commit to commit, so no step is looked for among them."""


def spread_t(values: Floats) -> Floats:
    """The step at every place of a series over its spread, [T] -> [T - 1]: entry i cuts before point i + 1.

    The spread is that of successive differences without the one at the cut (von Neumann 1941), so that other steps
    in the series hardly widen it. Infinite where nothing else moves.
    """
    count = values.size
    before = np.arange(1, count)
    total = np.cumsum(values)[:-1]
    change = (values.sum() - total) / (count - before) - total / before
    squares = np.square(np.diff(values))
    variance = (squares.sum() - squares) / (2 * max(1, count - 2))
    variance[variance < _TINY] = 0.0
    scale = np.sqrt(variance * (1 / before + 1 / (count - before)))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(change) / scale
    return np.where(np.abs(change) < _TINY, 0.0, t)


def least_squares_cut(values: Floats) -> int:
    """Number of points before the cut that leaves the smallest sum of squares."""
    count = values.size
    before = np.arange(1, count)
    total = np.cumsum(values)[:-1]
    change = (values.sum() - total) / (count - before) - total / before
    return int(np.argmax(np.square(change) * before * (count - before))) + 1


def commits_p(values: Floats, at: int) -> float:
    """p-value of a step before point `at` against the spread between commits, over all places (Bonferroni).

    Student's t with 2/3 (T - 2) degrees of freedom, those of successive differences.
    """
    from scipy.special import stdtr

    t = float(spread_t(values)[at - 1])
    return min(1.0, 2 * (values.size - 1) * float(stdtr(2 / 3 * (values.size - 2), -t)))


def cluster_differences(items: Floats, clusters: Clusters) -> Floats:
    """Sums of the clusters' change at every cut, [T, n] -> [T - 1, clusters]: mean after it - mean before it."""
    count = len(items)
    sums = _by_cluster(items, clusters)
    before = np.arange(1, count)[:, None]
    total = np.cumsum(sums, axis=0)
    changes = (total[-1] - total[:-1]) / (count - before) - total[:-1] / before
    changes[np.abs(changes) < 1e-9] = 0.0
    return np.asarray(changes, dtype=np.float64)


def _by_cluster(items: Floats, clusters: Clusters) -> Floats:
    if not clusters.clustered:
        return items
    member = np.zeros((items.shape[1], clusters.count))
    member[np.arange(items.shape[1]), clusters.codes] = 1.0
    return np.asarray(items @ member, dtype=np.float64)


def standardised(changes: Floats) -> Floats:
    """Total change at every cut over the root of the summed squares, [cuts, clusters] -> [cuts]; 0 without change."""
    size = np.sqrt(np.square(changes).sum(axis=1))
    total = changes.sum(axis=1)
    return np.where(size > 0, total / np.where(size > 0, size, 1.0), 0.0)


def items_p(changes: Floats, at: int, level: float) -> float:
    """p-value of the change before point `at` over items, for the largest standardised change of any cut.

    If nothing changed, the change of a cluster could as well have had the other sign at all cuts at once (Fisher's
    randomisation; a max-T test over cuts, Westfall & Young 1993). Exact however alike the cuts are. Nothing is drawn
    where the normal distribution says that p is far above `level`, or Hoeffding's bound for sums of signs
    (1963, J. Am. Stat. Assoc. 58:13), over all cuts, that it is below: that is then returned. Drawing ends early where
    p is above the level beyond doubt, and what is returned is then an estimate.

    Args:
        changes: `cluster_differences`, [cuts, clusters].
        at: number of points before the cut.
        level: the level it will be held against; decides how many signs are drawn.
    """
    from scipy.special import ndtr

    observed = abs(float(standardised(changes)[at - 1]))
    screen = 2 * float(ndtr(-observed))
    if screen > 5 * level:
        return screen
    moved = changes[:, np.any(changes != 0, axis=0)]
    size = np.sqrt(np.square(moved).sum(axis=1))
    kept = moved[size > 0] / size[size > 0, None]
    # Cuts with the same changes (nothing moved between them) are one test.
    kept = np.unique(np.round(kept, 12), axis=0)
    bound = 2 * len(kept) * math.exp(-(observed**2) / 2)
    if bound <= level:
        return bound
    draws = int(min(_MOST_DRAWS, max(10_000, 20 / level)))
    rng, beyond, done = np.random.default_rng(SEED), 0, 0
    while done < draws:
        batch = min(4_000, draws - done)
        signs = rng.integers(0, 2, size=(batch, kept.shape[1]), dtype=np.int8).astype(np.float32) * 2 - 1
        largest = np.abs(signs @ kept.T.astype(np.float32)).max(axis=1)
        beyond += int(np.sum(largest >= observed * (1 - 1e-5)))
        done += batch
        if beyond >= _ENOUGH and beyond / done > level:
            return beyond / done
    return (beyond + 1) / (draws + 1)


def unpaired_p(values: Floats, errors: Floats, at: int) -> float:
    """p-value of a step before point `at` where the items are not known, over all places (Bonferroni).

    The standard error of a level is that of one commit, however many there are: they may all have asked the same
    items. As if the two levels were independent, so conservative where they asked the same.
    """
    from scipy.special import ndtr

    change = float(values[at:].mean() - values[:at].mean())
    error = math.hypot(float(errors[:at].max()), float(errors[at:].max()))
    if error == 0:
        return 1.0
    return min(1.0, 2 * (values.size - 1) * float(ndtr(-abs(change) / error)))
