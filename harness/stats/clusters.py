"""Clustered variance: items that share a template or a document are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.stats.estimate import Z95

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which items belong together.

    Attributes:
        codes: cluster number of each item, [n], 0-based.
        count: number of clusters; equal to n when every item is its own cluster.
        clustered: True when at least one cluster holds two items and there are two clusters or more. A single
            cluster carries no information on the variance between clusters, so items are then taken alone.
    """

    codes: NDArray[np.intp]
    count: int
    clustered: bool

    def sums(self, values: Floats) -> Floats:
        """Return the sum of `values` [n] within each cluster, [count]."""
        return np.bincount(self.codes, weights=values, minlength=self.count).astype(np.float64)

    def suffix(self, method: str) -> str:
        """Return the method's name as it is reported for these clusters."""
        return f"{method}-clustered" if self.clustered else method


def group(n: int, clusters: Sequence[str] | None) -> Clusters:
    """Group `n` items by their cluster labels; None means that every item stands alone."""
    if clusters is not None:
        if len(clusters) != n:
            raise ValueError(f"{len(clusters)} cluster labels for {n} items")
        names, codes = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
        if 1 < len(names) < n:
            return Clusters(codes=codes.astype(np.intp), count=len(names), clustered=True)
    return Clusters(codes=np.arange(n, dtype=np.intp), count=n, clustered=False)


def mean_variance(values: Floats, clusters: Clusters) -> float:
    """Variance of the mean of `values` with the C/(C-1) correction (Cameron & Miller 2015, eq. 6 and 12)."""
    n, count = values.size, clusters.count
    if count < 2:
        return 0.0
    residuals = clusters.sums(values - values.mean())
    return float(count / (count - 1) * np.square(residuals).sum() / n**2)


def design_effect(values: Floats, clusters: Clusters) -> float:
    """Clustered over independent variance of the mean, at least 1 (Rao & Scott 1992).

    Held at 1 from below: a ratio under 1 is mostly noise when clusters are few, and would narrow the interval.
    """
    if not clusters.clustered:
        return 1.0
    alone = mean_variance(values, group(values.size, None))
    return max(1.0, mean_variance(values, clusters) / alone) if alone > 0 else 1.0


def critical(clusters: Clusters, *, normal: bool) -> float:
    """Two-sided 95 % quantile: Student's t with C - 1 degrees of freedom, or z for independent score intervals."""
    if normal and not clusters.clustered:
        return Z95
    from scipy.special import stdtrit

    return float(stdtrit(clusters.count - 1, 0.975))
