"""A history as one SVG: a panel for each series, told apart by shape and place, never by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import fmean, median

from harness.history.series import Series
from harness.history.show import value_text
from harness.history.steps import Step
from harness.report.xml_text import xml_legal
from sparsify.svg import svg_line, svg_text

_WIDTH, _HEIGHT = 520, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 40, 26
_COLUMNS = 2
_BLACK, _GREY, _LIGHT = "#000", "#666", "#bbb"


def history_svg(series: Sequence[Series], steps: Sequence[Step], *, title: str) -> str:
    """Return the plot: intervals as whiskers, levels as thick lines, steps as dashed lines with a filled triangle.

    Points that a panel did not decide are hollow. All text is escaped; the file has no script and loads nothing.
    """
    rows = -(-len(series) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, rows * _HEIGHT + 30
    panels = [
        f'<g transform="translate({i % _COLUMNS * _WIDTH},{i // _COLUMNS * _HEIGHT + 30})">{_panel(one, steps)}</g>'
        for i, one in enumerate(series)
    ]
    name = xml_legal(title)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(name)}" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif">',
            f"<title>{escape(name)}</title>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            svg_text(12, 20, name, size=14),
            *panels,
            "</svg>\n",
        ]
    )


class _Scale:
    """Places of values in a panel."""

    def __init__(self, series: Series, levels: Sequence[float]) -> None:
        ends = [end for point in series.points if point.ci95 is not None for end in point.ci95]
        values = [point.value for point in series.points] + list(levels) + ends
        low, high = min(values), max(values)
        room = max((high - low) * 0.08, 0.002)
        self.low, self.high, self.count = low - room, high + room, len(series.points)

    def x(self, i: float) -> float:
        inside = _WIDTH - _LEFT - _RIGHT
        return _LEFT + inside * ((i + 0.5) / self.count)

    def y(self, value: float) -> float:
        inside = _HEIGHT - _TOP - _BOTTOM
        return _TOP + inside * (self.high - value) / (self.high - self.low)


def _panel(series: Series, steps: Sequence[Step]) -> str:
    own = [step for step in steps if step.series is series]
    scale = _Scale(series, [level for step in own for level in (step.before, step.after)])
    begins = " (new protocol)" if series.restarted else ""
    marks = [svg_text(_LEFT, 14, xml_legal(series.name) + begins, size=12), *_axes(series, scale)]
    for i, point in enumerate(series.points):
        marks.append(_point(series, i, scale))
        if point.ci95 is not None:
            x = scale.x(i)
            marks.append(svg_line(x, scale.y(point.ci95[0]), x, scale.y(point.ci95[1]), _GREY))
    marks += _levels(series, own, scale)
    marks += [mark for step in own for mark in _step(step, scale)]
    return "".join(marks)


def _axes(series: Series, scale: _Scale) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    marks = [svg_line(_LEFT, bottom, right, bottom, _BLACK)]
    for value in (scale.low, (scale.low + scale.high) / 2, scale.high):
        label = f"{100 * value:.1f} %" if series.kind == "skill" else f"{value:.3f}x"
        marks.append(svg_line(_LEFT, scale.y(value), right, scale.y(value), _LIGHT, dash="1 3"))
        marks.append(svg_text(_LEFT - 4, scale.y(value) + 4, label, anchor="end", size=10))
    first, last = series.points[0], series.points[-1]
    marks.append(svg_text(_LEFT, bottom + 14, f"{first.commit[:8]}, {first.time[:10]}", size=10))
    if len(series.points) > 1:
        marks.append(svg_text(right, bottom + 14, f"{last.commit[:8]}, {last.time[:10]}", anchor="end", size=10))
    return marks


def _point(series: Series, i: int, scale: _Scale) -> str:
    point = series.points[i]
    fill = _BLACK if point.undecided is None else "#fff"
    said = f"{point.commit} {point.time}: {value_text(series, point)}"
    return (
        f'<circle cx="{scale.x(i):.1f}" cy="{scale.y(point.value):.1f}" r="2.4" fill="{fill}" stroke="{_BLACK}">'
        f"<title>{escape(xml_legal(said))}</title></circle>"
    )


def _levels(series: Series, own: Sequence[Step], scale: _Scale) -> list[str]:
    """The level of each part between steps; of a series without a step, its mean (speeds: median)."""
    ordered = sorted(own, key=lambda step: step.at)
    if not ordered:
        tested = [series.points[i].value for i in series.tested]
        middle = fmean if series.kind == "skill" else median
        level = middle(tested) if tested else None
        spans = [] if level is None else [(0, len(series.points), level)]
    else:
        edges = [0, *(step.at for step in ordered), len(series.points)]
        values = [ordered[0].before, *(step.after for step in ordered)]
        spans = [(edges[i], edges[i + 1], value) for i, value in enumerate(values)]
    return [
        svg_line(scale.x(start - 0.4), scale.y(level), scale.x(end - 0.6), scale.y(level), _BLACK, width=2)
        for start, end, level in spans
    ]


def _step(step: Step, scale: _Scale) -> list[str]:
    x, top = scale.x(step.at - 0.5), _TOP - 4
    tip = f"{x:.1f},{top + 8}" if step.worse else f"{x:.1f},{top - 4}"
    base = top - 2 if step.worse else top + 6
    triangle = f'<polygon points="{x - 5:.1f},{base} {x + 5:.1f},{base} {tip}" fill="{_BLACK}"/>'
    change = f"{100 * step.change:+.1f}" if step.series.kind == "skill" else f"x {step.change:.3f}"
    anchor = "end" if x > _WIDTH - 140 else "start"
    beside = x - 8 if anchor == "end" else x + 8
    return [
        svg_line(x, top + 8, x, _HEIGHT - _BOTTOM, _BLACK, dash="5 3"),
        triangle,
        svg_text(beside, top + 5, f"{change} at {step.commit[:8]}", anchor=anchor, size=10),
    ]
