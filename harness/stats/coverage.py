"""Simulated coverage of the intervals and error rates of the tests: `python -m harness.stats.coverage --out DIR`.

The command can be stopped and started again: what coverage.json holds is not simulated twice. Each cell has its own
random stream, made from the seed and the cell's name, so that the order of the cells does not matter.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from harness.stats.clusters import Floats
from harness.stats.simulate import RESAMPLES, World, binary_hits, score_hits
from harness.stats.simulate_errors import ALPHA, at_margin, loss_errors, margin_errors, seed_hits

LEVELS, SIZES, SPLITS = (0.35, 0.8, 0.95), (164, 300, 1319), (0.5, 0.8, 1.0)
FLIPS, RARE = (0.02, 0.05, 0.1, 0.25), (0.0, 0.005, 0.01, 0.02)
LAYOUTS = (("alone", 0.0), ("small", 0.1), ("small", 0.3), ("even", 0.0), ("even", 0.1), ("even", 0.3))
SEED = 20_262
VERSION = 2
"""Raised whenever a method or a simulation changes: older results are then simulated again."""


class Draw(Protocol):
    """Draws runs of one truth: whether each did what the name says, [runs] of 0 and 1."""

    def __call__(self, rng: np.random.Generator, *, runs: int) -> dict[str, Floats]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Cell:
    """One truth to simulate: a group of the report, what identifies the truth there, the number of runs, the draw."""

    group: str
    facts: dict[str, float | int | str]
    runs: int
    draw: Draw

    @property
    def name(self) -> str:
        """Return a name that no other cell has."""
        return " ".join([self.group, *(f"{key}={value}" for key, value in self.facts.items())])


def _facts(world: World) -> dict[str, float | int | str]:
    facts: dict[str, float | int | str] = {"layout": world.layout, "icc": world.icc, "n": world.n}
    return {**facts, "flips": world.flips, "p": world.p, "losses": round(world.losses, 4)}


def _worlds(sizes: tuple[int, ...], flips: tuple[float, ...], *, binary: bool) -> Iterator[World]:
    # Labels of unrelated items (even, 0) cost a bootstrap nothing that the other layouts do not show.
    layouts = [(n, layout, icc) for layout, icc in LAYOUTS if binary or (layout, icc) != ("even", 0.0) for n in sizes]
    if 300 in sizes:
        layouts.append((300, "uneven", 0.1))
    for n, layout, icc in layouts:
        for share in flips:
            for p in LEVELS:
                for split in (SPLITS if binary else SPLITS[::2]) if share else (1.0,):
                    world = World(n, p, share, split, layout, icc)
                    if world.binary_possible or not binary:
                        yield world


def cells(runs: int) -> Iterator[Cell]:
    """Every cell of the report; `runs` replications, half as many where a bootstrap or many seeds are drawn."""
    for world in _worlds(SIZES, FLIPS, binary=True):
        yield Cell("right/wrong", _facts(world), runs, partial(binary_hits, world=world))
    for world in [*_worlds((80,), RARE, binary=True), *_worlds(SIZES, RARE[:-1], binary=True)]:
        yield Cell("right/wrong, rare flips", _facts(world), runs, partial(binary_hits, world=world))
    for n in SIZES:
        for layout, icc in LAYOUTS:
            for margin in (0.02, 0.05):
                for flips in sorted({margin, 0.05, 0.1, 0.25}):
                    world = at_margin(n, 0.8, flips, margin, layout, icc)
                    if flips >= margin and world.binary_possible:
                        facts = {**_facts(world), "margin": margin}
                        yield Cell("non-inferior at the margin", facts, runs, partial(margin_errors, world=world))
            for flips in FLIPS:
                world = World(n, 0.8, flips, 0.5, layout, icc)
                yield Cell("loss where there is none", _facts(world), runs, partial(loss_errors, world=world))
    for seeds in (2, 3, 5):
        for spread in (0.0, 0.03, 0.06):
            draw = partial(seed_hits, seeds=seeds, spread=spread)
            yield Cell("seeds", {"seeds": seeds, "spread": spread}, runs // 2, draw)
    for world in [*_worlds((80,), RARE, binary=False), *_worlds(SIZES, FLIPS, binary=False)]:
        group = "continuous, rare flips" if world.n == 80 else "continuous"
        yield Cell(group, _facts(world), runs // 2, partial(score_hits, world=world))


def simulate(cell: Cell, seed: int) -> dict[str, object]:
    """Run one cell and return its row: facts, runs, and the share of hits by name (of the runs that are defined)."""
    rng = np.random.default_rng([seed, zlib.crc32(cell.name.encode())])
    started = time.process_time()
    hits = cell.draw(rng, runs=cell.runs)
    shares = {name: round(float(np.nanmean(values)), 4) for name, values in hits.items()}
    row = {"group": cell.group, **cell.facts, "runs": cell.runs, "share": shares}
    return {**row, "seconds": round(time.process_time() - started, 3)}


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import scipy

    return {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}


def load(path: Path, settings: dict[str, object]) -> dict[str, dict[str, object]]:
    """Return the rows of an earlier call by name; none if it had other settings."""
    if not path.exists():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    return dict(data["cells"]) if data.get("settings") == settings else {}


def _one_cell_a_line(settings: dict[str, object], rows: dict[str, dict[str, object]]) -> str:
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    return f'{{"settings": {json.dumps(settings)},\n"cells": {{\n{lines}\n}}}}\n'


def main(arguments: list[str] | None = None) -> int:
    """Simulate the cells that are missing, write coverage.json and, once all are there, coverage.md."""
    parser = argparse.ArgumentParser(prog="python -m harness.stats.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for coverage.json and coverage.md")
    parser.add_argument("--runs", type=int, default=4000, help="replications of each cell")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long; call again to go on")
    options = parser.parse_args(arguments)
    settings: dict[str, object] = {"version": VERSION, "runs": options.runs, "seed": options.seed, "alpha": ALPHA}
    settings |= {"resamples": RESAMPLES, "versions": versions()}
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "coverage.json"
    rows, plan, started = load(path, settings), list(cells(options.runs)), time.monotonic()
    for cell in plan:
        if cell.name in rows:
            continue
        if time.monotonic() - started > options.seconds:
            break
        rows[cell.name] = simulate(cell, options.seed)
    ordered = {cell.name: rows[cell.name] for cell in plan if cell.name in rows}
    path.write_text(_one_cell_a_line(settings, ordered), encoding="utf-8")
    print(f"{len(ordered)} of {len(plan)} cells are in {path}")
    if len(ordered) < len(plan):
        print("call again to go on")
        return 0
    from harness.stats.coverage_table import markdown

    (options.out / "coverage.md").write_text(markdown(settings, list(ordered.values())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
