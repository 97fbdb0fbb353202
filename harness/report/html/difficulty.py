"""Scores by difficulty and by seen or unseen template."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import VariantSummary
from harness.report.html.source import Source
from harness.report.html.words import SHOWN, name_of, paragraph
from harness.report.markdown import percent
from harness.report.page import (
    Axis,
    Cell,
    Column,
    Guide,
    Html,
    Plot,
    Point,
    Series,
    element,
    figure,
    joined,
    sortable_table,
)


def by_difficulty(source: Source, compared: Sequence[VariantSummary]) -> Html:
    """Scores by difficulty and by seen or unseen template, variant / baseline."""
    suites = source.summary.study.suites
    levels = sorted({level for v in source.summary.variants for r in v.suites.values() for level in r.by_difficulty})
    results = [result for variant in source.summary.variants for result in variant.suites.values()]
    templates = any(result.seen or result.unseen for result in results)
    heading = element("h3", "By difficulty and template")
    if not levels and not templates:
        return joined([heading, paragraph("The items of this study have no difficulty and no templates.")])
    rows: list[list[Cell | str]] = []
    for variant in compared:
        baseline = source.baseline(variant)
        for suite in suites:
            mine = variant.suites.get(suite)
            theirs = baseline.suites.get(suite) if baseline is not None else None
            groups = [
                (mine and mine.by_difficulty.get(level), theirs and theirs.by_difficulty.get(level)) for level in levels
            ]
            if templates:
                groups += [
                    (mine and mine.seen, theirs and theirs.seen),
                    (mine and mine.unseen, theirs and theirs.unseen),
                ]
            rows.append([Cell(name_of(variant.name)), suite, *(_pair(one, other) for one, other in groups)])
    columns = [Column("variant", filter=True), Column("skill", filter=True)]
    columns += [
        Column(f"difficulty {level}", kind="number", tip="variant / baseline, n; sorts by the difference")
        for level in levels
    ]
    if templates:
        columns += [Column("seen templates", kind="number"), Column("unseen templates", kind="number")]
    caption = "Score %, variant / baseline (n); difficulty 1 is easy, 4 hard; columns sort by the difference"
    return joined(
        [
            heading,
            _by_level(source, compared, levels),
            sortable_table("difficulty", caption, columns, rows, shown=SHOWN),
        ]
    )


def _pair(one: object, other: object) -> Cell:
    mine, theirs = getattr(one, "value", None), getattr(other, "value", None)
    if mine is None:
        return Cell("—", None)
    against = "—" if theirs is None else percent(theirs)
    gap = None if theirs is None else mine - theirs
    return Cell(f"{percent(mine)} / {against} ({getattr(one, 'n', 0):,})", gap)


def _by_level(source: Source, compared: Sequence[VariantSummary], levels: Sequence[str]) -> Html | None:
    """Mean difference over the suites by difficulty, a line a variant; only where lines can be told apart."""
    if not levels or not 0 < len(compared) <= 16:
        return None
    series = []
    for variant in compared:
        baseline = source.baseline(variant)
        points = []
        for place, level in enumerate(levels, start=1):
            gaps = []
            for suite in source.summary.study.suites:
                mine, theirs = variant.suites.get(suite), baseline.suites.get(suite) if baseline else None
                one = mine.by_difficulty.get(level) if mine else None
                other = theirs.by_difficulty.get(level) if theirs else None
                if one is not None and other is not None and one.value is not None and other.value is not None:
                    gaps.append(one.value - other.value)
            if gaps:
                value = 100 * sum(gaps) / len(gaps)
                points.append(Point(place, value, f"{variant.name}, difficulty {level}: {value:+.1f} points"))
        series.append(Series(variant.name, points, line=True))
    plot = Plot(
        "Difference to the baseline by difficulty, mean over the skills",
        "Lines below zero lose; the table below has score and n of every skill.",
        Axis("difficulty (1 easy, 4 hard)", whole=True),
        Axis("difference, percentage points"),
        series,
        [Guide("y", 0.0, "no difference")],
    )
    return figure("by-difficulty", plot)
