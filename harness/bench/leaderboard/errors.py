"""How often the ranks are wrong: variants of known skill, drawn again and again."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.leaderboard.model import Cell, Floats, Protocol, Row, Scores, Source
from harness.leaderboard.rankings import rank_column
from harness.stats import proportion_ci


@dataclass(frozen=True, slots=True)
class World:
    """A truth to draw boards from.

    Attributes:
        variants: entries of the column.
        items: items, the same for all.
        clusters: groups of related items; equal to `items` where they stand alone.
        binary: right/wrong scores; else scores between 0 and 1.
        worse: so many entries are worse by `loss`; the others are equal.
        loss: loss of expected score.
        skewed: an entry loses much in few clusters and gains a little in the others, so that equal entries are not
            interchangeable, which the sign-flip test assumes.
        paired: entries have sample rows; else only their standard errors.
    """

    variants: int
    items: int
    clusters: int
    binary: bool
    worse: int = 0
    loss: float = 0.0
    skewed: bool = False
    paired: bool = True


@dataclass(frozen=True, slots=True)
class Errors:
    """Outcome of a simulation.

    Attributes:
        runs: boards drawn.
        false_splits: boards on which two equal entries were told apart.
        found: share of (better, worse) pairs that were told apart; None where all are equal.
        wrong_way: boards on which a worse entry was called better.
    """

    runs: int
    false_splits: int
    found: float | None
    wrong_way: int


def simulate(world: World, *, runs: int, seed: int) -> Errors:
    """Draw boards and count what their ranks get wrong."""
    rng = np.random.default_rng(seed)
    split = wrong = found = possible = 0
    good = world.variants - world.worse
    protocol = Protocol("simulated", "score", "sparsebench", ())
    for _ in range(runs):
        rows = _rows(world, _draw(rng, world), protocol)
        ranked = rank_column(rows, protocol)
        apart = _apart(rows, ranked.letters)
        equal = [*itertools.combinations(range(good), 2), *itertools.combinations(range(good, world.variants), 2)]
        split += any(pair in apart for pair in equal)
        different = list(itertools.product(range(good), range(good, world.variants)))
        told = [pair for pair in different if pair in apart]
        values = [float(row.cells[protocol].value or 0.0) for row in rows]
        right = [pair for pair in told if values[pair[0]] > values[pair[1]]]
        found, possible, wrong = found + len(right), possible + len(different), wrong + (len(right) < len(told))
    return Errors(runs, split, found / possible if possible else None, wrong)


def as_line(world: World, errors: Errors) -> dict[str, Any]:
    """The world and its outcome, with Wilson's interval of the share of boards that split equals."""
    share = proportion_ci(errors.false_splits, errors.runs)
    assert share.value is not None and share.ci95 is not None
    limits = [round(limit, 4) for limit in share.ci95]
    return {**asdict(world), **asdict(errors), "share": round(share.value, 4), "ci95": limits}


def _draw(rng: np.random.Generator, world: World) -> Floats:
    """Scores, [variants, items]; the items' difficulty is shared, a cluster sways each entry on its own."""
    codes = np.arange(world.items) % world.clusters
    # Between 0.5 and 0.85, so that nothing below leaves 0..1: cutting there would make equal entries unequal.
    chance = np.repeat(0.5 + 0.35 * rng.beta(1.5, 1.0, size=world.items)[None], world.variants, axis=0)
    if world.clusters < world.items:
        chance = chance + rng.uniform(-0.08, 0.08, size=(world.variants, world.clusters))[:, codes]
    if world.skewed:
        # For every other entry, a tenth of the clusters, new for every board, loses 0.36 and the others gain 0.04: in
        # expectation nothing.
        for entry in range(0, world.variants, 2):
            chance[entry] += np.where(rng.random(world.clusters) < 0.1, -0.36, 0.04)[codes]
    chance[world.variants - world.worse :] -= world.loss
    if world.binary:
        return (rng.random(chance.shape) < chance).astype(np.float64)
    return rng.beta(10 * chance, 10 * (1 - chance))


def _rows(world: World, scores: Floats, protocol: Protocol) -> list[Row]:
    keys = tuple((0, f"{i:06}", 0) for i in range(world.items))
    clusters = tuple(str(i % world.clusters) for i in range(world.items))
    source = Source("simulated", "summary.json", "0" * 64, "sparsebench")
    rows = []
    for number, values in enumerate(scores):
        se = float(values.std(ddof=1) / np.sqrt(world.items))
        kept = Scores(keys, values, clusters) if world.paired else None
        n = world.items
        cell = Cell(float(values.mean()), n, n, se, None, "t", "", scores=kept)
        rows.append(Row(source, f"v{number}", "simulated", None, "model", f"/{number}", "", (), {protocol: cell}))
    return rows


def _apart(rows: list[Row], letters: Any) -> set[tuple[int, int]]:
    names = [letters[row.id] for row in rows]
    if not all(names):
        raise ValueError("more groups than letters: too many entries for this simulation")
    groups = [_split(name) for name in names]
    return {(i, j) for i, j in itertools.combinations(range(len(rows)), 2) if not groups[i] & groups[j]}


def _split(name: str) -> set[str]:
    parts: list[str] = []
    for char in name:
        if char.isdigit():
            parts[-1] += char
        else:
            parts.append(char)
    return set(parts)
