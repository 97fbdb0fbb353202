"""What a gate asks of paired scores: the p-value of a loss, its lower limit, and Holm's correction over suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.stats.clusters import Floats, group
from harness.stats.means import is_binary
from harness.stats.paired import Scores, checked_pairs, difference_limits

SIGN_FLIPS = 20_000
"""Random sign patterns where the exact distribution is not a walk on whole numbers; the least p is 1 / 20 001."""
SEED = 20_261


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values (Holm 1979, Scand. J. Stat. 6:65), in the order given.

    Rejecting where the adjusted p is at most alpha holds the chance of any false rejection at alpha, whatever the
    dependence between the tests. Raises ValueError for a p outside 0..1 (NaN included).
    """
    for name, p in p_values.items():
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"{name}: a p-value lies between 0 and 1, got {p}")
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def loss_p_value(variant: Scores, baseline: Scores, clusters: Sequence[str] | None = None) -> float:
    """One-sided p-value for "the variant scores lower than the baseline" on the same items, [n] scores in 0..1.

    A sign-flip test (Fisher's randomisation test for pairs): if the two were interchangeable, the summed difference of
    each cluster could as well have had the other sign. p is the share of sign patterns whose total loss is at least
    the observed one. For right/wrong scores of independent items this is the exact one-sided McNemar test. Clusters
    are flipped whole, so the test is exact however alike the items of a cluster are.
    1 where no item differs. Raises ValueError for no items or scores outside 0..1.
    """
    v, b = checked_pairs(variant, baseline)
    if v.size == 0:
        raise ValueError("a p-value needs at least one pair of items")
    grouped = group(int(v.size), clusters)
    if is_binary(v) and is_binary(b) and not grouped.clustered:
        from scipy.special import bdtr

        gained, lost = int(np.sum(v > b)), int(np.sum(v < b))
        return float(bdtr(gained, gained + lost, 0.5)) if gained + lost else 1.0
    sums = grouped.sums(v - b)
    sums = sums[np.abs(sums) > 1e-12]
    if sums.size == 0:
        return 1.0
    if is_binary(v) and is_binary(b):
        return walk_p(np.rint(sums).astype(np.int64))
    return _sampled_p(sums)


def walk_p(sums: NDArray[np.int64]) -> float:
    """P(sum of +-|s_c| <= observed sum), exactly, for whole numbers: one convolution for each cluster."""
    sizes = np.abs(sums)
    total = int(sizes.sum())
    probability = np.zeros(2 * total + 1)
    probability[total] = 1.0
    for size in sizes:
        step = int(size)
        moved = np.zeros_like(probability)
        moved[step:] += 0.5 * probability[: probability.size - step]
        moved[: probability.size - step] += 0.5 * probability[step:]
        probability = moved
    return float(min(1.0, probability[: int(sums.sum()) + total + 1].sum()))


def _sampled_p(sums: Floats) -> float:
    """P(sum of +-|s_c| <= observed sum): every pattern up to 14 clusters, else drawn ones (with the +1 correction)."""
    observed = float(sums.sum()) + 1e-12 * float(np.abs(sums).sum())
    if sums.size <= 14:
        patterns = (np.arange(2**sums.size)[:, None] >> np.arange(sums.size)) & 1
        return float(np.mean((1 - 2 * patterns) @ sums <= observed))
    rng, below = np.random.default_rng(SEED), 0
    for _ in range(0, SIGN_FLIPS, 1000):
        signs = rng.integers(0, 2, size=(1000, sums.size)) * 2 - 1
        below += int(np.sum(signs @ sums <= observed))
    return (below + 1) / (SIGN_FLIPS + 1)


def lower_bound(
    variant: Scores, baseline: Scores, clusters: Sequence[str] | None = None, *, alpha: float = 0.05
) -> float:
    """One-sided 1 - `alpha` lower limit of mean(variant) - mean(baseline), by the method of `paired_difference`."""
    v, b = checked_pairs(variant, baseline)
    if v.size == 0:
        raise ValueError("a lower limit needs at least one pair of items")
    return difference_limits(v, b, group(int(v.size), clusters), tail=alpha).low
