"""Made-up histories whose truth is known: how scores and speeds scatter from commit to commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.history.series import Point, Series
from harness.stats.clusters import Clusters, Floats

SkillNoise = Literal["same", "unstable", "rare flips", "drifting", "retrained"]
SpeedNoise = Literal["normal", "heavy tails", "outliers"]
SUITES = ("chat", "instruct", "code", "gsm8k", "summarization")
CLUSTERED = {"chat": 50, "gsm8k": 50}
"""Suites whose items come from so many templates."""
WORKLOADS = ("decode", "prefill")


@dataclass(frozen=True, slots=True)
class Change:
    """A true step.

    Attributes:
        at: the first commit behind it.
        points: share of the score that is lost, 0.05 for five points.
        churn: share of the items that is lost, and again gained, beside it.
    """

    at: int
    points: float
    churn: float = 0.02


def skill_world(
    rng: np.random.Generator,
    *,
    commits: int,
    n: int,
    noise: SkillNoise,
    suite: str = "instruct",
    change: Change | None = None,
    variant: str = "v",
) -> Series:
    """Scores of the same n items at every commit.

    - same: a deterministic model; nothing moves.
    - unstable: a twentieth of the items is answered by chance, each with its own probability.
    - rare flips: each answer turns for this commit only with probability 0.02.
    - drifting: at each commit, answers to 1 % of the items (or of the templates) are drawn anew and stay.
    - retrained: a tenth of the answers is drawn anew for each commit, and the commit's own luck moves all of them
      together: 0.7 points of the score (standard deviation).
    """
    clusters = _clusters(n, suite)
    ability = np.clip(rng.beta(4, 1, clusters.count), 0.05, 0.98)[clusters.codes]
    start = (rng.random(n) < ability).astype(np.float64)
    items = np.repeat(start[None, :], commits, axis=0)
    if noise == "unstable":
        which = rng.random(n) < 0.05
        chance = rng.random(n)
        items[:, which] = rng.random((commits, int(which.sum()))) < chance[which]
    elif noise == "rare flips":
        turned = rng.random((commits, n)) < 0.02
        items = np.where(turned, 1 - items, items)
    elif noise == "drifting":
        items = _drifting(rng, items, ability, clusters)
    elif noise == "retrained":
        luck = rng.normal(0, 0.07, (commits, 1))
        drawn = rng.random((commits, n)) < np.clip(ability[None, :] + luck, 0, 1)
        items = np.where(rng.random((commits, n)) < 0.1, drawn, items)
    if change is not None:
        _apply(rng, items, change)
    if suite == "summarization":
        items = 0.35 + 0.5 * items * rng.random(n)[None, :]
    return _skill_series(items, clusters, variant, suite)


def _clusters(n: int, suite: str) -> Clusters:
    count = CLUSTERED.get(suite)
    if count is None:
        return Clusters(np.arange(n, dtype=np.intp), n, clustered=False)
    return Clusters((np.arange(n) % count).astype(np.intp), count, clustered=True)


def _drifting(rng: np.random.Generator, items: Floats, ability: Floats, clusters: Clusters) -> Floats:
    now = items[0].copy()
    for row in items[1:]:
        moved = (rng.random(clusters.count) < 0.01)[clusters.codes]
        now = np.where(moved, rng.random(now.size) < ability, now)
        row[:] = now
    return items


def _apply(rng: np.random.Generator, items: Floats, change: Change) -> None:
    """Lose and gain whole items from `change.at` on."""
    n = items.shape[1]
    order = rng.permutation(n)
    right, wrong = (order[items[0, order] == value] for value in (1.0, 0.0))
    lost = right[: round((change.points + change.churn) * n)]
    gained = wrong[: round(change.churn * n)]
    items[change.at :, lost] = 0.0
    items[change.at :, gained] = 1.0


def _skill_series(items: Floats, clusters: Clusters, variant: str, suite: str) -> Series:
    points = tuple(_point(i, float(row.mean())) for i, row in enumerate(items))
    return Series("skill", variant, suite, points, items, clusters)


def _point(i: int, value: float) -> Point:
    return Point(f"c{i:04}", f"2026-01-01T{i // 60:02}:{i % 60:02}:00Z", value, None, None)


def speed_world(
    rng: np.random.Generator,
    *,
    commits: int,
    noise: SpeedNoise,
    workload: str = "decode",
    change: Change | None = None,
    variant: str = "v",
) -> Series:
    """Ratios of speeds around 1.5, without drift.

    - normal: 1.5 % (standard deviation).
    - heavy tails: Student's t with 2 degrees of freedom, scaled to 1 %: no finite variance.
    - outliers: normal of 1 %, and in 5 % of the commits slower by up to a half.
    """
    if noise == "normal":
        logs = rng.normal(0, 0.015, commits)
    elif noise == "heavy tails":
        logs = rng.standard_t(2, commits) * 0.01
    else:
        logs = rng.normal(0, 0.01, commits)
        logs = np.where(rng.random(commits) < 0.05, logs + np.log(rng.uniform(0.5, 0.9, commits)), logs)
    if change is not None:
        logs[change.at :] += np.log(1 - change.points)
    points = tuple(_point(i, float(value)) for i, value in enumerate(1.5 * np.exp(logs)))
    return Series("speed", variant, workload, points)


def history_world(
    rng: np.random.Generator, *, commits: int, n: int, skill: SkillNoise, speed: SpeedNoise, variants: int = 10
) -> list[Series]:
    """A whole history without any change: `variants` by five suites and two workloads."""
    names = [f"v{i}" for i in range(variants)]
    skills = [
        skill_world(rng, commits=commits, n=n, noise=skill, suite=suite, variant=name)
        for name in names
        for suite in SUITES
    ]
    speeds = [
        speed_world(rng, commits=commits, noise=speed, workload=workload, variant=name)
        for name in names
        for workload in WORKLOADS
    ]
    return skills + speeds
