"""The curves of a run as an SVG that needs nothing to draw it: one panel per quantity over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsify.svg import svg_line, svg_text

_WIDTH, _LEFT, _RIGHT, _PANEL, _GAP, _TOP = 760, 70, 130, 110, 34, 44
_POINTS = 500  # more steps than this are averaged in groups
# Okabe-Ito: told apart by people with any colour vision.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class _Series:
    name: str
    values: list[tuple[float, float]]
    colour: str


def curves_svg(lines: Sequence[Mapping[str, Any]], title: str) -> str:
    """Losses, dev loss, SquareHead per block, learning rate, sparsity and speed over steps; empty without lines.

    Args:
        lines: Of `curves.jsonl`.
        title: Said above.
    """
    if not lines:
        return ""
    panels = [
        ("losses (log)", _named(lines, sorted({name for line in lines for name in line["losses"]})), True),
        ("dev loss (nats)", _one("dev", lines, lambda line: line.get("dev"), mean=False), False),
        ("SquareHead per block (log)", _blocks(lines), True),
        ("learning rate", _one("lr", lines, lambda line: line["lr"]), False),
        ("pruned, % of the masked weights", _one("sparsity", lines, lambda line: 100 * line["sparsity"]), False),
        ("tokens/s", _one("tokens/s", lines, lambda line: line["tokens_per_s"]), False),
    ]
    drawn = [panel for panel in panels if any(series.values for series in panel[1])]
    height = _TOP + len(drawn) * (_PANEL + _GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        svg_text(_LEFT, 20, title, size=14),
    ]
    last = float(lines[-1]["step"])
    for index, (name, found, log) in enumerate(drawn):
        parts += _panel(name, found, _TOP + index * (_PANEL + _GAP), last, log=log)
    parts.append(svg_text((_LEFT + _WIDTH - _RIGHT) / 2, height - 4, f"step (1 to {last:.0f})", anchor="middle"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(name: str, found: Sequence[_Series], top: float, last: float, *, log: bool) -> list[str]:
    values = [value for series in found for _, value in series.values]
    log = log and min(values) > 0
    scale: Callable[[float], float] = math.log if log else float
    low, high = scale(min(values)), scale(max(values))
    if high - low < 1e-12:
        low, high = low - 0.05 * abs(low) - 1e-9, high + 0.05 * abs(high) + 1e-9

    def x(step: float) -> float:
        return _LEFT + (step - 1) / max(1.0, last - 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return top + _PANEL * (1 - (scale(value) - low) / (high - low))

    parts = [svg_text(_LEFT, top - 5, name)]
    for share in (0.0, 0.5, 1.0):
        at = low + share * (high - low)
        height = top + _PANEL * (1 - share)
        parts.append(svg_line(_LEFT, height, _WIDTH - _RIGHT, height, "#dddddd"))
        parts.append(svg_text(_LEFT - 6, height + 4, f"{math.exp(at) if log else at:.3g}", anchor="end", size=11))
    for index, series in enumerate(found):
        if not series.values:
            continue
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in series.values)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{series.colour}" stroke-width="1.3"/>')
        if len(found) > 1:
            at = top + 10 + index * min(14.0, _PANEL / len(found))
            parts.append(svg_line(_WIDTH - _RIGHT + 8, at - 4, _WIDTH - _RIGHT + 24, at - 4, series.colour, width=2))
            parts.append(svg_text(_WIDTH - _RIGHT + 28, at, series.name, size=11))
    return parts


def _loss(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda line: line["losses"].get(name)


def _block(index: int) -> Callable[[Mapping[str, Any]], Any]:
    return lambda line: line["squarehead_blocks"][index] if "squarehead_blocks" in line else None


def _named(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[_Series]:
    return [_Series(name, _points(lines, _loss(name)), _COLOURS[i % len(_COLOURS)]) for i, name in enumerate(names)]


def _one(
    name: str, lines: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any], *, mean: bool = True
) -> list[_Series]:
    return [_Series(name, _points(lines, value, mean=mean), _COLOURS[1])]


def _blocks(lines: Sequence[Mapping[str, Any]]) -> list[_Series]:
    count = max((len(line.get("squarehead_blocks", ())) for line in lines), default=0)
    found = []
    for index in range(count):
        # From blue in the first block to orange in the last.
        share = index / max(1, count - 1)
        colour = "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in ((0, 213), (114, 94), (178, 0)))
        values = _points(lines, _block(index))
        found.append(_Series(f"block {index}", values, colour))
    return found


def _points(
    lines: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any], *, mean: bool = True
) -> list[tuple[float, float]]:
    known = [(float(line["step"]), float(found)) for line in lines if (found := value(line)) is not None]
    group = max(1, len(known) // _POINTS) if mean else 1
    parts = [known[at : at + group] for at in range(0, len(known), group)]
    return [(sum(s for s, _ in part) / len(part), sum(v for _, v in part) / len(part)) for part in parts]
