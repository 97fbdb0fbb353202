"""A history as text: one line a series, then the steps."""

from __future__ import annotations

from collections.abc import Sequence

from harness.history.series import Point, Series
from harness.history.steps import Step
from harness.report.markdown import percent
from harness.report.printable import printable

_SHORT = 12


def series_table(series: Sequence[Series], steps: Sequence[Step]) -> str:
    """Return one aligned line a series: its commits, its first and newest value with interval, and its steps."""
    header = ("series", "commits", "first", "newest", "steps")
    rows = [header, *(_row(one, steps) for one in series)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def _row(one: Series, steps: Sequence[Step]) -> tuple[str, str, str, str, str]:
    own = [step for step in steps if step.series is one]
    marks = ", ".join(f"{'worse' if step.worse else 'better'} at {step.commit[:_SHORT]}" for step in own)
    begins = " (new protocol)" if one.restarted else ""
    first, newest = (value_text(one, one.points[i]) for i in (0, -1))
    return printable(one.name) + begins, str(len(one.points)), first, newest, marks or "-"


def value_text(series: Series, point: Point) -> str:
    """Print a value with its interval: scores in per cent, speeds as a ratio."""
    if series.kind == "skill":
        interval = "" if point.ci95 is None else f" [{percent(point.ci95[0])}, {percent(point.ci95[1])}]"
        return f"{percent(point.value)} %{interval}"
    interval = "" if point.ci95 is None else f" [{point.ci95[0]:.3f}, {point.ci95[1]:.3f}]"
    return f"{point.value:.3f}x{interval}{'' if point.undecided is None else ' (not decided)'}"


def step_line(step: Step) -> str:
    """Return one line: what stepped where, from what to what, and how sure that is."""
    series = step.series
    word = "WORSE" if step.worse else "better"
    if series.kind == "skill":
        change = f"{percent(step.before)} % to {percent(step.after)} %, {100 * step.change:+.1f} points"
        interval = None if step.ci95 is None else f"[{100 * step.ci95[0]:+.1f}, {100 * step.ci95[1]:+.1f}]"
    else:
        change = f"{step.before:.3f}x to {step.after:.3f}x, times {step.change:.3f}"
        interval = None if step.ci95 is None else f"[{step.ci95[0]:.3f}, {step.ci95[1]:.3f}]"
    counts = f"{step.counts[0]} commits before, {step.counts[1]} after"
    p = f"p = {step.p:.2g}" if step.p >= 1e-6 else "p < 1e-06"
    where = f"{step.commit[:_SHORT]} ({step.time[:10]})"
    return (
        f"{word:6}  {printable(series.name)}  at {where}: {change}{f' {interval}' if interval else ''}; {p}; {counts}"
    )
