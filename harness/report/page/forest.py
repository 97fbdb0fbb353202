"""Values with intervals one below the other: a name a line, a place on one axis; as many lines as needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.page.element import Attributes, Html, element, joined
from harness.report.page.plot import Axis, Guide, legend
from harness.report.page.scale import Scale, fitted
from harness.report.page.shapes import marker

_WIDTH, _NAMES, _RIGHT, _TOP, _BOTTOM, _LINE = 720, 210, 120, 8, 40, 19
_LETTERS = 30


@dataclass(frozen=True, slots=True)
class Estimate:
    """One value of a line.

    Attributes:
        series: Place of its series in the legend: its shape and colour.
        value: None draws nothing; then `shown` says why there is none.
        interval: (low, high), where known.
        shown: The value as text, right of the plot.
    """

    series: int
    value: float | None
    interval: tuple[float, float] | None = None
    shown: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A name with its values, each on a line of its own."""

    name: str
    estimates: Sequence[Estimate]


@dataclass(frozen=True, slots=True)
class Forest:
    """What the figure shows; `series` are the legend's names, `guides` lie on the one axis (`x`)."""

    title: str
    description: str
    axis: Axis
    series: Sequence[str]
    lines: Sequence[Line]
    guides: Sequence[Guide] = ()


def forest(identifier: str, plot: Forest) -> Html:
    """Return a `figure` as high as its lines need."""
    count = sum(len(line.estimates) for line in plot.lines)
    bottom = _TOP + count * _LINE + 4
    scale = _scale(plot)
    parts = [
        element("title", plot.title, attributes={"id": f"{identifier}-t"}),
        element("desc", plot.description, attributes={"id": f"{identifier}-d"}),
        *_frame(plot, scale, bottom),
    ]
    y = _TOP
    for line in plot.lines:
        for index, estimate in enumerate(line.estimates):
            if index == 0:
                parts.append(_name(line.name, y + _LINE / 2 + 4))
            parts.append(_estimate(estimate, scale, y + _LINE / 2))
            y += _LINE
    attributes = {
        "class": "plot",
        "viewBox": f"0 0 {_WIDTH} {bottom + _BOTTOM}",
        "role": "img",
        "aria-labelledby": f"{identifier}-t {identifier}-d",
    }
    body = [element("figcaption", plot.title), element("svg", *parts, attributes=attributes)]
    if len(plot.series) > 1 or plot.guides:
        body.append(legend([(name, False, True, True) for name in plot.series], plot.guides))
    return element("figure", joined(body), attributes={"id": identifier})


def _scale(plot: Forest) -> Scale:
    values = [e.value for line in plot.lines for e in line.estimates if e.value is not None]
    values += [v for line in plot.lines for e in line.estimates for v in e.interval or ()]
    values += [v for guide in plot.guides for v in (guide.at, guide.until) if v is not None]
    values += [v for v in (plot.axis.low, plot.axis.high) if v is not None]
    return fitted(values, (_NAMES, _WIDTH - _RIGHT), log=plot.axis.log)


def _frame(plot: Forest, scale: Scale, bottom: float) -> list[Html]:
    grid = "".join(f"M{scale.at(tick):.1f} {_TOP}V{bottom}" for tick in scale.ticks)
    parts = [element("path", attributes={"class": "grid", "d": grid})]
    for guide in plot.guides:
        first = scale.at(guide.at)
        if guide.until is None:
            shape = {"class": "guide", "d": f"M{first:.1f} {_TOP}V{bottom}"}
        else:
            shape = {"class": "band", "d": f"M{first:.1f} {_TOP}H{scale.at(guide.until):.1f}V{bottom}H{first:.1f}Z"}
        parts.append(element("path", element("title", guide.name), attributes=shape))
    parts.append(element("path", attributes={"class": "axis", "d": f"M{_NAMES} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"}))
    for tick in scale.ticks:
        parts.append(_text(scale.shown(tick), scale.at(tick), bottom + 14, "middle"))
    label = f"{plot.axis.label} (log)" if plot.axis.log else plot.axis.label
    parts.append(_text(label, (_NAMES + _WIDTH - _RIGHT) / 2, bottom + 32, "middle"))
    return parts


def _name(name: str, y: float) -> Html:
    shown = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
    place: Attributes = {"x": _NAMES - 8, "y": f"{y:.1f}", "text-anchor": "end"}
    # Hovering shows a name that was cut.
    return element("text", shown, element("title", name) if shown != name else None, attributes=place)


def _estimate(estimate: Estimate, scale: Scale, y: float) -> Html:
    parts = []
    shown = estimate.value is not None and scale.holds(estimate.value)
    if shown and estimate.interval is not None:
        low, high = (scale.at(v) for v in estimate.interval)
        ends = f"M{low:.1f} {y - 3:.1f}v6M{high:.1f} {y - 3:.1f}v6"
        parts.append(element("path", attributes={"class": "bar", "d": f"M{low:.1f} {y:.1f}H{high:.1f}{ends}"}))
    if shown and estimate.value is not None:
        place = {"class": "mark solid", "d": marker(estimate.series, scale.at(estimate.value), y)}
        parts.append(element("path", attributes=place))
    parts.append(_text(estimate.shown, _WIDTH - _RIGHT + 8, y + 4, "start"))
    return element("g", *parts, attributes={"class": f"c{estimate.series % 8}"})


def _text(shown: str, x: float, y: float, anchor: str) -> Html:
    return element("text", shown, attributes={"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
