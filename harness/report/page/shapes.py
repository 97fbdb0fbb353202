"""Marks of plots: eight shapes, so that series differ without colour too."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.page.element import Html, element

# Around (0, 0), as relative path commands after a move to the point.
_SHAPES = (
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "m-3.6 -3.6h7.2v7.2h-7.2z",
    "m0 -4.8l4.4 7.8h-8.8z",
    "m0 -5l4.4 5l-4.4 5l-4.4 -5z",
    "m0 4.8l4.4 -7.8h-8.8z",
    "m-4 -4l8 8m0 -8l-8 8",
    "m-5 0h10m-5 -5v10",
    "m-4.8 0l7.8 -4.4v8.8z",
)


def marker(index: int, x: float, y: float) -> str:
    """Path of the mark of series `index` at a place."""
    return f"M{x:.1f} {y:.1f}{_SHAPES[index % len(_SHAPES)]}"


def swatch(colour: int | None, parts: Sequence[Html]) -> Html:
    """The picture of a legend's entry, 34 by 14; decoration for screen readers, which read the name beside it."""
    attributes = {
        "viewBox": "0 0 34 14",
        "aria-hidden": "true",
        "class": "plot" if colour is None else f"plot c{colour}",
    }
    return element("svg", *parts, attributes=attributes)
