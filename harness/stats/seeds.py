"""Several seeds of one recipe: the spread between seeds belongs in the interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.stats.adjust import adjustments
from harness.stats.binary import tang_interval, tango_interval
from harness.stats.bootstrap import difference_interval, ratio_interval
from harness.stats.clusters import Clusters, Floats, group, mean_variance
from harness.stats.estimate import Estimate, PairedEstimate, undefined
from harness.stats.means import is_binary
from harness.stats.paired import Scores

ONE_SEED = "one seed: the spread between seeds is not in the interval"


def _table(scores: Sequence[Scores] | Floats, name: str) -> Floats:
    lengths = {len(row) for row in scores}
    if len(lengths) != 1:
        raise ValueError(f"{name}: every seed needs the same items, got {sorted(lengths)} items")
    table = np.asarray(scores, dtype=np.float64)
    if table.size and not (table.min() >= 0 and table.max() <= 1):
        raise ValueError(f"{name}: scores must lie between 0 and 1")
    return table


@dataclass(frozen=True, slots=True)
class _Paired:
    """Checked scores by seed, [S, n] and [S', n], and what both estimates take from them.

    `right` and `before` [n] are the means over seeds; `gained` and `lost` count pairs over seeds.
    """

    v: Floats
    b: Floats
    grouped: Clusters
    right: Floats
    before: Floats
    gained: int
    lost: int

    @property
    def binary(self) -> bool:
        return is_binary(self.v) and is_binary(self.b)

    def result(self, estimate: Estimate) -> PairedEstimate:
        return PairedEstimate(estimate, self.gained + self.lost, self.gained, self.lost)


def _pair(
    variant: Sequence[Scores] | Floats, baseline: Sequence[Scores] | Floats, clusters: Sequence[str] | None
) -> _Paired | None:
    """Pair the seeds; None where there is no item."""
    v, b = _table(variant, "variant"), _table(baseline, "baseline")
    if v.shape[1] != b.shape[1]:
        raise ValueError(f"variant and baseline need the same items, got {v.shape[1]} and {b.shape[1]}")
    n = int(v.shape[1])
    if n == 0:
        return None
    again = np.resize(b, v.shape)
    gained, lost = int(np.sum(v > again)), int(np.sum(v < again))
    return _Paired(v, b, group(n, clusters), v.mean(axis=0), b.mean(axis=0), gained, lost)


def seeds_difference(
    variant: Sequence[Scores] | Floats, baseline: Sequence[Scores] | Floats, clusters: Sequence[str] | None = None
) -> PairedEstimate:
    """Mean of variant - baseline over seeds and items, with the variance between items and between seeds.

    Args:
        variant: Scores by seed, [S][n] on the 0..1 scale, every seed on the same items in the same order.
        baseline: The same for the baseline, [S'][n]; one row for a baseline without seeds.
        clusters: Cluster labels of the items, [n].

    The estimate holds for the recipe (another seed, other items), not for the checkpoints at hand. Items: Tango's
    interval on the discordances averaged over all pairs of seeds, at the design effect of the per-item means; for other
    scores the interval of `paired_difference` on those means. Seeds: Student's t on the means of the seeds. Both are
    independent and joined by MOVER (Zou & Donner 2008). Two seeds give a very wide interval, as they should.

    `b01` and `b10` count pairs over seeds (a baseline row is used once for each seed of the variant, in turn);
    `n` counts items. With one seed on both sides this is `paired_difference`, and `reason` says that no spread
    between seeds is in it. Raises ValueError for rows of different length or scores outside 0..1.
    """
    paired = _pair(variant, baseline, clusters)
    if paired is None:
        return PairedEstimate(undefined("no pair of items"), 0, 0, 0)
    v, b, grouped, right, before = paired.v, paired.b, paired.grouped, paired.right, paired.before
    value = float((right - before).mean())
    if paired.binary:
        low, high = _item_interval(right, before, grouped, max(len(v), len(b)))
        method = grouped.suffix("tango")
    else:
        result = difference_interval(right, before, grouped)
        low, high, method = result.low, result.high, result.method
    spread, half = _between_seeds([v, b])
    variance = mean_variance(right - before, grouped) + spread
    estimate = Estimate(
        value,
        right.size,
        math.sqrt(variance) if variance > 0 else None,
        (max(-1.0, value - math.hypot(value - low, half)), min(1.0, value + math.hypot(high - value, half))),
        method,
        ONE_SEED if len(v) == 1 else None,
    )
    return paired.result(estimate)


def seeds_recovery(
    variant: Sequence[Scores] | Floats, baseline: Sequence[Scores] | Floats, clusters: Sequence[str] | None = None
) -> PairedEstimate:
    """Recovery, mean(variant) / mean(baseline) over seeds and items, with the variance between items and seeds.

    Args, counts and errors are those of `seeds_difference`. Items: the score interval of Tang, Tang & Chan (2003) on
    the counts averaged over all pairs of seeds, at the design effect of the linearised ratio v - r b; for other scores
    the interval of `recovery` on the means of the items. Seeds: Student's t on the means of the seeds, of which those
    of the baseline weigh r in the ratio. Joined by MOVER (Zou & Donner 2008). Undefined where the baseline scores 0.
    """
    paired = _pair(variant, baseline, clusters)
    if paired is None:
        return PairedEstimate(undefined("no pair of items"), 0, 0, 0)
    v, b, grouped, right, before = paired.v, paired.b, paired.grouped, paired.right, paired.before
    level = float(before.mean())
    if level == 0:
        return paired.result(undefined("the baseline scores 0: recovery is undefined", n=right.size))
    value = float(right.mean()) / level
    if paired.binary:
        low, high = _ratio_interval(right, before, value, grouped, max(len(v), len(b)))
        method = grouped.suffix("tang")
    else:
        result = ratio_interval(right, before, grouped)
        low, high, method = result.low, result.high, result.method
    spread, half = _between_seeds([v, value * b])
    variance = (mean_variance(right - value * before, grouped) + spread) / level**2
    half /= level
    estimate = Estimate(
        value,
        right.size,
        math.sqrt(variance) if variance > 0 else None,
        (max(0.0, value - math.hypot(value - low, half)), value + math.hypot(high - value, half)),
        method,
        ONE_SEED if len(v) == 1 else None,
    )
    return paired.result(estimate)


def _ratio_interval(right: Floats, before: Floats, ratio: float, grouped: Clusters, seeds: int) -> tuple[float, float]:
    """Tang's interval for given seeds: `right` and `before` [n] are the shares of seeds that solve each item."""
    n, residuals = right.size, right - ratio * before
    both = float((right * before).sum())
    gained, lost = float((right * (1 - before)).sum()), float(((1 - right) * before).sum())
    if seeds == 1 and not grouped.clustered:
        return tang_interval(both, gained, lost, n)
    # What independent items of single seeds would give, as `_item_interval` has it for the difference.
    squares = both * (1 - ratio) ** 2 + gained + lost * ratio**2
    (fit,) = adjustments(
        grouped.sums(residuals)[None],
        np.array([n / (n - 1) * squares if n > 1 else 0.0]),
        np.array([gained + lost]),
        grouped.sums(np.ones(n)),
        least=1 / seeds,
    )
    return tang_interval(both, gained, lost, n, fit=fit)


def _item_interval(right: Floats, before: Floats, grouped: Clusters, seeds: int) -> tuple[float, float]:
    """Tango's interval for given seeds: `right` and `before` [n] are the shares of seeds that solve each item."""
    n, difference = right.size, right - before
    gained, lost = float((right * (1 - before)).sum()), float(((1 - right) * before).sum())
    if seeds == 1 and not grouped.clustered:
        return tango_interval(gained, lost, n)
    residuals = difference - difference.mean()
    (fit,) = adjustments(
        grouped.sums(residuals)[None],
        np.array([n / (n - 1) * (gained + lost - n * float(difference.mean()) ** 2) if n > 1 else 0.0]),
        np.array([gained + lost]),
        grouped.sums(np.ones(n)),
        least=1 / seeds,
    )
    return tango_interval(gained, lost, n, fit=fit)


def _between_seeds(tables: Sequence[Floats]) -> tuple[float, float]:
    """Variance of the mean over seeds, and the half-width it gives: Student's t, Satterthwaite's df for two sides."""
    parts = [(float(np.var(t.mean(axis=1), ddof=1)) / len(t), len(t) - 1) for t in tables if len(t) > 1]
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, 0.0
    from scipy.special import stdtrit

    freedom = total**2 / sum(variance**2 / df for variance, df in parts)
    return total, float(stdtrit(freedom, 0.975)) * math.sqrt(total)
