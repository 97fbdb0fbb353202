"""Records to series: one for each variant and suite, or workload; another protocol begins a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import CorruptRecordError
from harness.history.pack import unpack_codes, unpack_scores
from harness.history.record import HistoryRecord, SkillPoint, SpeedPoint
from harness.schema.base import Interval
from harness.stats.clusters import Clusters
from harness.stats.estimate import Z95

Floats = NDArray[np.float64]
AnyPoint = TypeVar("AnyPoint", SkillPoint, SpeedPoint)


@dataclass(frozen=True, slots=True)
class Point:
    """One commit in a series; `undecided` says why it is shown but not tested."""

    commit: str
    time: str
    value: float
    ci95: Interval | None
    se: float | None
    noise_floor: float | None = None
    undecided: str | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points that measured the same, in the order of their commits.

    Attributes:
        kind: `skill` (fractions) or `speed` (ratios; above 1 is faster than the baseline).
        variant: name of the variant.
        what: the suite, or workload and engine.
        points: at least one.
        items: scores of the items by point, [points, n]; None where a point kept none.
        clusters: which items belong together; None without `items`.
        restarted: whether an earlier series of the same name ended because the protocol changed.
    """

    kind: Literal["skill", "speed"]
    variant: str
    what: str
    points: tuple[Point, ...]
    items: Floats | None = None
    clusters: Clusters | None = None
    restarted: bool = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.variant}.{self.what}" if self.kind == "skill" else f"{self.variant}, {self.what}"

    @property
    def tested(self) -> list[int]:
        """Places of the points that take part in tests."""
        return [i for i, point in enumerate(self.points) if point.undecided is None]


def skill_series(records: Sequence[HistoryRecord]) -> list[Series]:
    """Series of all variants and suites, sorted by name and time; `records` are in the order of their commits."""
    found: list[Series] = []
    for (variant, suite), points in _by_name(records, lambda record: record.skills, _skill_name).items():
        for number, run in enumerate(_runs(points)):
            items, clusters = _items(run)
            shown = tuple(Point(r.commit, r.time, p.value, p.ci95, p.se) for r, p in run)
            found.append(Series("skill", variant, suite, shown, items, clusters, restarted=number > 0))
    return found


def speed_series(records: Sequence[HistoryRecord]) -> list[Series]:
    """Series of all speeds, sorted by name and time; `records` are in the order of their commits."""
    found: list[Series] = []
    for (variant, what), points in _by_name(records, lambda record: record.speeds, _speed_name).items():
        for number, run in enumerate(_runs(points)):
            shown = tuple(
                Point(r.commit, r.time, p.ratio, p.ci95, _log_se(p), p.noise_floor, p.undecided) for r, p in run
            )
            found.append(Series("speed", variant, what, shown, restarted=number > 0))
    return found


def absent(records: Sequence[HistoryRecord]) -> list[str]:
    """What the newest commit has no value for although the one before had, and the reason where it is known."""
    if len(records) < 2:
        return []
    before, now = records[-2], records[-1]
    had = {".".join(_skill_name(p)) for p in before.skills} | {", ".join(_speed_name(p)) for p in before.speeds}
    has = {".".join(_skill_name(p)) for p in now.skills} | {", ".join(_speed_name(p)) for p in now.speeds}
    return [f"{name}: {now.missing.get(name, 'not in the record')}" for name in sorted(had - has)]


def _skill_name(point: SkillPoint) -> tuple[str, str]:
    return point.variant, point.suite


def _speed_name(point: SpeedPoint) -> tuple[str, str]:
    place = f"{point.workload} of {point.context} tokens, batch {point.batch}, {point.engine}"
    return point.variant, f"{place} {point.dtype}"


def _by_name(
    records: Sequence[HistoryRecord],
    points: Callable[[HistoryRecord], Sequence[AnyPoint]],
    name: Callable[[AnyPoint], tuple[str, str]],
) -> dict[tuple[str, str], list[tuple[HistoryRecord, AnyPoint]]]:
    found: dict[tuple[str, str], list[tuple[HistoryRecord, AnyPoint]]] = {}
    for record in records:
        for point in points(record):
            found.setdefault(name(point), []).append((record, point))
    return dict(sorted(found.items()))


def _runs(points: Sequence[tuple[HistoryRecord, AnyPoint]]) -> list[list[tuple[HistoryRecord, AnyPoint]]]:
    """Cut where the protocol changes."""
    runs: list[list[tuple[HistoryRecord, AnyPoint]]] = []
    for record, point in points:
        if not runs or runs[-1][-1][1].protocol != point.protocol:
            runs.append([])
        runs[-1].append((record, point))
    return runs


def _items(run: Sequence[tuple[HistoryRecord, SkillPoint]]) -> tuple[Floats | None, Clusters | None]:
    """Scores by item, [points, n], and the items' clusters; None where a point kept none."""
    if any(point.items is None for _, point in run):
        return None, None
    record, first = run[0]
    try:
        rows = [unpack_scores(str(point.scores), point.n) for _, point in run]
        codes = unpack_codes(record.item_sets[str(first.items)].clusters, first.n)
    except ValueError as error:
        raise CorruptRecordError(
            f"the items of {first.variant}.{first.suite} in the history are damaged ({error}): append the commit again "
            "with --replace"
        ) from None
    _check_mean(run, rows)
    count = int(codes.max()) + 1
    if 1 < count < first.n:
        return np.stack(rows), Clusters(codes.astype(np.intp), count, clustered=True)
    return np.stack(rows), Clusters(np.arange(first.n, dtype=np.intp), first.n, clustered=False)


def _check_mean(run: Sequence[tuple[HistoryRecord, SkillPoint]], rows: Sequence[Floats]) -> None:
    for (record, point), scores in zip(run, rows, strict=True):
        if abs(float(scores.mean()) - point.value) > 2e-5:
            raise CorruptRecordError(
                f"{point.variant}.{point.suite} of commit {record.commit} is {point.value} but its items say "
                f"{scores.mean():.6f}: append the commit again with --replace"
            )


def _log_se(point: SpeedPoint) -> float | None:
    """Standard error of log(ratio), from its interval."""
    if point.ci95 is None or point.ci95[0] <= 0:
        return None
    return float(np.log(point.ci95[1] / point.ci95[0]) / (2 * Z95))
