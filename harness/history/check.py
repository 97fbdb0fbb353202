"""What `history check` says: which steps count, and what the newest commit no longer has."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import ConfigError
from harness.history.record import HistoryRecord
from harness.history.series import Series, absent, skill_series, speed_series
from harness.history.show import step_line
from harness.history.speed_test import LEAST_P
from harness.history.steps import CHECKS, LEAST_POINTS, Step, find_steps
from harness.report.printable import printable

Choice = tuple[frozenset[str], frozenset[str]]
"""Variants, and suites or workloads; empty means all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Which steps count.

    Attributes:
        last: only those at one of the newest so many commits.
        since: only those behind this commit.
        min_change: the smallest loss: of the score, or of the speed's ratio (0.05 for 5 %).
    """

    last: int | None = None
    since: str | None = None
    min_change: float = 0.0


@dataclass(frozen=True, slots=True)
class HistoryCheck:
    """The outcome.

    Attributes:
        commits: in the history.
        series: that were looked at.
        steps: all of them, those that do not count too.
        counted: those that worsen and count.
        notes: what the reader must know beside.
    """

    commits: int
    series: int
    steps: tuple[Step, ...]
    counted: tuple[Step, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 where a step that worsens counts, else 0."""
        return 1 if self.counted else 0

    def text(self) -> str:
        """Return one line a step, the notes, and the verdict; ends in a line break."""
        lines = [step_line(step) for step in self.steps]
        lines += [f"note: {printable(note)}" for note in self.notes]
        verdict = f"{len(self.counted)} worse" if self.counted else "no step for the worse"
        other = len(self.steps) - len(self.counted)
        aside = f" ({other} other {'step' if other == 1 else 'steps'})" if other else ""
        lines.append(f"history: {verdict}{aside}, {self.series} series over {self.commits} commits")
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """Return the outcome as JSON."""
        body = {
            "schema_version": 1,
            "exit_code": self.exit_code,
            "commits": self.commits,
            "series": self.series,
            "steps": [{**_plain(step), "counted": step in self.counted} for step in self.steps],
            "notes": list(self.notes),
        }
        return json.dumps(body, indent=2, allow_nan=False) + "\n"


def all_series(records: Sequence[HistoryRecord]) -> list[Series]:
    """Every series of a history."""
    return [*skill_series(records), *speed_series(records)]


def chosen(series: Sequence[Series], choice: Choice) -> list[Series]:
    """The series of some variants and suites; workloads are named by their first word.

    Raises:
        ConfigError: A name fits nothing.
    """
    variants, suites = choice
    for names, known, what in (
        (variants, {one.variant for one in series}, "variant"),
        (suites, {_suite(one) for one in series}, "suite"),
    ):
        strange = sorted(names - known)
        if strange:
            raise ConfigError(f"the history has no {what} {strange[0]!r}; it has {', '.join(sorted(known))}")
    return [
        one for one in series if (not variants or one.variant in variants) and (not suites or _suite(one) in suites)
    ]


def _suite(series: Series) -> str:
    return series.what if series.kind == "skill" else series.what.split(" ", 1)[0]


def steps_at(series: Sequence[Series], level: float) -> list[Step]:
    """The steps; ConfigError where the level is none."""
    if not 0 < level < 1:
        raise ConfigError(f"--level is a chance between 0 and 1, not {level}")
    return find_steps(series, level=level)


def check_history(
    records: Sequence[HistoryRecord], limits: Limits, choice: Choice = (frozenset(), frozenset()), *, level: float
) -> HistoryCheck:
    """Look for steps and tell those that count.

    Raises:
        ConfigError: A limit or a name fits nothing in the history.
    """
    series = chosen(all_series(records), choice)
    steps = steps_at(series, level)
    behind = _counting(records, limits)
    counted = [step for step in steps if step.worse and _loss(step) >= limits.min_change]
    counted = [step for step in counted if step.commit in behind]
    return HistoryCheck(len(records), len(series), tuple(steps), tuple(counted), tuple(_notes(records, series, level)))


def _counting(records: Sequence[HistoryRecord], limits: Limits) -> set[str]:
    """The commits at which a step counts."""
    commits = [record.commit for record in records]
    start = 0 if limits.last is None else max(0, len(commits) - limits.last)
    if limits.since is not None:
        found = [i for i, commit in enumerate(commits) if commit.startswith(limits.since)]
        if len(found) != 1:
            raise ConfigError(f"--since {limits.since}: {len(found)} commits of the history begin so; name one of them")
        start = max(start, found[0] + 1)
    return set(commits[start:])


def _loss(step: Step) -> float:
    return -step.change if step.series.kind == "skill" else 1 - step.change


def _notes(records: Sequence[HistoryRecord], series: Sequence[Series], level: float) -> list[str]:
    newest = records[-1].commit
    notes = [f"the newest commit, {newest[:12]}, has no value of {gone}" for gone in absent(records)]
    for one in series:
        if one.restarted and one.points[-1].commit == newest:
            first = one.points[0].commit[:12]
            notes.append(f"{one.name} was measured in another way before {first}: earlier commits are not compared")
    reasons = [one.points[-1].undecided for one in series if one.points[-1].commit == newest]
    for reason, count in Counter(reason for reason in reasons if reason is not None).items():
        notes.append(f"{count} of {len(reasons)} values of {newest[:12]} are not tested: {reason}")
    speeds = sum(one.kind == "speed" for one in series)
    if speeds and level / CHECKS / len(series) <= LEAST_P:
        notes.append(
            f"{len(series)} series share the level, which leaves each less than a speed's test can tell: choose some "
            "(--variant, --suite) or a larger --level"
        )
    short = sum(len(one.tested) < LEAST_POINTS for one in series)
    if short:
        notes.append(f"{short} of {len(series)} series have fewer than {LEAST_POINTS} commits: no step can be told yet")
    return notes


def _plain(step: Step) -> dict[str, Any]:
    numbers = {"before": step.before, "after": step.after, "change": step.change, "p": step.p}
    assert all(math.isfinite(value) for value in numbers.values())
    return {
        "kind": step.series.kind,
        "variant": step.series.variant,
        "what": step.series.what,
        "commit": step.commit,
        "time": step.time,
        "worse": step.worse,
        **numbers,
        "ci95": step.ci95,
        "commits_before": step.counts[0],
        "commits_after": step.counts[1],
    }
