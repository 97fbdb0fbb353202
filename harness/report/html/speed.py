"""Speed with its noise floor: a plot a panel, and all rows."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import SpeedRow
from harness.report.html.source import Source
from harness.report.html.speeds import engines, verdict_of
from harness.report.html.words import SHOWN, badge, missing, name_of, note, paragraph, section
from harness.report.markdown import percent
from harness.report.page import (
    Axis,
    Cell,
    Column,
    Estimate,
    Forest,
    Guide,
    Html,
    Line,
    forest,
    number_cell,
    sortable_table,
)


def speed(source: Source) -> Html:
    """A forest plot a panel and batch, and a table of all rows."""
    rows = source.summary.speed
    if not rows:
        return section("speed", "Speed", note("Speed was not measured in this study."))
    places = list(dict.fromkeys((row.panel, row.batch) for row in rows))
    figures = [_panel(f"panel{i}", [r for r in rows if (r.panel, r.batch) == place]) for i, place in enumerate(places)]
    return section(
        "speed",
        "Speed",
        paragraph(
            "Ratio of medians, rows of one panel interleaved on one machine; above 1 is faster. A ratio within the "
            "noise floor of 1 (the baseline against itself) is no difference. tokens/s holds for the machine named "
            "under provenance only."
        ),
        *figures,
        _table(rows),
    )


def _panel(identifier: str, rows: Sequence[SpeedRow]) -> Html:
    first = rows[0]
    names = engines(rows)
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        own = [row for row in rows if row.variant == variant]
        lines.append(Line(variant, [_estimate(row, names.index(row.engine)) for row in own]))
    base = first.baseline
    guides = [Guide("x", 1.0, f"{base.variant} on {base.engine} in {base.dtype}")]
    if first.noise_floor is not None:
        low, high = 1 - first.noise_floor, 1 + first.noise_floor
        guides.append(Guide("x", low, f"noise floor ± {percent(first.noise_floor)} %", until=high))
    title = f"{first.workload}, context {first.context}, batch {first.batch} (panel {first.panel})"
    described = f"Speed ratios of {len(lines)} variants on {', '.join(names)}; the table below has the numbers."
    axis = Axis("speed / speed of the baseline")
    return forest(identifier, Forest(title, described, axis, names, lines, guides))


def _estimate(row: SpeedRow, series: int) -> Estimate:
    said = verdict_of(row)
    if row.ratio is None:
        return Estimate(series, None, shown="not measured")
    return Estimate(series, row.ratio, row.ci95, f"{row.ratio:.2f}×" + (f" {said}" if said != "faster" else ""))


def _table(rows: Sequence[SpeedRow]) -> Html:
    columns = [
        Column("variant", filter=True),
        Column("workload", filter=True),
        Column("engine", filter=True),
        Column("verdict", filter=True),
        Column("ratio", kind="number"),
        Column("noise floor %", kind="number"),
        Column("tokens/s", kind="number"),
        Column("panel"),
        Column("dtype"),
        Column("context", kind="number"),
        Column("batch", kind="number"),
        Column("threads", kind="number"),
        Column("relative to"),
        Column("peak MB", kind="number", tip="most memory that the process held"),
    ]
    return sortable_table("speeds", "All speed rows", columns, [_row(row) for row in rows], shown=SHOWN)


def _row(row: SpeedRow) -> list[Cell | str]:
    ratio = Cell(missing(row.reason), None, "why")
    if row.ratio is not None:
        interval = "" if row.ci95 is None else f" [{row.ci95[0]:.3f}, {row.ci95[1]:.3f}]"
        ratio = number_cell(f"{row.ratio:.3f}{interval}", row.ratio)
    floor, peak = row.noise_floor, row.peak_device or row.peak_rss
    return [
        Cell(name_of(row.variant)),
        row.workload,
        row.engine,
        Cell(badge(verdict_of(row))),
        ratio,
        number_cell("—" if floor is None else f"± {percent(floor)}", floor),
        number_cell("—" if row.tokens_per_s is None else f"{row.tokens_per_s:,.0f}", row.tokens_per_s),
        row.panel,
        row.dtype,
        number_cell(str(row.context), row.context),
        number_cell(str(row.batch), row.batch),
        number_cell("—" if row.threads is None else str(row.threads), row.threads),
        f"{row.baseline.variant}, {row.baseline.engine}, {row.baseline.dtype}",
        number_cell("—" if peak is None else f"{peak / 1e6:,.0f}", peak),
    ]
