"""Simulated error rates of the gate's two questions, and the coverage of intervals over several seeds."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from harness.stats.adjust import Adjustment
from harness.stats.binary import tango_score
from harness.stats.clusters import Floats
from harness.stats.decisions import walk_p
from harness.stats.seeds import seeds_difference, seeds_recovery
from harness.stats.simulate import World, draw_binary, fit_difference

ALPHA = 0.05
"""Of the one-sided tests."""


def at_margin(n: int, p: float, flips: float, margin: float, layout: str, icc: float) -> World:
    """World in which the variant is worse by exactly `margin`."""
    return World(n, p, flips, (flips + margin) / (2 * flips), layout, icc)


def margin_errors(rng: np.random.Generator, world: World, runs: int) -> dict[str, Floats]:
    """Whether "not worse by the margin" passes although the truth lies on it, [runs] of 0 and 1.

    It passes if `lower_bound` clears the margin, which is the same as a score there beyond the one-sided quantile.
    """
    counts = draw_binary(rng, world, runs)
    n, truth = float(counts.sizes.sum()), world.gained - world.lost
    gained, lost = counts.gained.sum(axis=1).tolist(), counts.lost.sum(axis=1).tolist()
    plain = [Adjustment(NormalDist().inv_cdf(1 - ALPHA))] * runs
    fits = plain if world.layout == "alone" else fit_difference(counts, ALPHA)
    passed = [tango_score(g, x, n, truth, fit) > fit.crit for g, x, fit in zip(gained, lost, fits, strict=True)]
    return {"false passes": np.array(passed, dtype=np.float64)}


def loss_errors(rng: np.random.Generator, world: World, runs: int) -> dict[str, Floats]:
    """Whether `loss_p_value` is at most ALPHA although nothing was lost on average, [runs] of 0 and 1."""
    from scipy.special import bdtr

    counts = draw_binary(rng, world, runs)
    if world.layout == "alone":
        gained, lost = counts.gained.sum(axis=1), counts.lost.sum(axis=1)
        p_values = np.where(gained + lost > 0, bdtr(gained, np.maximum(gained + lost, 1), 0.5), 1.0)
    else:
        change = np.rint(counts.gained - counts.lost).astype(np.int64)
        p_values = np.array([walk_p(row[row != 0]) if row.any() else 1.0 for row in change])
    return {"false alarms": (p_values <= ALPHA).astype(np.float64)}


def seed_hits(rng: np.random.Generator, seeds: int, spread: float, runs: int) -> dict[str, Floats]:
    """Whether a recipe's true loss and recovery are held, [runs] of 0 and 1: 300 items, 8 right of 10, loss 0.08.

    An item has its own chance to be lost (correlation 0.5 over the seeds); each seed adds up to `spread` to it, or
    takes as much away. `without seeds` leaves the spread out: the first seed's interval by `paired_difference`.
    """
    n, p, loss = 300, 0.8, 0.1
    mean = (loss - spread) / (1 - 2 * spread)
    hits: dict[str, list[bool]] = {"with seeds": [], "recovery, with seeds": [], "one seed, spread ignored": []}
    for _ in range(runs):
        base = (rng.random(n) < p).astype(np.float64)
        own = spread + (1 - 2 * spread) * rng.beta(mean, 1 - mean, size=n)
        shift = rng.uniform(-spread, spread, size=(seeds, 1))
        variant = base * (rng.random((seeds, n)) >= own + shift)
        for name, table in (("with seeds", variant), ("one seed, spread ignored", variant[:1])):
            limits = seeds_difference(table, base[None]).estimate.ci95
            hits[name].append(limits is not None and limits[0] <= -p * loss <= limits[1])
        limits = seeds_recovery(variant, base[None]).estimate.ci95
        hits["recovery, with seeds"].append(limits is not None and limits[0] <= 1 - loss <= limits[1])
    return {name: np.array(values, dtype=np.float64) for name, values in hits.items()}
