"""Error rates and power of the steps, by simulation: `python -m harness.history.simulate --out results/history`."""

from __future__ import annotations

import argparse
import platform
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from harness.history.series import Series
from harness.history.steps import LEVEL, find_steps
from harness.history.worlds import Change, SkillNoise, SpeedNoise, history_world, skill_world, speed_world

SEED = 20_265
METHOD = 1
"""Raised whenever a test or a world changes: earlier pieces are then simulated again."""
COMMITS = 100
SIZES = (300, 1000)
FAMILY = 70
"""Series of the simulated histories: ten variants by five suites and two workloads."""
PAIRS: tuple[tuple[SkillNoise, SpeedNoise], ...] = (
    ("same", "normal"),
    ("unstable", "heavy tails"),
    ("rare flips", "outliers"),
    ("drifting", "heavy tails"),
    ("retrained", "outliers"),
)
PLACES = ((100, 1), (100, 3), (100, 10), (100, 50), (10, 1), (10, 3))
"""(commits of the history, commits behind the step)"""
NEAR = 2
"""A step counts as found where the reported one is at most so many commits away."""


def _rng(*name: object) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(repr(name).encode())])


def false_steps(n: int, skill: SkillNoise, speed: SpeedNoise, runs: int) -> dict[str, Any]:
    """Share of histories without change in which any step is reported."""
    from harness.stats import wilson_interval

    by_kind = {"skill": 0, "speed": 0}
    wrong = 0
    for run in range(runs):
        rng = _rng("false", n, skill, speed, run)
        found = find_steps(history_world(rng, commits=COMMITS, n=n, skill=skill, speed=speed))
        wrong += bool(found)
        for kind in by_kind:
            by_kind[kind] += any(step.series.kind == kind for step in found)
    low, high = wilson_interval(wrong, runs)
    facts = {"skill noise": skill, "speed noise": speed, "n": n, "commits": COMMITS, "series": FAMILY, "runs": runs}
    shares = {f"{kind} share": round(count / runs, 4) for kind, count in by_kind.items()}
    return {**facts, "share": round(wrong / runs, 4), "ci95": [round(low, 4), round(high, 4)], **shares}


def false_steps_while_growing(skill: SkillNoise, speed: SpeedNoise, runs: int, commits: int = 60) -> dict[str, Any]:
    """Share of histories without change in which any of the checks after each commit reports a step."""
    from harness.stats import wilson_interval

    wrong = 0
    for run in range(runs):
        whole = history_world(_rng("growing", skill, speed, run), commits=commits, n=300, skill=skill, speed=speed)
        wrong += any(find_steps([_first(one, count) for one in whole]) for count in range(2, commits + 1))
    low, high = wilson_interval(wrong, runs)
    facts = {"skill noise": skill, "speed noise": speed, "n": 300, "commits": commits, "series": FAMILY, "runs": runs}
    return {**facts, "share": round(wrong / runs, 4), "ci95": [round(low, 4), round(high, 4)]}


def _first(series: Series, count: int) -> Series:
    items = series.items[:count] if series.items is not None else None
    return replace(series, points=series.points[:count], items=items)


def skill_power(n: int, points: float, noise: SkillNoise, suite: str, runs: int) -> dict[str, Any]:
    """Share of losses of `points` that are found, by (commits, commits behind the step)."""
    shares = {}
    for commits, behind in PLACES:
        change = Change(commits - behind, points)
        found = 0
        for run in range(runs):
            rng = _rng("skill", n, points, noise, suite, commits, behind, run)
            one = skill_world(rng, commits=commits, n=n, noise=noise, suite=suite, change=change)
            found += _is_found(one, change)
        shares[f"{behind} of {commits}"] = round(found / runs, 3)
    return {"noise": noise, "suite": suite, "n": n, "points": points, "runs": runs, "found": shares}


def speed_power(loss: float, noise: SpeedNoise, runs: int) -> dict[str, Any]:
    """Share of slowdowns that are found, by (commits, commits behind the step)."""
    shares = {}
    for commits, behind in PLACES:
        change = Change(commits - behind, loss)
        found = 0
        for run in range(runs):
            rng = _rng("speed", loss, noise, commits, behind, run)
            found += _is_found(speed_world(rng, commits=commits, noise=noise, change=change), change)
        shares[f"{behind} of {commits}"] = round(found / runs, 3)
    return {"noise": noise, "loss": loss, "runs": runs, "found": shares}


def _is_found(series: Series, change: Change) -> bool:
    steps = find_steps([series], family=FAMILY)
    return any(step.worse and abs(step.at - change.at) <= NEAR for step in steps)


def pieces(runs: int) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """Every piece as (table, name, work): `runs` histories for false steps, half for power, an eighth while growing."""
    few = max(1, runs // 2)
    for n in SIZES:
        for skill, speed in PAIRS:
            yield "false_steps", f"{skill}, {speed}, {n}", partial(false_steps, n, skill, speed, runs)
        for noise in get_args(SkillNoise):
            for suite in ("instruct", "gsm8k"):
                for points in (0.02, 0.05):
                    work = partial(skill_power, n, points, noise, suite, few)
                    yield "skill_power", f"{noise}, {suite}, {n}, {points}", work
    for speed in get_args(SpeedNoise):
        for loss in (0.02, 0.05, 0.1):
            yield "speed_power", f"{speed}, {loss}", partial(speed_power, loss, speed, few)
    for skill, speed in (PAIRS[1], PAIRS[3], PAIRS[4]):
        yield "growing", f"{skill}, {speed}", partial(false_steps_while_growing, skill, speed, max(1, runs // 8))


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate what steps.json does not hold yet, write it after each piece, and steps.md at the end."""
    from harness.history.simulate_report import report
    from harness.records import write_json_atomic, write_text_atomic

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of steps.json and steps.md")
    parser.add_argument("--runs", type=int, default=200, help="histories for each rate of false steps")
    given = parser.parse_args(arguments)
    settings = {
        "schema_version": 1,
        "command": f"python -m harness.history.simulate --runs {given.runs} --out results/history",
        "method": METHOD,
        "level": LEVEL,
        "seed": SEED,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    path = given.out / "steps.json"
    tables: dict[str, dict[str, Any]] = _earlier(path, settings)
    for table, name, work in pieces(given.runs):
        if name not in tables.setdefault(table, {}):
            started = time.process_time()
            tables[table][name] = work()
            write_json_atomic(path, {**settings, "tables": tables})
            print(
                f"{table}, {name}: {time.process_time() - started:.1f} s of the processor", file=sys.stderr, flush=True
            )
        write_text_atomic(given.out / "steps.md", report({**settings, "tables": tables}))


def _earlier(path: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Pieces of an earlier call with the same settings."""
    from harness.layout import read_json

    if not path.is_file():
        return {}
    found = read_json(path)
    same = all(found.get(key) == value for key, value in settings.items())
    return dict(found["tables"]) if same else {}


if __name__ == "__main__":
    main()
