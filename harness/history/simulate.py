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
from harness.history.skill_test import LEAST_POINTS
from harness.history.split import best_split
from harness.history.steps import CHECKS, LEVEL, find_steps
from harness.history.worlds import Change, SkillNoise, SpeedNoise, history_world, skill_world, speed_world

SEED = 20_265
METHOD = 2
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
TABLES = ("false_steps", "uncorrected", "speed_power", "skill_power")
NEAR = 2
"""A step counts as found where the reported one is at most so many commits away."""


def _rng(*name: object) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(repr(name).encode())])


def false_steps(n: int, skill: SkillNoise, speed: SpeedNoise, runs: int, checks: int = CHECKS) -> dict[str, Any]:
    """Share of histories without change in which any of the checks, one after each commit, reports a step."""
    from harness.stats import wilson_interval

    rate = LEVEL / FAMILY / checks
    wrong = {"any": 0, "last": 0, "skill": 0, "speed": 0}
    for run in range(runs):
        rng = _rng("false", n, skill, speed, run)
        found = dict.fromkeys(wrong, False)
        for one in history_world(rng, commits=COMMITS, n=n, skill=skill, speed=speed):
            steps = [_reported(one, count, rate) for count in range(LEAST_POINTS, COMMITS + 1)]
            found["any"] |= any(steps)
            found["last"] |= steps[-1]
            found[one.kind] |= any(steps)
        for name, what in found.items():
            wrong[name] += what
    low, high = wilson_interval(wrong["any"], runs)
    facts = {"skill noise": skill, "speed noise": speed, "n": n, "commits": COMMITS, "series": FAMILY, "runs": runs}
    shares = {f"{name} share": round(wrong[name] / runs, 4) for name in ("last", "skill", "speed")}
    return {**facts, "share": round(wrong["any"] / runs, 4), "ci95": [round(low, 4), round(high, 4)], **shares}


def _reported(series: Series, count: int, rate: float) -> bool:
    """Whether the check behind that many commits reports a step: `find_steps` finds one where the best cut is one."""
    split = best_split(series, range(count), rate)
    return split is not None and split.p <= rate


def shortened(series: Series, count: int) -> Series:
    """The series as it was when it had `count` commits."""
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
    """Every piece as (table, name, work): `runs` histories for false steps, a fifth of them for power."""
    few = max(1, runs // 5)
    for n in SIZES:
        for skill, speed in PAIRS:
            yield "false_steps", f"{skill}, {speed}, {n}", partial(false_steps, n, skill, speed, runs)
    for skill, speed in (PAIRS[1], PAIRS[3], PAIRS[4]):
        work = partial(false_steps, SIZES[0], skill, speed, max(1, runs // 4), checks=1)
        yield "uncorrected", f"{skill}, {speed}", work
    for speed in get_args(SpeedNoise):
        for loss in (0.02, 0.05, 0.1):
            yield "speed_power", f"{speed}, {loss}", partial(speed_power, loss, speed, few)
    for n in SIZES:
        for noise in get_args(SkillNoise):
            for suite in ("instruct", "gsm8k"):
                for points in (0.05, 0.1):
                    power = partial(skill_power, n, points, noise, suite, few)
                    yield "skill_power", f"{noise}, {suite}, {n}, {points}", power


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate what steps.json does not hold yet, write it after each piece, and steps.md at the end."""
    from harness.history.simulate_report import report
    from harness.records import write_json_atomic, write_text_atomic

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of steps.json and steps.md")
    parser.add_argument("--runs", type=int, default=200, help="histories for each rate of false steps")
    parser.add_argument("--table", choices=TABLES, help="only this one")
    given = parser.parse_args(arguments)
    settings = {
        "schema_version": 1,
        "command": f"python -m harness.history.simulate --runs {given.runs} --out results/history",
        "method": METHOD,
        "level": LEVEL,
        "checks": CHECKS,
        "seed": SEED,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    path = given.out / "steps.json"
    tables: dict[str, dict[str, Any]] = _earlier(path, settings)
    for table, name, work in pieces(given.runs):
        if given.table is not None and table != given.table:
            continue
        if name not in tables.setdefault(table, {}):
            started = time.process_time()
            made = work()
            # Another call may have done other pieces meanwhile.
            tables = _earlier(path, settings)
            tables.setdefault(table, {})[name] = made
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
