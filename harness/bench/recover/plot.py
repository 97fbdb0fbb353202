"""Mean recovery against sparsity, one line per method with its 95 % limits, as an SVG that needs nothing to draw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.bench.recover.arms import CE, CE_SQUAREHEAD, DENSE, FINAL, ONE_SHOT, PATTERNS, Arm
from harness.bench.recover.numbers import Record
from sparsify.svg import svg_line, svg_text

_WIDTH, _HEIGHT = 830, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 270, 40, 60
# Okabe-Ito: told apart by people with any colour vision.
_COLOURS = {ONE_SHOT: "#D55E00", CE: "#E69F00", CE_SQUAREHEAD: "#0072B2", FINAL: "#009E73"}
_LEAST_SPAN = 0.1


@dataclass(frozen=True)
class Point:
    """One mark: the mean recovery of an arm, and its limits (None with no interval)."""

    pattern: str
    value: float
    limits: tuple[float, float] | None


def recovery_points(record: Record) -> dict[str, list[Point]]:
    """Method -> its marks, for what was measured."""
    found: dict[str, list[Point]] = {}
    for method in _COLOURS:
        for pattern in PATTERNS:
            comparison = record.compare(Arm(method, pattern), Arm(DENSE))
            if comparison is not None and comparison.mean.value is not None:
                found.setdefault(method, []).append(Point(pattern, comparison.mean.value, comparison.limits))
    return found


def recovery_plot(found: Mapping[str, Sequence[Point]], title: str) -> str:
    """The SVG; 2:4 stands apart from the unstructured 50 %. Empty where nothing was measured."""
    points = [point for marks in found.values() for point in marks]
    if not points:
        return ""
    low = min(0.9, min(point.value for point in points) - 0.05)
    high = max(1.05, low + _LEAST_SPAN, max(point.value for point in points) + 0.05)

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    right = _WIDTH - _RIGHT
    places = {
        pattern: _LEFT + (index + 0.5) * (right - _LEFT) / len(PATTERNS) for index, pattern in enumerate(PATTERNS)
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        svg_text(_LEFT, 22, title, size=14),
        svg_text((_LEFT + right) / 2, _HEIGHT - 14, "zeros of the linears' weights", anchor="middle"),
    ]
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 11 or step == 0.2)
    for index in range(round(low / step), round(high / step) + 1):
        value = index * step
        if low <= value <= high:
            parts.append(svg_line(_LEFT, y(value), right, y(value), "#dddddd"))
            parts.append(svg_text(_LEFT - 6, y(value) + 4, f"{100 * value:.0f} %", anchor="end"))
    parts.append(svg_line(_LEFT, y(1.0), right, y(1.0), "#000000", dash="2 3"))
    parts.append(svg_text(right - 4, y(1.0) - 5, "dense, same fine-tuning", anchor="end", size=11))
    for pattern, x in places.items():
        label = pattern if ":" in pattern else f"{pattern} %"
        parts.append(svg_text(x, _HEIGHT - _BOTTOM + 18, label, anchor="middle"))
    for index, (method, marks) in enumerate(found.items()):
        colour, shift = _COLOURS[method], 9 * (index - (len(found) - 1) / 2)
        path = " ".join(f"{places[p.pattern] + shift:.1f},{y(p.value):.1f}" for p in marks if ":" not in p.pattern)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for point in marks:
            x = places[point.pattern] + shift
            if point.limits is not None:
                parts.append(svg_line(x, y(point.limits[0]), x, y(point.limits[1]), colour))
            parts.append(f'<circle cx="{x:.1f}" cy="{y(point.value):.1f}" r="3.5" fill="{colour}"/>')
        row = _TOP + 10 + 22 * index
        parts.append(svg_line(right + 14, row, right + 40, row, colour, width=2))
        parts.append(svg_text(right + 46, row + 4, method))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
