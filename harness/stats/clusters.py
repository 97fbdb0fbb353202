"""Clustered variance: items that share a template or a document are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        """Return the sum of `values` [..., n] within each cluster, [..., count]."""
        if values.ndim > 1:
            return np.stack([self.sums(row) for row in values])
        if self.count == values.size:
            return values[np.argsort(self.codes)]
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


def t_quantile(clusters: Clusters, tail: float = 0.025) -> float:
    """Quantile of Student's t with C - 1 degrees of freedom and `tail` probability beyond it."""
    from scipy.special import stdtrit

    return float(stdtrit(clusters.count - 1, 1 - tail))
