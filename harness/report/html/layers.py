"""Sparsity and error of each linear, block by block, and the loss curves of training stages."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.report.html.made import LinearInfo, Made, Training
from harness.report.html.source import Source
from harness.report.html.words import listed, name_of, note, ordered, paragraph, section
from harness.report.page import Axis, Html, Plot, Point, Series, element, figure, packed_block

_OPEN = 4
_POINTS = 240
"""A curve of more steps is averaged in so many groups."""


def layers(source: Source) -> Html:
    """Per variant two plots over the blocks; all numbers in a table that scripts fill."""
    title = "Sparsity and error per layer"
    if not source.made:
        return section("layers", title, note("Not here: the folders of the variants are not beside these records."))
    parts: list[Html] = []
    table: list[list[str | float | None]] = []
    without: list[str] = []
    drawn = 0
    for number, variant in enumerate(ordered(source.summary)):
        made = source.made.get(variant.name)
        if made is None or made.problem:
            parts.append(_absent(variant.name, made))
            continue
        if not any(linear.zeros or linear.error for linear in made.linears):
            without.append(variant.name)
            continue
        figures = _figures(f"layers{number}", variant.name, made)
        summary = element("summary", name_of(variant.name))
        body = element("div", *figures, attributes={"class": "figures"})
        parts.append(element("details", summary, body, attributes={"open": drawn < _OPEN}))
        drawn += 1
        table += [[variant.name, made.error_name, *_plain(linear)] for linear in made.linears]
    if without:
        parts.append(paragraph("No zeros and no error recorded: ", listed(without), "."))
    parts.append(element("h3", "All linears"))
    parts.append(element("div", element("noscript", "The table needs scripts."), attributes={"id": "linears-table"}))
    parts.append(packed_block("linears_data", table))
    return section("layers", title, *parts)


def _absent(name: str, made: Made | None) -> Html:
    problem = made.problem if made is not None else None
    said = f": variant.json is damaged ({problem})." if problem else ": its folder is not beside these records."
    return note(name_of(name), said, warning=problem is not None)


def _plain(linear: LinearInfo) -> list[str | float | None]:
    zeros = None if linear.zeros is None else round(linear.zeros, 6)
    return [linear.block, linear.kind, zeros, linear.error]


def _figures(identifier: str, name: str, made: Made) -> list[Html]:
    found = []
    kinds = list(dict.fromkeys(linear.kind for linear in made.linears))
    zeros = [
        _series(kind, [(li.block, li.zeros) for li in made.linears if li.kind == kind], scale=100) for kind in kinds
    ]
    if any(series.points for series in zeros):
        described = "One line a kind of linear, over the blocks of the model."
        axes = Axis("block", whole=True), Axis("zeros, %", low=0.0, high=100.0)
        found.append(figure(f"{identifier}z", Plot(f"{name}: zeros of each linear", described, *axes, zeros)))
    errors = [_series(kind, [(li.block, li.error) for li in made.linears if li.kind == kind]) for kind in kinds]
    errors = [series for series in errors if series.points]
    if errors:
        axes = Axis("block", whole=True), Axis(made.error_name or "error", log=True)
        described = "One line a kind of linear, over the blocks of the model."
        found.append(figure(f"{identifier}e", Plot(f"{name}: {made.error_name}", described, *axes, errors)))
    return found


def _series(kind: str, points: Sequence[tuple[int, float | None]], scale: float = 1.0) -> Series:
    kept = [Point(block, scale * value) for block, value in sorted(points) if value is not None]
    return Series(kind, kept, line=True)


def curves(source: Source) -> Html:
    """Losses over the steps of every training stage."""
    title = "Loss curves of training stages"
    trained = [(name, training) for name, made in source.made.items() for training in made.trainings]
    if not trained:
        why = (
            "no variant of this run was trained"
            if source.made
            else "the folders of the variants are not beside these records"
        )
        return section("curves", title, note(f"Not here: {why}."))
    figures = [figure(f"curve{i}", _curve(name, training)) for i, (name, training) in enumerate(trained)]
    return section("curves", title, element("div", *figures, attributes={"class": "figures"}))


def _curve(name: str, training: Training) -> Plot:
    series = []
    for loss, values in training.losses.items():
        pairs = [(step, value) for step, value in zip(training.steps, values, strict=True) if value is not None]
        points = [Point(x, y) for x, y in averaged(pairs)]
        if points:
            series.append(Series(loss, points, line=True, marks=loss == "dev"))
    last = training.steps[-1] if training.steps else 0
    described = f"{len(series)} losses over {last} steps."
    return Plot(f"{name}: {training.name}", described, Axis("step"), Axis("loss", log=True), series)


def averaged(pairs: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Means over groups of neighbours, at most `_POINTS` groups; a few pairs stay as they are."""
    size = max(1, math.ceil(len(pairs) / _POINTS))
    groups = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
