"""A comparison as text for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from harness.compare.result import SCHEMA_VERSION, Comparison, Estimated, Flip, SuiteComparison
from harness.report.distance import distance_remarks
from harness.report.markdown import escape, escape_text, percent, table, with_interval

_LONGEST = 600
"""Characters of an answer that are shown; JSON has all of it."""
_LEGEND = (
    "Scores in %, 95 % intervals in brackets; B-A paired by item, recovery is B/A. -/+: items lost and gained by B; "
    "answers, scores: share of items that are the same; p: two-sided, Holm over the suites."
)
_HEADER = ("suite", "n", "A", "B", "B-A", "recovery", "-/+", "answers", "scores", "p")


def _cell(estimate: Estimated, *, signed: bool = False) -> str:
    return "—" if estimate.value is None else with_interval(estimate.value, estimate.ci95, signed=signed)


def _row(item: SuiteComparison) -> list[str]:
    return [
        item.suite,
        str(item.n),
        percent(item.a),
        percent(item.b),
        _cell(item.difference, signed=True),
        _cell(item.recovery),
        f"-{item.lost}/+{item.gained}",
        percent(item.same_answer),
        percent(item.same_verdict),
        f"{item.p_value:.2g}",
    ]


def _rows(comparison: Comparison) -> list[list[str]]:
    rows = [_row(item) for item in comparison.suites]
    mean = comparison.mean_recovery
    if mean is not None and len(rows) > 1:
        rows.append(["mean", "", "", "", "", _cell(mean), "", "", "", ""])
    return rows


def _remarks(comparison: Comparison) -> Iterator[str]:
    for row in comparison.speed:
        interval = "" if row.ci95 is None else f" [{row.ci95[0]:.3f}, {row.ci95[1]:.3f}]"
        floor = "" if row.noise_floor is None else f", noise floor {percent(row.noise_floor)} %"
        value = "not known" if row.ratio is None else f"B is {row.ratio:.3f}x A{interval}"
        reason = f" ({row.reason})" if row.reason else ""
        yield f"speed, {row.workload} ({row.place}): {value}{floor}{reason}"
    if comparison.distance is not None:
        yield from distance_remarks(comparison.distance)
    size_a, size_b = comparison.bytes
    if size_a and size_b:
        yield f"size: {size_b / 1e6:.2f} MB, {percent(size_b / size_a)} % of A's {size_a / 1e6:.2f} MB"
    for item in comparison.suites:
        if item.left_out:
            yield f"{item.suite}: {item.left_out} rows have no partner and are left out"
        for what, estimate in (("recovery", item.recovery), ("difference", item.difference)):
            if estimate.value is None:
                yield f"{item.suite}: no {what}: {estimate.reason}"
    yield from (f"{suite}: not compared: {reason}" for suite, reason in comparison.missing.items())
    yield from comparison.notes


def as_text(comparisons: Sequence[Comparison], notes: Sequence[str], *, flips: int = 0) -> str:
    """Return plain text: for each pair a table, remarks, and up to `flips` changed items a suite."""
    lines: list[str] = []
    for comparison in comparisons:
        lines += [f"A  {_line(comparison.a)}", f"B  {_line(comparison.b)}", "", *_aligned(_rows(comparison)), ""]
        lines += [_line(remark) for remark in _remarks(comparison)]
        for item in comparison.suites:
            lines += _flips_text(item, flips)
        lines.append("")
    lines += [_line(note) for note in notes]
    return "\n".join([*lines, _LEGEND]) + "\n"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    every = [_HEADER, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(_HEADER))]
    lines = []
    for row in every:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _flips_text(item: SuiteComparison, count: int) -> Iterator[str]:
    if not count or not item.flips:
        return
    yield ""
    yield f"{item.suite}: {min(count, len(item.flips))} of {len(item.flips)} items with another score"
    for flip in item.flips[:count]:
        yield f"  {_line(flip.item)}: {flip.a:.3g} -> {flip.b:.3g}"
        for side, outputs in (("A", flip.a_outputs), ("B", flip.b_outputs)):
            for turn, output in enumerate(outputs or ("(no answer)",)):
                label = f"{side}{turn + 1 if len(outputs) > 1 else ''}"
                for number, line in enumerate(_cut(output).splitlines() or [""]):
                    yield f"    {label if number == 0 else '':3} {_line(line)}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


def _line(text: str) -> str:
    """What a model wrote may hold control characters; a terminal must not obey them."""
    return "".join(character if character.isprintable() else " " for character in text)


def as_markdown(comparisons: Sequence[Comparison], notes: Sequence[str], *, flips: int = 0) -> str:
    """Return Markdown, what models wrote escaped and in code blocks."""
    lines: list[str] = []
    for comparison in comparisons:
        lines += [f"## {escape(comparison.b)} against {escape(comparison.a)}", ""]
        rows = [[escape(cell) for cell in row] for row in _rows(comparison)]
        lines += [*table(list(_HEADER), rows), ""]
        lines += [f"- {escape_text(remark)}" for remark in _remarks(comparison)]
        for item in comparison.suites:
            for flip in item.flips[:flips]:
                lines += _flip_markdown(item.suite, flip)
        lines.append("")
    lines += [f"- {escape_text(note)}" for note in notes]
    return "\n".join([*lines, "", _LEGEND, ""])


def _flip_markdown(suite: str, flip: Flip) -> Iterator[str]:
    yield ""
    yield f"**{escape(suite)}, {escape(flip.item)}**: {flip.a:.3g} → {flip.b:.3g}"
    for side, outputs in (("A", flip.a_outputs), ("B", flip.b_outputs)):
        for output in outputs or ("(no answer)",):
            yield ""
            yield f"{side}:"
            yield ""
            # Indented code: no fence that the text itself could close.
            yield from (f"    {_line(line)}" for line in _cut(output).splitlines() or [""])


def as_json(comparisons: Sequence[Comparison], notes: Sequence[str]) -> str:
    """Return everything as JSON, all flips with their whole answers included."""
    body = {
        "schema_version": SCHEMA_VERSION,
        "comparisons": [comparison.to_dict() for comparison in comparisons],
        "notes": list(notes),
    }
    return json.dumps(body, indent=2, allow_nan=False) + "\n"
