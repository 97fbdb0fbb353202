"""Metrics beside the primary ones, and distances to the baseline on fixed text."""

from __future__ import annotations

from harness.distance.render import HEADER, distance_cells
from harness.report.html.source import Source
from harness.report.html.words import SHOWN, name_of, note, ordered, paragraph, percent_cell, section
from harness.report.page import Cell, Column, Html, number_cell, sortable_table


def further(source: Source) -> Html:
    """The section; a line where a study has neither."""
    parts = [_metrics(source), _distance(source)]
    return section("further", "Other metrics and distance", *parts)


def _metrics(source: Source) -> Html:
    rows: list[list[Cell | str]] = []
    for variant in ordered(source.summary):
        baseline = source.baseline(variant)
        for suite in source.summary.study.suites:
            result = variant.suites.get(suite)
            other = baseline.suites.get(suite) if baseline is not None else None
            theirs = {metric.name: metric for metric in other.metrics} if other is not None else {}
            for metric in result.metrics if result is not None else []:
                base = theirs.get(metric.name)
                rows.append(
                    [
                        Cell(name_of(variant.name)),
                        suite,
                        metric.name,
                        percent_cell(metric.value, metric.ci95, metric.reason),
                        Cell("—", None) if base is None else percent_cell(base.value, base.ci95, base.reason),
                        number_cell(f"{metric.n:,}", metric.n),
                    ]
                )
    if not rows:
        return paragraph("The skills of this study have one metric each.")
    columns = [Column("variant", filter=True), Column("skill", filter=True), Column("metric", filter=True)]
    columns += [Column("variant %", kind="number"), Column("baseline %", kind="number"), Column("n", kind="number")]
    return sortable_table("metrics", "Metrics beside the primary one", columns, rows, shown=min(40, SHOWN))


def _distance(source: Source) -> Html:
    rows: list[list[Cell | str]] = []
    for variant in ordered(source.summary):
        for text in variant.distance.texts if variant.distance is not None else []:
            measures = [text.top1.value, text.kl.value, text.never.value, text.first_token.value]
            cells = [Cell(shown, value) for shown, value in zip(distance_cells(text), measures, strict=True)]
            sizes = [number_cell(f"{count:,}", count) for count in (text.tokens, text.prompts)]
            rows.append([Cell(name_of(variant.name)), text.text, *sizes, *cells])
    if not rows:
        return note("Not here: this study does not measure the distance to the baseline on fixed text.")
    columns = [Column("variant", filter=True), Column("text", filter=True), Column("tokens", kind="number")]
    columns += [Column("prompts", kind="number"), *(Column(title, kind="number") for title in HEADER)]
    caption = "Distance to the baseline on fixed text: reference answers token by token, and greedy continuations"
    return sortable_table("distance", caption, columns, rows, shown=SHOWN)
