"""Design effect and quantile for few, uneven clusters: what keeps an interval honest for related items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from harness.stats.clusters import Clusters, Floats, group

PRIOR_ICC = 0.05
"""Correlation of flips within a cluster that is assumed before any flip is seen; the templates of the pocket suites
show 0.03 to 0.06 at few flips."""
PRIOR_PAIRS = 2.0
"""Weight of that assumption, in discordant pairs: it rules when none differs and is gone at fifty."""


MOST_GROWTH = 3.0
"""Limit to how far a design effect is carried from the flips seen to the flips that a tested value expects."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """How far an interval is widened for clusters.

    Attributes:
        crit: quantile that takes the place of the normal one.
        observed: clustered over independent variance of the data.
        informative: items that carry information (discordant pairs): the weight of `observed`.
        prior: design effect assumed before any is seen, with the weight PRIOR_PAIRS.
        floor: the interval would be narrower than for independent items below this design effect.
        most: the largest design effect that clusters of this size can have (every item of a cluster alike).
    """

    crit: float
    observed: float = 1.0
    informative: float = 0.0
    prior: float = 1.0
    floor: float = 1.0
    most: float = 1.0

    def deff(self, growth: float = 1.0) -> float:
        """Design effect where the variance of independent items is `growth` times that of the data.

        k flips cannot show a design effect above k: of one flip nobody can tell whether its neighbours would flip too.
        The k (k - 1) / 2 pairs of flips do tell how often two fall into one cluster, so the excess over 1 is carried
        from k - 1 to the flips that the tested value expects (at most MOST_GROWTH times as many).
        """
        observed = self.observed
        if observed > 1:
            growth *= self.informative / max(self.informative - 1, 1.0)
            carried = 1 + (observed - 1) * min(max(growth, 1.0), MOST_GROWTH)
            observed = max(observed, min(carried, self.most))
        mixed = (self.informative * observed + PRIOR_PAIRS * self.prior) / (self.informative + PRIOR_PAIRS)
        return max(mixed, self.floor)


def prior_effect(sizes: Floats, icc: float = PRIOR_ICC) -> float:
    """Design effect 1 + (m - 1) icc of clusters with `sizes` [C]; m is the size that an item meets, sum m^2 / n."""
    return 1 + (float(sizes @ sizes) / float(sizes.sum()) - 1) * icc


def adjustments(
    residuals: Floats, alone: Floats, informative: Floats, sizes: Floats, *, tail: float = 0.025, least: float = 1.0
) -> list[Adjustment]:
    """Adjustments of R data sets.

    Args:
        residuals: Summed residuals of each cluster, [R, C]; they add up to 0.
        alone: Variance of the total if items were independent, [R].
        informative: Items that carry information (discordant pairs), [R].
        sizes: Items of each cluster, [C].
        tail: Probability beyond the quantile.
        least: Design effect under which the interval would be narrower than for independent items.

    The observed design effect is the clustered variance (C/(C-1) correction) over `alone`. The quantile is Student's t
    with Satterthwaite's degrees of freedom for a variance of C sums with kurtosis k, 2 C / (k - 1), held between 1 and
    C - 1: where one or two clusters hold all flips, the variance is known no better than from two clusters. The
    kurtosis is the unbiased one (G2 of Joanes & Gill 1998): that of a few sums is far too small.
    """
    from scipy.special import stdtrit

    count = residuals.shape[1]
    square = np.square(residuals)
    second, fourth = square.sum(axis=1), np.square(square).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.where(alone > 0, count / (count - 1) * second / alone, 1.0)
        kurtosis = np.where(second > 0, _unbiased_kurtosis(count * fourth / np.square(second), count), 1.0)
        freedom = np.where(kurtosis > 1, 2 * count / (kurtosis - 1), np.inf)
    crit = stdtrit(np.clip(freedom, 1.0, count - 1), 1 - tail)
    floor = least * np.square(NormalDist().inv_cdf(1 - tail) / crit)
    prior, most = prior_effect(sizes), prior_effect(sizes, 1.0)
    columns = (x.tolist() for x in (crit, observed, np.broadcast_to(informative, crit.shape), floor))
    return [Adjustment(c, o, k, prior, f, most) for c, o, k, f in zip(*columns, strict=True)]


def _unbiased_kurtosis(kurtosis: Floats, count: int) -> Floats:
    """G2 + 3 of Joanes & Gill (1998) from the moment ratio m4 / m2^2 of `count` sums; three sums have no G2."""
    if count <= 3:
        return kurtosis
    return 3 + (count - 1) / ((count - 2) * (count - 3)) * ((count + 1) * (kurtosis - 3) + 6)


def adjustment(residuals: Floats, informative: float, clusters: Clusters, tail: float = 0.025) -> Adjustment:
    """Adjustment for one data set: `residuals` [n] of the items, whose sum is 0; the plain z when items stand alone."""
    if not clusters.clustered:
        return Adjustment(NormalDist().inv_cdf(1 - tail))
    n = residuals.size
    (fit,) = adjustments(
        clusters.sums(residuals)[None],
        np.array([n / (n - 1) * float(residuals @ residuals)]),
        np.array([float(informative)]),
        clusters.sums(np.ones(n)),
        tail=tail,
    )
    return fit


def observed_design_effect(
    variant: Sequence[float] | Floats, baseline: Sequence[float] | Floats, clusters: Sequence[str] | None = None
) -> float:
    """Design effect of the paired difference, at least 1: for `required_n` after a run that did not decide."""
    difference = np.asarray(variant, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    if difference.size < 2:
        return 1.0
    grouped = group(int(difference.size), clusters)
    return max(1.0, adjustment(difference - difference.mean(), float(np.count_nonzero(difference)), grouped).deff())


def expected_design_effect(clusters: Sequence[str] | None, n: int, icc: float = PRIOR_ICC) -> float:
    """Design effect to plan with, before any score is known: `n` items with these labels and correlation `icc`."""
    grouped = group(n, clusters)
    return prior_effect(grouped.sums(np.ones(n)), icc) if grouped.clustered else 1.0
