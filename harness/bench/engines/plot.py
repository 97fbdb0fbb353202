"""The roofline: tokens per second against the weight bytes of a token, below the line that the memory draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.bench.engines.numbers import Panel, Row
from sparsify.svg import svg_line, svg_text

_WIDTH, _HEIGHT = 940, 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 300, 56, 56
# Okabe-Ito: told apart by people with any colour vision.
_COLOURS = {
    "ours": "#D55E00",
    "torch": "#999999",
    "llama.cpp": "#0072B2",
    "openvino": "#009E73",
    "onnxruntime": "#56B4E9",
    "deepsparse": "#CC79A7",
}


def roofline(panels: Sequence[Panel], title: str) -> str:
    """The SVG of panels of one workload and one number of threads; empty where nothing was measured.

    A variant that several panels measured is drawn once, from the panel in which it came nearest to the line.
    """
    best: dict[str, tuple[Row, float]] = {}
    unknown: dict[str, float] = {}
    for panel in panels:
        for row in panel.rows:
            if row.tokens_per_s is None or panel.bandwidth is None:
                continue
            if row.share is None:
                unknown[row.variant] = max(row.tokens_per_s, unknown.get(row.variant, 0.0))
                continue
            if row.variant not in best or row.share > (best[row.variant][0].share or 0):
                best[row.variant] = (row, panel.bandwidth)
    if not best:
        return ""
    rows = [row for row, _ in best.values()]
    bandwidth = max(each for _, each in best.values())
    sizes = [row.megabytes or 1.0 for row in rows]
    speeds = [row.tokens_per_s or 1.0 for row in rows]
    batch = panels[0].line["tokens"]
    xs = (math.log(min(sizes) / 1.4), math.log(max(sizes) * 1.3))
    ys = (math.log(min(speeds) / 1.5), math.log(max(bandwidth * 1e3 / min(sizes) * batch, max(speeds)) * 1.4))

    def x(megabytes: float) -> float:
        return _LEFT + (math.log(megabytes) - xs[0]) / (xs[1] - xs[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(speed: float) -> float:
        return _HEIGHT - _BOTTOM - (math.log(speed) - ys[0]) / (ys[1] - ys[0]) * (_HEIGHT - _TOP - _BOTTOM)

    marks = "filled: sparse, hollow: dense; to the right tokens/s and share of the bandwidth"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        svg_text(_LEFT, 22, title, size=14),
        svg_text(_LEFT, 40, f"no skill (random weights); dashed: what {bandwidth:.1f} GB/s allow; {marks}", size=11),
        svg_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, "weights read for a token, MB", anchor="middle"),
        svg_text(_LEFT - 50, _TOP - 6, "tokens/s", size=11),
    ]
    for value in _ticks(*(math.exp(each) for each in ys)):
        parts.append(svg_line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), "#e4e4e4"))
        parts.append(svg_text(_LEFT - 6, y(value) + 4, f"{value:g}", anchor="end"))
    for value in _ticks(*(math.exp(each) for each in xs)):
        parts.append(svg_line(x(value), _TOP, x(value), _HEIGHT - _BOTTOM, "#f0f0f0"))
        parts.append(svg_text(x(value), _HEIGHT - _BOTTOM + 18, f"{value:g}", anchor="middle"))
    low, high = (math.exp(each) for each in xs)
    ends = [(size, bandwidth * 1e3 / size * batch) for size in (low, high)]
    # The line leaves the picture at the top: cut there, not squeezed.
    top = math.exp(ys[1])
    if ends[0][1] > top:
        ends[0] = (bandwidth * 1e3 * batch / top, top)
    (x1, y1), (x2, y2) = ((x(size), y(max(speed, math.exp(ys[0])))) for size, speed in ends)
    parts.append(svg_line(x1, y1, x2, y2, "#000000", width=1.5, dash="6 3"))
    order = sorted(rows, key=lambda row: -(row.tokens_per_s or 0))
    step = min(22.0, (_HEIGHT - _TOP - 24) / max(1, len(order)))
    for index, row in enumerate(order):
        engine, _, rest = row.variant.partition(":")
        colour = _COLOURS.get(engine, "#8B5A2B")
        sparse = "@" in rest and not rest.partition("@")[2].startswith("0")
        at = (x(row.megabytes or 1.0), y(row.tokens_per_s or 1.0))
        line = _TOP + 6 + step * index
        parts.append(svg_line(at[0] + 5, at[1], _WIDTH - _RIGHT + 16, line, "#cccccc", width=0.6))
        parts.append(_dot(*at, colour, filled=sparse))
        parts.append(_dot(_WIDTH - _RIGHT + 22, line, colour, filled=sparse))
        told = f"{row.variant}: {row.tokens_per_s:.1f}/s, {row.share:.0%}"
        parts.append(svg_text(_WIDTH - _RIGHT + 32, line + 4, told, size=11))
    for index, (variant, speed) in enumerate(sorted(unknown.items())):
        told = f"{variant}: {speed:.1f}/s, size of its weights unknown"
        parts.append(svg_text(_LEFT + 8, _HEIGHT - _BOTTOM - 10 - 15 * index, told, size=11))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _ticks(low: float, high: float) -> list[float]:
    steps = [base * 10.0**power for power in range(-2, 6) for base in (1, 2, 5)]
    return [step for step in steps if low <= step <= high]


def _dot(x: float, y: float, colour: str, *, filled: bool) -> str:
    fill = colour if filled else "white"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="2"/>'
