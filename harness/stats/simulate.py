"""Simulated runs whose truth is known: what share of the intervals holds it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.stats.adjust import Adjustment, adjustments
from harness.stats.binary import tang_score, tango_score
from harness.stats.bootstrap import bounded, studentised_limits, too_few
from harness.stats.clusters import Clusters, Floats
from harness.stats.estimate import Z95
from harness.stats.means import wilson_score

_SMALL = (1,) * 12 + (2,) * 5 + (3,) * 4
UNEVEN = (*_SMALL, 5, 6, 6, 7, 7, 7, 8, 8, 8, 10, 10, 12, 12, 13, 14, 14, 17, 19, 20, 20, 21, 22)
"""Sizes of the templates of the pocket `chat` suite, 300 items."""
RESAMPLES = 1_000
"""Bootstrap resamples in a simulation: a quarter of those of a report, so that it ends in minutes."""
_BATCH = 250


@dataclass(frozen=True, slots=True)
class World:
    """A truth to draw runs from.

    Attributes:
        n: items.
        p: baseline's expected score.
        flips: share of items whose score differs.
        losses: share of the flips that are losses.
        layout: "alone", "small" (documents of about 4 items), "even" (templates of about 25 items) or "uneven"
            (`UNEVEN`, 300 items).
        icc: correlation, within a template, of the baseline's scores, of losses and of gains.
    """

    n: int
    p: float
    flips: float
    losses: float
    layout: str = "alone"
    icc: float = 0.0

    @property
    def lost(self) -> float:
        """Probability that an item is lost."""
        return self.flips * self.losses

    @property
    def gained(self) -> float:
        """Probability that an item is gained."""
        return self.flips - self.lost

    @property
    def binary_possible(self) -> bool:
        """Whether right/wrong scores can flip so often: not more lost than were right, nor more gained than wrong."""
        return self.lost <= self.p + 1e-12 and self.gained <= 1 - self.p + 1e-12

    def sizes(self) -> NDArray[np.int64]:
        """Items of each cluster, [C]."""
        if self.layout == "alone":
            return np.ones(self.n, dtype=np.int64)
        if self.layout == "uneven":
            if sum(UNEVEN) != self.n:
                raise ValueError(f"the uneven layout has {sum(UNEVEN)} items, not {self.n}")
            return np.array(UNEVEN)
        count = max(2, round(self.n / (4 if self.layout == "small" else 25)))
        return self.n // count + (np.arange(count) < self.n % count).astype(np.int64)


def rates(rng: np.random.Generator, mean: float, icc: float, shape: tuple[int, ...]) -> Floats:
    """Rates with this mean, beta-distributed so that items that share one have correlation `icc`."""
    if icc == 0 or mean <= 0 or mean >= 1:
        return np.full(shape, min(max(mean, 0.0), 1.0))
    total = 1 / icc - 1
    return rng.beta(mean * total, (1 - mean) * total, size=shape)


@dataclass(frozen=True, slots=True)
class Counts:
    """Right/wrong runs as counts by cluster, [runs, C] each: baseline right, gained, lost; and the sizes, [C]."""

    right: Floats
    gained: Floats
    lost: Floats
    sizes: Floats


def draw_binary(rng: np.random.Generator, world: World, runs: int) -> Counts:
    """Draw `runs` right/wrong runs; items that stand alone are drawn as one cluster of n, which is the same thing."""
    alone = world.layout == "alone"
    sizes = np.array([world.n]) if alone else world.sizes()
    shape, icc = (runs, sizes.size), 0.0 if alone else world.icc
    right = rng.binomial(np.broadcast_to(sizes, shape), rates(rng, world.p, icc, shape))
    lost = rng.binomial(right, rates(rng, world.lost / world.p, icc, shape))
    gained = rng.binomial(sizes - right, rates(rng, world.gained / (1 - world.p), icc, shape))
    return Counts(
        right.astype(np.float64), gained.astype(np.float64), lost.astype(np.float64), sizes.astype(np.float64)
    )


def fit_difference(counts: Counts, tail: float = 0.025) -> list[Adjustment]:
    """Adjustment of each run for the difference, as `paired_difference` makes it."""
    n, change = float(counts.sizes.sum()), counts.gained - counts.lost
    flips = (counts.gained + counts.lost).sum(axis=1)
    mean = change.sum(axis=1) / n
    alone = n / (n - 1) * (flips - n * mean * mean)
    return adjustments(change - mean[:, None] * counts.sizes, alone, flips, counts.sizes, tail=tail)


def fit_ratio(counts: Counts) -> list[Adjustment]:
    """Adjustment of each run for the ratio, as `recovery` makes it; runs whose baseline scores 0 mean nothing."""
    n, flips = float(counts.sizes.sum()), (counts.gained + counts.lost).sum(axis=1)
    variant = counts.right + counts.gained - counts.lost
    ratio = variant.sum(axis=1) / np.maximum(counts.right.sum(axis=1), 1.0)
    both = (counts.right - counts.lost).sum(axis=1)
    squares = both * (1 - ratio) ** 2 + counts.gained.sum(axis=1) + counts.lost.sum(axis=1) * ratio**2
    return adjustments(variant - ratio[:, None] * counts.right, n / (n - 1) * squares, flips, counts.sizes)


def fit_score(counts: Counts) -> list[Adjustment]:
    """Adjustment of each run for the baseline's own score, as `score_ci` makes it."""
    n, right = float(counts.sizes.sum()), counts.right.sum(axis=1)
    p = right / n
    residuals = counts.right - p[:, None] * counts.sizes
    return adjustments(residuals, n / (n - 1) * n * p * (1 - p), np.minimum(right, n - right), counts.sizes)


def binary_hits(rng: np.random.Generator, world: World, runs: int) -> dict[str, Floats]:
    """Whether each run's 95 % interval holds the truth, [runs] of 0 and 1 (NaN where it is undefined).

    A score interval holds a value exactly if the score there is within the quantile, so no limit is solved for.
    """
    counts, plain = draw_binary(rng, world, runs), [Adjustment(Z95)] * runs
    n, alone = float(counts.sizes.sum()), world.layout == "alone"
    right, gained, lost = (x.sum(axis=1).tolist() for x in (counts.right, counts.gained, counts.lost))
    fits = (plain, plain, plain) if alone else (fit_difference(counts), fit_ratio(counts), fit_score(counts))
    d, r = world.gained - world.lost, (world.p + world.gained - world.lost) / world.p
    hits = {name: np.full(runs, np.nan) for name in ("difference", "recovery", "score")}
    for i, (difference, ratio, score) in enumerate(zip(*fits, strict=True)):
        b01, b10, y = gained[i], lost[i], right[i]
        hits["difference"][i] = abs(tango_score(b01, b10, n, d, difference)) <= difference.crit
        hits["score"][i] = abs(wilson_score(y, n, world.p, score)) <= score.crit
        if y > 0:
            hits["recovery"][i] = abs(tang_score(y - b10, b01, b10, n, r, ratio)) <= ratio.crit
    return hits


def draw_scores(rng: np.random.Generator, world: World, runs: int) -> tuple[Floats, Floats, Clusters]:
    """Draw `runs` runs of continuous scores: variant and baseline, [runs, n] each.

    A baseline score is half its template's level, half its own. A lost item keeps a uniform share of its score; a
    gained one closes a uniform share of its gap to 1.
    """
    sizes = world.sizes()
    alone = world.layout == "alone"
    codes = np.repeat(np.arange(sizes.size), sizes)
    shape, icc = (runs, sizes.size), 0.0 if alone else world.icc
    # An item's own part has variance p (1 - p) / 5, so this correlation of the levels gives `icc` to the scores.
    level = rates(rng, world.p, 0.2 * icc / (1 - icc), shape)[:, codes]
    own = rng.beta(4 * world.p, 4 * (1 - world.p), size=(runs, world.n))
    base = (own + level) / 2 if icc else own
    lost = rng.random((runs, world.n)) < rates(rng, world.lost, icc, shape)[:, codes]
    gained = rng.random((runs, world.n)) < rates(rng, world.gained / (1 - world.lost), icc, shape)[:, codes]
    share = rng.random((runs, world.n))
    variant = np.where(lost, base * share, np.where(gained, base + (1 - base) * share, base))
    return variant, base, Clusters(codes.astype(np.intp), int(sizes.size), clustered=not alone)


def score_hits(rng: np.random.Generator, world: World, runs: int) -> dict[str, Floats]:
    """Whether each run's 95 % interval of continuous scores holds the truth, [runs] of 0 and 1."""
    change = world.gained * (1 - world.p) / 2 - world.lost * world.p / 2
    hits: dict[str, list[NDArray[np.bool_]]] = {"difference": [], "recovery": []}
    for start in range(0, runs, _BATCH):
        v, b, clusters = draw_scores(rng, world, min(_BATCH, runs - start))
        few = too_few(v != b, clusters)
        limits = np.empty((2, 2, len(v)))
        if not few.all():
            x, y = v[~few], b[~few]
            flips = np.sum(x != y, axis=1).astype(np.float64)
            limits[0][:, ~few] = studentised_limits(x - y, np.ones_like(x), clusters, flips, resamples=RESAMPLES)[:2]
            limits[1][:, ~few] = studentised_limits(x, y, clusters, flips, resamples=RESAMPLES)[:2]
        for i in np.flatnonzero(few):
            bound = np.array(bounded(v[i], b[i], clusters, 0.025))
            limits[0][:, i], limits[1][:, i] = bound, np.maximum(1 + bound / b[i].mean(), 0)
        for name, truth, (low, high) in zip(hits, (change, 1 + change / world.p), limits, strict=True):
            hits[name].append((low <= truth) & (truth <= high))
    return {name: np.concatenate(found).astype(np.float64) for name, found in hits.items()}
