"""Two variants to a comparison: paired differences, recovery, flips, answer agreement, and speed in one panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.compare.result import Comparison, Estimated, Flip, SpeedComparison, SuiteComparison
from harness.compare.sides import Side
from harness.errors import ConfigError
from harness.gate.pairs import RowPairs, ids, pair_cells, same_answer
from harness.gate.result import InputError, MissingError
from harness.gate.speed import place, undecided
from harness.records import SpeedRow
from harness.schema.distance import DistanceResult
from harness.stats import Estimate, holm, loss_p_value, mean_of_recoveries, paired_difference, recovery


@dataclass(frozen=True, slots=True)
class _Computed:
    comparison: SuiteComparison
    recovery: Estimate
    engines: tuple[frozenset[str], frozenset[str]]


def compare_sides(a: Side, b: Side, *, suites: Sequence[str] = (), allow_different: bool = False) -> Comparison:
    """Compare one variant with another on all suites of either run, or on those that are named.

    Raises:
        ConfigError: The two did not measure the same (and that is not allowed), a named suite is unknown, or no suite
            can be compared.
        CorruptRecordError: A record is damaged.
    """
    same_run = a.run is b.run
    every = list(dict.fromkeys((*a.run.summary.study.suites, *b.run.summary.study.suites)))
    for name in suites:
        if name not in every:
            raise ConfigError(f"suite {name!r} is in neither run; choose one of {', '.join(every) or 'none'}")
    found: dict[str, _Computed] = {}
    missing: dict[str, str] = {}
    for suite in suites or every:
        try:
            pairs = pair_cells(
                (b.run, b.variant), (a.run, a.variant), suite, allow_different=same_run or allow_different
            )
            found[suite] = _suite(suite, b.run.require(b.variant, suite).metric, pairs)
        except InputError as problem:
            raise ConfigError(str(problem)) from None
        except MissingError as problem:
            missing[suite] = str(problem)
    if not found:
        reasons = "; ".join(missing.values()) or "there is no suite"
        raise ConfigError(f"nothing to compare between {name_of(a)} and {name_of(b)}: {reasons}")
    adjusted = holm({suite: item.comparison.p_value for suite, item in found.items()})
    sizes = [side.run.summary.variant(side.variant) for side in (a, b)]
    return Comparison(
        a=name_of(a),
        b=name_of(b),
        suites=tuple(replace(item.comparison, p_value=adjusted[suite]) for suite, item in found.items()),
        missing=missing,
        mean_recovery=_estimated(mean_of_recoveries({suite: item.recovery for suite, item in found.items()})),
        speed=tuple(_speed(a.variant, b.variant, a.run.summary.speed)) if same_run else (),
        bytes=(sizes[0].bytes if sizes[0] else None, sizes[1].bytes if sizes[1] else None),
        notes=tuple(_notes(a, b, list(found.values()))),
        distance=_distance(a, b) if same_run else None,
    )


def name_of(side: Side) -> str:
    """A side as the user may name it."""
    return f"{side.run.where}:{side.variant}"


def _estimated(estimate: Estimate) -> Estimated:
    return Estimated(estimate.value, estimate.ci95, estimate.method, estimate.reason)


def _suite(suite: str, metric: str, pairs: RowPairs) -> _Computed:
    now, base = pairs.scores
    n, clusters = len(now), pairs.clusters
    ratio = recovery(now, base, clusters)
    two_sided = 2 * min(loss_p_value(now, base, clusters), loss_p_value(base, now, clusters))
    same = sum(same_answer(x, y) for x, y in zip(pairs.now, pairs.base, strict=True))
    changed = sorted((i for i in range(n) if now[i] != base[i]), key=lambda i: now[i] - base[i])
    names = ids(pairs.now)
    comparison = SuiteComparison(
        suite=suite,
        metric=metric,
        n=n,
        left_out=pairs.left_out,
        a=sum(base) / n,
        b=sum(now) / n,
        difference=_estimated(paired_difference(now, base, clusters).estimate),
        recovery=_estimated(ratio.estimate),
        lost=ratio.b10,
        gained=ratio.b01,
        p_value=min(1.0, two_sided),
        same_answer=same / n,
        same_verdict=1 - len(changed) / n,
        flips=tuple(
            Flip(names[i], base[i], now[i], tuple(pairs.base[i].outputs), tuple(pairs.now[i].outputs)) for i in changed
        ),
    )
    engines = frozenset(row.engine for row in pairs.base), frozenset(row.engine for row in pairs.now)
    return _Computed(comparison, ratio.estimate, engines)


def _speed(a: str, b: str, rows: Sequence[SpeedRow]) -> list[SpeedComparison]:
    """Ratios of the panels (and engines) that measured both variants."""
    found = []
    for theirs in rows:
        for mine in rows:
            if (theirs.variant, mine.variant) == (a, b) and _where(mine) == _where(theirs):
                found.append(_ratio(mine, theirs))
    return found


def _where(row: SpeedRow) -> tuple[str, str]:
    return place(row), row.dtype


def _ratio(mine: SpeedRow, theirs: SpeedRow) -> SpeedComparison:
    """The ratio of two rows; its interval only where the panel measured it, that is, against its baseline."""
    base = mine.baseline
    ratio, ci95, reason = None, None, None
    if mine.ratio is None or theirs.ratio is None:
        reason = mine.reason if mine.ratio is None else theirs.reason
    elif (theirs.variant, theirs.engine, theirs.dtype) == (base.variant, base.engine, base.dtype):
        ratio, ci95, reason = mine.ratio, mine.ci95, undecided(mine)
    elif (mine.variant, mine.engine, mine.dtype) == (base.variant, base.engine, base.dtype):
        ratio, reason = 1 / theirs.ratio, undecided(theirs)
        ci95 = None if theirs.ci95 is None else (1 / theirs.ci95[1], 1 / theirs.ci95[0])
    else:
        ratio, reason = mine.ratio / theirs.ratio, f"no interval: the panel compares with {base.variant}, not with A"
    return SpeedComparison(place(mine), mine.workload, ratio, ci95, mine.noise_floor, reason)


def _distance(a: Side, b: Side) -> DistanceResult | None:
    """What the run measured of B against A; KL has a direction, so that A against B is not the same."""
    variant = b.run.summary.variant(b.variant)
    found = variant.distance if variant else None
    return found if found is not None and found.baseline == a.variant else None


def _notes(a: Side, b: Side, found: Sequence[_Computed]) -> list[str]:
    notes = []
    first, second = a.run.summary.variant(a.variant), b.run.summary.variant(b.variant)
    if first and second and first.weights_sha256 and first.weights_sha256 == second.weights_sha256:
        notes.append("both have the same weights: what differs is noise of the machine, engine or batch")
    if a.run is not b.run:
        notes.append("two runs: their speeds were not measured side by side and are not compared")
        first_engines, second_engines = (sorted(frozenset().union(*(f.engines[i] for f in found))) for i in (0, 1))
        if first_engines != second_engines:
            notes.append(f"the engines differ: {', '.join(first_engines)} and {', '.join(second_engines)}")
    return notes
