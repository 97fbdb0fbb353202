"""The first section: what is kept, at which speed, and whether that is within the margins."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import VariantSummary
from harness.report.html.source import Source
from harness.report.html.speeds import Place, fastest, places
from harness.report.html.verdicts import VariantVerdict
from harness.report.html.words import (
    badge,
    listed,
    name_of,
    note,
    ordered,
    paragraph,
    percent_cell,
    plain_percent,
    plural,
    section,
)
from harness.report.markdown import percent
from harness.report.page import Cell, Column, Html, element, joined, number_cell, sortable_table

_SPEEDS = 4
"""Columns of speed at most; the section on speed has all."""
_NAMES = 8
"""Names in a sentence at most; the table has all."""
_COUNTED = ("within margins", "undecided", "outside a margin", "no verdict")
_SAYS = {
    "within margins": "lose less than the margin on every skill",
    "undecided": "are undecided: on some skill the interval holds the margin",
    "outside a margin": "lose more than the margin on some skill",
    "no verdict": "have no verdict: a comparison is missing or incomplete",
}


def headline(source: Source, verdicts: Sequence[VariantVerdict]) -> Html:
    """Counts in words, then a table with a line a variant."""
    compared = [verdict for verdict in verdicts if verdict.overall != "reference"]
    points = []
    for kind in _COUNTED:
        names = [verdict.variant for verdict in compared if verdict.overall == kind]
        if names:
            said = f" {_SAYS[kind]}: " if len(names) != 1 else f" {_singular(_SAYS[kind])}: "
            points.append(
                element("li", badge(kind), f" {len(names)} of {len(compared)}", said, listed(names, _NAMES), ".")
            )
    best = _fastest_within(source, compared)
    parts = [
        paragraph(
            f"{plural(len(compared), 'variant')} compared with a baseline on the same items, suite by suite. A skill "
            "is within its margin if the whole 95 % interval of the paired difference lies above −margin, outside if "
            "the whole interval lies below, and undecided otherwise."
        ),
        element("ul", *points) if points else note("No variant is compared with a baseline."),
        best,
        _table(source, verdicts),
        *_warnings(verdicts),
    ]
    return section("verdict", "Verdict", *parts)


def _singular(text: str) -> str:
    first, _, rest = text.partition(" ")
    return f"{ {'lose': 'loses', 'are': 'is', 'have': 'has'}[first] } {rest}"


def _fastest_within(source: Source, compared: Sequence[VariantVerdict]) -> Html | None:
    """The fastest of those that keep every skill, by workload."""
    said = []
    for place in places(source.summary):
        found = []
        for verdict in compared:
            row = fastest(source.summary, verdict.variant, place).row
            if verdict.overall == "within margins" and row is not None and row.ratio is not None:
                found.append((row.ratio, verdict.variant, row))
        if found:
            ratio, name, row = max(found, key=lambda each: each[0])
            floor = "" if row.noise_floor is None else f", noise floor ± {percent(row.noise_floor)} %"
            base = f"{row.baseline.variant} on {row.baseline.engine}"
            said.append(
                joined([f"{place.label}: ", name_of(name), f" at {ratio:.2f}× of {base} (engine {row.engine}{floor})"])
            )
    return paragraph("Fastest within all margins: ", joined(said, "; "), ".") if said else None


def _table(source: Source, verdicts: Sequence[VariantVerdict]) -> Html:
    loads = places(source.summary)[:_SPEEDS]
    columns = [
        Column("variant"),
        Column("verdict", filter=True, tip="over all skills: outside if one is, undecided if one is"),
        Column("within", kind="number", tip="skills within their margin"),
        Column("not within", tip="in brackets: items in all that would probably decide"),
        Column("mean recovery %", kind="number", tip="mean over the skills of variant / baseline, 95 % interval"),
        *(
            Column(f"{load.label} ×", kind="number", tip="fastest engine, against its panel's baseline")
            for load in loads
        ),
        Column("zeros %", kind="number", tip="zero weights among the linears of the blocks"),
        Column("bits", kind="number", tip="of a stored weight of the linears"),
        Column("MB", kind="number", tip="10^6 bytes of safetensors"),
        Column("baseline", filter=True),
    ]
    by_name = {verdict.variant: verdict for verdict in verdicts}
    rows = [_row(source, variant, by_name[variant.name], loads) for variant in ordered(source.summary)]
    return sortable_table("variants", "Variants, best mean recovery first", columns, rows)


def _row(source: Source, variant: VariantSummary, verdict: VariantVerdict, loads: Sequence[Place]) -> list[Cell | str]:
    mean = variant.recovery.get("mean")
    reference = verdict.overall == "reference"
    recovery: Cell = Cell("reference", None) if reference else percent_cell(None, None, "not in the summary")
    if mean is not None and not reference:
        recovery = percent_cell(mean.value, mean.ci95, mean.reason)
    within = len(verdict.suites_that_are("within"))
    cells: list[Cell | str] = [
        Cell(name_of(variant.name)),
        Cell(badge(verdict.overall)),
        Cell("", None) if reference else number_cell(f"{within} of {len(verdict.suites)}", float(within)),
        _not_within(verdict),
        recovery,
    ]
    for load in loads:
        measured = fastest(source.summary, variant.name, load)
        ratio = measured.row.ratio if measured.row is not None else None
        shown = element("span", measured.said, attributes={"title": measured.reason or None})
        cells.append(Cell(shown, ratio))
    cells += [
        plain_percent(variant.sparsity.linears),
        number_cell(str(variant.weight_bits or "—"), variant.weight_bits),
        number_cell("—" if variant.bytes is None else f"{variant.bytes / 1e6:.1f}", variant.bytes),
        variant.baseline or "",
    ]
    return cells


def _not_within(verdict: VariantVerdict) -> Cell:
    parts = []
    for kind in ("outside", "undecided", "no verdict"):
        found = [each for each in verdict.suites if each.said == kind]
        names = [
            joined([name_of(each.suite), "" if each.needed is None else f" (about {each.needed:,} items)"])
            for each in found
        ]
        if names:
            parts.append(joined([f"{kind}: ", joined(names, ", ")]))
    return Cell(joined(parts, "; "))


def _warnings(verdicts: Sequence[VariantVerdict]) -> list[Html]:
    return [
        note("No verdict on ", name_of(verdict.variant), f": {verdict.reason}.", warning=True)
        for verdict in verdicts
        if verdict.overall == "no verdict"
    ]
