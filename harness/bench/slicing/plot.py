"""Perplexity against the fraction that is cut off, before and after recovery, as an SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.bench.slicing.arms import FRACTIONS, OTHER, RECOVERY, Arm
from harness.bench.slicing.record import Record
from sparsify.svg import svg_line, svg_text

_WIDTH, _HEIGHT = 830, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 290, 40, 56
# Okabe-Ito: told apart by people with any colour vision; marks differ as well.
_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73")
_DASHES = ("", "6 3", "", "6 3", "")


def curves(record: Record, model: str) -> dict[str, list[tuple[int, float]]]:
    """Label -> (fraction in %, perplexity)."""
    labelled = {
        "uniform": lambda fraction: Arm(model, fraction),
        "by energy": lambda fraction: Arm(model, fraction, schedule="mass"),
        "uniform, other text": lambda fraction: Arm(model, fraction, OTHER),
        "by energy, other text": lambda fraction: Arm(model, fraction, OTHER, "mass"),
        "uniform, then recovered": lambda fraction: Arm(model, fraction, after=RECOVERY),
    }
    found: dict[str, list[tuple[int, float]]] = {}
    for label, arm_of in labelled.items():
        for fraction in FRACTIONS:
            value = record.perplexity(arm_of(fraction))
            if value is not None:
                found.setdefault(label, []).append((fraction, value))
    return found


def slicing_plot(found: Mapping[str, Sequence[tuple[int, float]]], dense: Mapping[str, float], title: str) -> str:
    """The SVG; perplexity on a logarithmic axis, dense models as dotted lines. Empty where nothing was measured."""
    values = [value for points in found.values() for _, value in points] + list(dense.values())
    if not found:
        return ""
    low, high = math.log(min(values) * 0.98), math.log(max(values) * 1.02)
    right = _WIDTH - _RIGHT

    def x(fraction: float) -> float:
        return _LEFT + (fraction - FRACTIONS[0] + 2) / (FRACTIONS[-1] - FRACTIONS[0] + 4) * (right - _LEFT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (math.log(value) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        svg_text(_LEFT, 22, title, size=14),
        svg_text((_LEFT + right) / 2, _HEIGHT - 12, "% of the residual stream cut off", anchor="middle"),
    ]
    for step in range(7):
        value = math.exp(low + (high - low) * step / 6)
        parts.append(svg_line(_LEFT, y(value), right, y(value), "#dddddd"))
        parts.append(svg_text(_LEFT - 6, y(value) + 4, f"{value:.3g}", anchor="end"))
    for fraction in FRACTIONS:
        parts.append(svg_text(x(fraction), _HEIGHT - _BOTTOM + 18, f"{fraction} %", anchor="middle"))
    height = -math.inf
    for label, value in sorted(dense.items(), key=lambda line: -line[1]):
        height = max(y(value) + 4, height + 12)  # dense models differ little: their labels must not cover each other
        parts.append(svg_line(_LEFT, y(value), right, y(value), "#000000", dash="2 3"))
        parts.append(svg_text(right + 6, height, label, size=11))
    for index, (label, points) in enumerate(found.items()):
        colour, dash = _COLOURS[index % len(_COLOURS)], _DASHES[index % len(_DASHES)]
        path = " ".join(f"{x(fraction):.1f},{y(value):.1f}" for fraction, value in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>')
        parts += [
            f'<circle cx="{x(fraction):.1f}" cy="{y(value):.1f}" r="3.5" fill="{colour}"/>'
            for fraction, value in points
        ]
        row = _TOP + 60 + 22 * index
        parts.append(svg_line(right + 80, row, right + 110, row, colour, width=2, dash=dash))
        parts.append(svg_text(right + 116, row + 4, label))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
