"""Perplexity against sparsity, one line per method, as an SVG that needs nothing to draw it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from harness.bench.sparsify.arms import METHODS, PEER, SLOPED, SPARSITIES, Arm
from sparsify.svg import svg_line, svg_text

_WIDTH, _HEIGHT = 830, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 320, 40, 50
# Okabe-Ito: told apart by people with any colour vision.
_COLOURS = ("#999999", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#000000", "#8B5A2B")
_LARGEST = 20.0


def curves(lines: Sequence[Mapping[str, Any]], text: str) -> dict[str, list[tuple[int, float]]]:
    """Method -> (sparsity in %, mean perplexity over seeds), for the methods that were measured."""
    named = [(method, Arm(method, "50")) for method in METHODS]
    named += [(f"{method}, slope", Arm(method, "50", "slope")) for method in SLOPED]
    named += [(f"{PEER} {method}", Arm(method, "50", peer=True)) for method in ("sparsegpt", "wanda")]
    found: dict[str, list[tuple[int, float]]] = {}
    for label, like in named:
        for pattern in SPARSITIES:
            name = Arm(like.method, pattern, like.allocation, peer=like.peer).name
            values = [line["perplexity"][text] for line in lines if line["arm"] == name and "error" not in line]
            if values:
                found.setdefault(label, []).append((int(pattern), statistics.fmean(values)))
    return found


def perplexity_plot(found: Mapping[str, Sequence[tuple[int, float]]], dense: float, title: str) -> str:
    """The SVG; perplexity on a logarithmic axis, cut at 20 times dense. Empty where nothing was measured."""
    if not any(found.values()):
        return ""
    highest = max(value for points in found.values() for _, value in points)
    low, high = math.log(dense * 0.95), math.log(min(highest * 1.05, dense * _LARGEST))
    xs = [int(pattern) for pattern in SPARSITIES]

    def x(sparsity: float) -> float:
        return _LEFT + (sparsity - xs[0] + 2) / (xs[-1] - xs[0] + 4) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share = (min(math.log(value), high) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        svg_text(_LEFT, 22, title, size=14),
        svg_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, "zeros, % of the linears' weights", anchor="middle"),
    ]
    for value in _ticks(math.exp(low), math.exp(high)):
        parts.append(svg_line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), "#dddddd"))
        parts.append(svg_text(_LEFT - 6, y(value) + 4, f"{value:g}", anchor="end"))
    for sparsity in xs:
        parts.append(svg_text(x(sparsity), _HEIGHT - _BOTTOM + 18, str(sparsity), anchor="middle"))
    parts.append(svg_line(_LEFT, y(dense), _WIDTH - _RIGHT, y(dense), "#000000", dash="2 3"))
    parts.append(svg_text(_WIDTH - _RIGHT - 4, y(dense) - 5, f"dense {dense:.2f}", anchor="end", size=11))
    if highest > math.exp(high):
        parts.append(svg_text(_LEFT + 4, _TOP - 4, f"cut at {math.exp(high):.0f}", size=11))
    # The legend lists the methods in the order of their last points, so that it reads like the picture.
    order = sorted(found, key=lambda label: -found[label][-1][1])
    for index, label in enumerate(found):
        colour = _COLOURS[index % len(_COLOURS)]
        dash = "6 3" if PEER in label else ""
        shown = " ".join(f"{x(sparsity):.1f},{y(value):.1f}" for sparsity, value in found[label])
        parts.append(
            f'<polyline points="{shown}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        parts += [
            f'<circle cx="{x(sparsity):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>'
            for sparsity, value in found[label]
        ]
        row = _TOP + 10 + 22 * order.index(label)
        parts.append(svg_line(_WIDTH - _RIGHT + 14, row, _WIDTH - _RIGHT + 40, row, colour, width=2, dash=dash))
        parts.append(
            svg_text(_WIDTH - _RIGHT + 46, row + 4, f"{label} ({found[label][-1][1]:.1f} at {found[label][-1][0]} %)")
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _ticks(low: float, high: float) -> list[float]:
    steps = [base * 10.0**power for power in range(-1, 7) for base in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    return [step for step in steps if low <= step <= high]
