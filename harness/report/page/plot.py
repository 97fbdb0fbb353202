"""Plots as inline SVG: readable in black and white (shapes and dashes), by screen readers, in light and dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.report.page.element import Html, element, joined
from harness.report.page.scale import Scale, fitted
from harness.report.page.shapes import marker, swatch

WIDTH, HEIGHT = 560, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 22, 12, 44
COLOURS, DASHES = 8, 6


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis.

    Attributes:
        label: What it shows, with its unit.
        log: Logarithmic; values at or below 0 are left out.
        low: Lowest value to show at least; None takes it from the data.
        high: Highest value to show at least.
        whole: Ticks only at whole numbers.
    """

    label: str
    log: bool = False
    low: float | None = None
    high: float | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """A point with, where known, its intervals (low, high); `note` is shown on hover, `label` beside it."""

    x: float
    y: float
    note: str = ""
    label: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one name.

    Attributes:
        name: For the legend.
        points: In the order in which a line joins them.
        line: Join them.
        marks: Draw a mark at each.
        solid: Fill the marks.
    """

    name: str
    points: Sequence[Point]
    line: bool = False
    marks: bool = True
    solid: bool = True


@dataclass(frozen=True, slots=True)
class Guide:
    """A line across the plot at a value of an axis (`x` or `y`), or a band up to `until`."""

    axis: str
    at: float
    name: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """What a figure shows; `description` says in words what there is to see."""

    title: str
    description: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    guides: Sequence[Guide] = field(default_factory=tuple)


def figure(identifier: str, plot: Plot) -> Html:
    """Return a `figure`: caption, SVG with title and description, and a legend where there are several series."""
    x, y = _scales(plot)
    parts: list[Html] = [
        element("title", plot.title, attributes={"id": f"{identifier}-t"}),
        element("desc", plot.description, attributes={"id": f"{identifier}-d"}),
        *_axes(plot, x, y),
        *_guides(plot.guides, x, y),
    ]
    for index, series in enumerate(plot.series):
        parts.append(_series(series, index, x, y))
    parts += _labels(plot, x, y)
    attributes = {
        "class": "plot",
        "viewBox": f"0 0 {WIDTH} {HEIGHT}",
        "role": "img",
        "aria-labelledby": f"{identifier}-t {identifier}-d",
    }
    body = [element("figcaption", plot.title), element("svg", *parts, attributes=attributes)]
    if len(plot.series) > 1 or plot.guides:
        body.append(legend([(s.name, s.line, s.marks, s.solid) for s in plot.series], plot.guides))
    return element("figure", *body, attributes={"id": identifier})


def _scales(plot: Plot) -> tuple[Scale, Scale]:
    points = [point for series in plot.series for point in series.points]
    sides = {}
    for name, axis, ends in (("x", plot.x, (_LEFT, WIDTH - _RIGHT)), ("y", plot.y, (HEIGHT - _BOTTOM, _TOP))):
        values = [getattr(point, name) for point in points]
        values += [v for point in points for v in getattr(point, f"{name}_range") or ()]
        values += [v for guide in plot.guides if guide.axis == name for v in (guide.at, guide.until) if v is not None]
        values += [v for v in (axis.low, axis.high) if v is not None]
        sides[name] = fitted(values, ends, log=axis.log, whole=axis.whole)
    return sides["x"], sides["y"]


def _axes(plot: Plot, x: Scale, y: Scale) -> list[Html]:
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    grid = [f"M{x.at(tick):.1f} {top}V{bottom}" for tick in x.ticks]
    grid += [f"M{left} {y.at(tick):.1f}H{right}" for tick in y.ticks]
    parts = [
        element("path", attributes={"class": "grid", "d": "".join(grid)}),
        element("path", attributes={"class": "axis", "d": f"M{left} {top}V{bottom}H{right}"}),
    ]
    parts += [_text(x.shown(t), x.at(t), bottom + 15, "middle") for t in x.ticks]
    parts += [_text(y.shown(t), left - 6, y.at(t) + 4, "end") for t in y.ticks]
    parts.append(_text(_titled(plot.x), (left + right) / 2, HEIGHT - 8, "middle"))
    turned = {"transform": f"translate(14 {(top + bottom) / 2:.1f}) rotate(-90)", "text-anchor": "middle"}
    parts.append(element("text", _titled(plot.y), attributes=turned))
    return parts


def _titled(axis: Axis) -> str:
    return f"{axis.label} (log)" if axis.log else axis.label


def _text(shown: str, x: float, y: float, anchor: str) -> Html:
    return element("text", shown, attributes={"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})


def _guides(guides: Sequence[Guide], x: Scale, y: Scale) -> list[Html]:
    parts = []
    for guide in guides:
        scale = x if guide.axis == "x" else y
        first = scale.at(guide.at)
        if guide.until is not None:
            second = scale.at(guide.until)
            low, size = min(first, second), abs(second - first)
            across: dict[str, str | int] = (
                {"x": f"{low:.1f}", "width": f"{size:.1f}", "y": _TOP, "height": HEIGHT - _BOTTOM - _TOP}
                if guide.axis == "x"
                else {"y": f"{low:.1f}", "height": f"{size:.1f}", "x": _LEFT, "width": WIDTH - _RIGHT - _LEFT}
            )
            parts.append(element("rect", element("title", guide.name), attributes={"class": "band", **across}))
            continue
        line = (
            f"M{first:.1f} {_TOP}V{HEIGHT - _BOTTOM}" if guide.axis == "x" else f"M{_LEFT} {first:.1f}H{WIDTH - _RIGHT}"
        )
        parts.append(element("path", element("title", guide.name), attributes={"class": "guide", "d": line}))
    return parts


def _shown(series: Series, x: Scale, y: Scale) -> list[Point]:
    return [point for point in series.points if x.holds(point.x) and y.holds(point.y)]


def _series(series: Series, index: int, x: Scale, y: Scale) -> Html:
    points = _shown(series, x, y)
    parts = []
    bars = ""
    for point in points:
        at_x, at_y = x.at(point.x), y.at(point.y)
        if point.y_range:
            bars += f"M{at_x:.1f} {y.at(point.y_range[0]):.1f}V{y.at(point.y_range[1]):.1f}"
        if point.x_range:
            bars += f"M{x.at(point.x_range[0]):.1f} {at_y:.1f}H{x.at(point.x_range[1]):.1f}"
    if bars:
        parts.append(element("path", attributes={"class": "bar", "d": bars}))
    if series.line and points:
        line = "M" + "L".join(f"{x.at(point.x):.1f} {y.at(point.y):.1f}" for point in points)
        parts.append(element("path", attributes={"class": f"line d{index % DASHES}", "d": line}))
    if series.marks:
        kind = "mark solid" if series.solid else "mark"
        notes = any(point.note for point in points)
        shapes = [(marker(index, x.at(point.x), y.at(point.y)), point.note) for point in points]
        if notes:
            for shape, note in shapes:
                parts.append(element("path", element("title", note), attributes={"class": kind, "d": shape}))
        elif shapes:
            parts.append(element("path", attributes={"class": kind, "d": "".join(shape for shape, _ in shapes)}))
    return element("g", *parts, attributes={"class": f"c{index % COLOURS}"})


def _labels(plot: Plot, x: Scale, y: Scale) -> list[Html]:
    """Names beside points, each where it covers no other; one that finds no place stays away (its note remains)."""
    points = [point for series in plot.series for point in _shown(series, x, y)]
    taken = [(x.at(p.x) - 5, y.at(p.y) - 5, x.at(p.x) + 5, y.at(p.y) + 5) for p in points]
    parts = []
    for point in points:
        if not point.label:
            continue
        at_x, at_y = x.at(point.x), y.at(point.y)
        width = 6.3 * len(point.label)
        for left, base in (
            (at_x + 8, at_y - 5),
            (at_x + 8, at_y + 13),
            (at_x - 8 - width, at_y - 5),
            (at_x - 8 - width, at_y + 13),
            (at_x - width / 2, at_y - 10),
            (at_x - width / 2, at_y + 19),
            (at_x + 8, at_y + 26),
            (at_x + 8, at_y - 18),
        ):
            box = (left, base - 10, left + width, base + 3)
            inside = _LEFT <= box[0] and box[2] <= WIDTH and _TOP - 8 <= box[1] and box[3] <= HEIGHT - _BOTTOM
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                parts.append(_text(point.label, left, base, "start"))
                break
    return parts


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def legend(series: Sequence[tuple[str, bool, bool, bool]], guides: Sequence[Guide] = ()) -> Html:
    """The list of what a plot's shapes mean.

    Args:
        series: Name, whether its points are joined, whether they have marks, and whether these are filled.
        guides: Lines and bands.
    """
    items = []
    for index, (name, line, marks, solid) in enumerate(series):
        parts = []
        if line:
            parts.append(element("path", attributes={"class": f"line d{index % DASHES}", "d": "M1 7H33"}))
        if marks:
            kind = "mark solid" if solid else "mark"
            parts.append(element("path", attributes={"class": kind, "d": marker(index, 17, 7)}))
        items.append(element("li", swatch(index % COLOURS, parts), element("bdi", name)))
    for guide in guides:
        shape = {"class": "guide", "d": "M1 7H33"} if guide.until is None else {"class": "band", "d": "M1 2H33V12H1Z"}
        items.append(element("li", swatch(None, [element("path", attributes=shape)]), element("bdi", guide.name)))
    return element("ul", joined(items), attributes={"class": "legend"})
