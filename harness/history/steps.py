"""Steps in a history: binary segmentation with tests that hold the rate of false steps over all series.

Where nothing changed, the chance of any step in one check is at most `level` / `CHECKS` (Bonferroni, so whatever the
dependence of series). Over the checks of a growing history, one after each of 100 commits, it is then about `level` or
less; that is simulated (results/history: 0 to 6 % at 5 %), not proved. Where series do step, the others are held to
Benjamini and Hochberg's levels: the expected share of false steps is.

A cut is a step where every test that applies finds it:

- items: signs of whole clusters' changes are flipped at random, for the largest standardised change of any cut. Asks
  whether other items of the kind would show the step.
- commits: the change against the spread from commit to commit. Asks whether the step stands out of what commits do
  anyway (a variant that is trained anew each time).
- ranks: for speeds, whose noise has heavy tails and outliers; the change must also exceed the panels' noise floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.history.series import Series
from harness.history.skill_test import LEAST_POINTS
from harness.history.split import best_split, levels
from harness.schema.base import Interval

LEVEL = 0.05
"""Chance of any false step where nothing changed, over checks after each of 100 commits."""
CHECKS = 20
"""So many times stricter is each check of a history that is checked after every commit.

Each commit is a new chance of a false step, but checks of nearly the same points are nearly the same test, so less than
100 is enough: by simulation (results/history).
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a series.

    Attributes:
        series: where.
        at: place of the first point after the step, in the series.
        p: p-value, corrected for all places of the series, all series and all checks (`CHECKS`).
        before: level of the points before it, back to the last step.
        after: level of the points after it, up to the next step.
        ci95: of the change, 95 %, not corrected for the search.
        counts: points before and after.
    """

    series: Series
    at: int
    p: float
    before: float
    after: float
    ci95: Interval | None
    counts: tuple[int, int]

    @property
    def worse(self) -> bool:
        """Whether the score or the speed fell."""
        return self.after < self.before

    @property
    def change(self) -> float:
        """Difference of the scores, or ratio of the speeds."""
        return self.after - self.before if self.series.kind == "skill" else self.after / self.before

    @property
    def commit(self) -> str:
        """The first commit after the step."""
        return self.series.points[self.at].commit

    @property
    def time(self) -> str:
        """Time of that commit."""
        return self.series.points[self.at].time


def find_steps(
    series: Sequence[Series], *, level: float = LEVEL, family: int | None = None, checks: int = CHECKS
) -> list[Step]:
    """All steps, by time and name.

    Args:
        series: all series of a history: they share the level.
        level: chance of any false step where nothing changed.
        family: number of series that share the level, where `series` are only some of them.
        checks: 1 holds the level for one check only.
    """
    testable = [one for one in series if len(one.tested) >= LEAST_POINTS]
    count = len(testable) if family is None else family
    stepping, steps = -1, list[Step]()
    # A step in one series lets the others be held to less: Benjamini and Hochberg's (1995) levels, strictest first.
    while testable and len({id(step.series) for step in steps}) > stepping:
        stepping = len({id(step.series) for step in steps})
        share = level / checks * min(count, stepping + 1) / count
        steps = [step for one in testable for step in _in_series(one, share, level / share)]
    return sorted(steps, key=lambda step: (step.time, step.series.name))


def _in_series(series: Series, share: float, correction: float) -> list[Step]:
    places = series.tested
    cuts: dict[int, float] = {}
    parts = [(0, len(places))]
    while parts:
        start, end = parts.pop()
        split = best_split(series, places[start:end], share) if end - start >= LEAST_POINTS else None
        if split is None or split.p > share:
            continue
        cuts[start + split.at] = split.p
        parts += [(start, start + split.at), (start + split.at, end)]
    edges = [0, *sorted(cuts), len(places)]
    steps = []
    for last, cut, following in zip(edges, edges[1:], edges[2:], strict=False):
        found = levels(series, places[last:following], cut - last)
        p = min(1.0, cuts[cut] * correction)
        counts = (cut - last, following - cut)
        steps.append(Step(series, places[cut], p, found.before, found.after, found.ci95, counts))
    return steps
