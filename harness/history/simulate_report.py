"""The simulation of steps as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.report.markdown import table


def report(results: Mapping[str, Any]) -> str:
    """Tables of false steps and of power, with the command that makes them."""
    lines = [
        "# Steps in a history: false ones, and those found",
        "",
        f"`{results['command']}` (seed {results['seed']}, numpy {results['versions']['numpy']}). Ten variants by five "
        "suites and two workloads are 70 series; the same items are asked at every commit. The kinds of noise are "
        "those of `harness/history/worlds.py`.",
        "",
        f"## Histories without change in which any check reports a step (level {100 * results['level']:.0f} %)",
        "",
        "A check follows every commit, from the fourth to the last; the share is that of histories in which *any* of "
        "them reports a step.",
        "",
        *_false(results["tables"].get("false_steps", {})),
        "",
        f"Each check is {results['checks']} times stricter than the level for that. At the level itself, as if there "
        "were only one check:",
        "",
        *_false(results["tables"].get("uncorrected", {})),
        "",
        "## Losses of score that are found, in %",
        "",
        "`a of b`: the history has b commits, of which the last a lie behind the step. 2 % of the items are lost and "
        "2 % gained beside the step. A step counts as found within two commits, at the level that each of 70 series "
        "has. `gsm8k` has 50 templates, which its items share; in `instruct` items are independent.",
        "",
        f"So many series and checks leave each test a level of {results['level'] / 70 / results['checks']:.1g}, which "
        "5 points of 300 items do not reach: 21 lost and 6 gained have p = 0.006 (exact sign test). Chosen series "
        "(`--variant`, `--suite`) share the level among themselves only, and `sparsebench gate --against` holds a "
        "commit to its variant's suites only.",
        "",
        *_power(
            results["tables"].get("skill_power", {}),
            ["noise", "suite", "n", "loss"],
            lambda row: [row["noise"], row["suite"], f"{row['n']:,}", f"{100 * row['points']:.0f} points"],
        ),
        "",
        "## Slowdowns that are found, in %",
        "",
        "The noise floor is taken as 0 here; with one, a step below it is never reported.",
        "",
        *_power(
            results["tables"].get("speed_power", {}),
            ["noise", "slower by"],
            lambda row: [row["noise"], f"{100 * row['loss']:.0f} %"],
        ),
        "",
    ]
    return "\n".join(lines)


def _false(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["(not simulated yet)"]
    header = [
        "noise of scores",
        "noise of speeds",
        "n",
        "commits",
        "histories",
        "any check, %",
        "95 % interval",
        "last check, %",
    ]
    cells = [
        [
            row["skill noise"],
            row["speed noise"],
            f"{row['n']:,}",
            str(row["commits"]),
            str(row["runs"]),
            f"{100 * row['share']:.1f}",
            f"{100 * row['ci95'][0]:.1f} to {100 * row['ci95'][1]:.1f}",
            f"{100 * row['last share']:.1f}",
        ]
        for row in rows.values()
    ]
    return table(header, cells, left=2)


def _power(rows: Mapping[str, Mapping[str, Any]], names: list[str], facts: Any) -> list[str]:
    if not rows:
        return ["(not simulated yet)"]
    places = list(next(iter(rows.values()))["found"])
    cells = [[*facts(row), *(f"{100 * row['found'][place]:.0f}" for place in places)] for row in rows.values()]
    return table([*names, *places], cells, left=2)
