"""Accuracy against speed and size, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.html.source import Source
from harness.report.html.speeds import Place, fastest, places
from harness.report.html.words import listed, ordered, paragraph, section
from harness.report.markdown import percent, with_interval
from harness.report.page import Axis, Guide, Html, Plot, Point, Series, element, figure
from harness.report.pareto import pareto_front

_LABELS, _PLOTS = 14, 6
LeftOut = dict[tuple[str, str], list[str]]
"""(plot, reason) -> the variants that are not in it."""


def tradeoff(source: Source) -> Html:
    """Accuracy against speed, a plot a workload, and against size."""
    left_out: LeftOut = {}
    figures = [_against_speed(source, place, left_out) for place in places(source.summary)[:_PLOTS]]
    figures.append(_against_size(source, left_out))
    return section(
        "tradeoff",
        "Accuracy against speed and size",
        paragraph(
            "Mean recovery with its 95 % interval, each variant against its own baseline; a reference stands at 100 %. "
            "The line joins what no other variant beats in both directions (Pareto front), by the values alone: where "
            "intervals overlap, the order is not decided. Speed is that of each variant's fastest engine."
        ),
        element("div", *figures, attributes={"class": "figures"}),
        element("ul", *map(_remark, left_out.items()), attributes={"class": "soft"}) if left_out else None,
    )


def _remark(found: tuple[tuple[str, str], list[str]]) -> Html:
    (plot, reason), names = found
    return element("li", f"Not in the plot of {plot}: ", listed(names), f" ({reason}).")


def _accuracy(source: Source) -> dict[str, tuple[float, tuple[float, float] | None, str]]:
    """Mean recovery in per cent, its interval, and the value as text, by variant; 100 for references."""
    found: dict[str, tuple[float, tuple[float, float] | None, str]] = {}
    for variant in source.summary.variants:
        mean = variant.recovery.get("mean")
        if variant.baseline is None:
            found[variant.name] = (100.0, None, "reference")
        elif mean is not None and mean.value is not None and source.baseline(variant) is not None:
            interval = None if mean.ci95 is None else (100 * mean.ci95[0], 100 * mean.ci95[1])
            found[variant.name] = (100 * mean.value, interval, f"{with_interval(mean.value, mean.ci95)} %")
    return found


def _against_speed(source: Source, place: Place, left_out: LeftOut) -> Html | None:
    accuracy, points = _accuracy(source), []
    for variant in ordered(source.summary):
        measured = fastest(source.summary, variant.name, place)
        row = measured.row
        if row is None or row.ratio is None or variant.name not in accuracy:
            why = measured.reason if row is None else "it has no mean recovery"
            left_out.setdefault((f"{place.label} speed", why), []).append(variant.name)
            continue
        value, interval, shown = accuracy[variant.name]
        remark = f"{variant.name}: {row.ratio:.2f}× on {row.engine}, recovery {shown}"
        points.append(Point(row.ratio, value, remark, variant.name, row.ci95, interval))
    floor = next((row.noise_floor for row in source.summary.speed if place.holds(row) and row.noise_floor), None)
    guides = [Guide("x", 1 - floor, f"noise floor ± {percent(floor)} %", until=1 + floor)] if floor else []
    title, label = f"Accuracy against {place.label} speed", f"{place.label} speed / baseline"
    return _scatter(f"speed{place.number}", title, label, points, guides)


def _against_size(source: Source, left_out: LeftOut) -> Html | None:
    accuracy, points = _accuracy(source), []
    for variant in ordered(source.summary):
        if variant.bytes is None or variant.name not in accuracy:
            why = variant.reason if variant.bytes is None else "it has no mean recovery"
            left_out.setdefault(("size", str(why)), []).append(variant.name)
            continue
        value, interval, shown = accuracy[variant.name]
        remark = f"{variant.name}: {variant.bytes / 1e6:.1f} MB, recovery {shown}"
        points.append(Point(variant.bytes / 1e6, value, remark, variant.name, None, interval))
    return _scatter("size", "Accuracy against size", "MB of safetensors", points, [], smaller=True)


def _scatter(
    identifier: str, title: str, label: str, points: Sequence[Point], guides: Sequence[Guide], *, smaller: bool = False
) -> Html | None:
    if not points:
        return None
    sign = -1 if smaller else 1
    best = pareto_front([(sign * point.x, point.y) for point in points])
    front = sorted((points[i] for i in best), key=lambda point: point.x)
    # Many names would hide each other: then only those on the front are written; hovering shows the others.
    named = set(best) if len(points) > _LABELS else set(range(len(points)))
    others = [_labelled(points[i], i in named) for i in range(len(points)) if i not in best]
    series = [
        Series("on the Pareto front", [_labelled(point, True) for point in front], line=True),
        Series("beaten by another", others, solid=False),
    ]
    described = f"{len(points)} variants; on the Pareto front: {', '.join(point.label for point in front) or 'none'}."
    plot = Plot(title, described, Axis(label), Axis("mean recovery, %"), series, guides)
    return figure(f"tradeoff-{identifier}", plot)


def _labelled(point: Point, label: bool) -> Point:
    return point if label else Point(point.x, point.y, point.note, "", point.x_range, point.y_range)
