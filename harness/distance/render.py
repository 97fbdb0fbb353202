"""Distances as a Markdown table and as a plot by position."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from harness.report.markdown import escape, table, with_interval
from harness.schema.distance import DistanceFile, DistanceResult, FirstToken, Measure, TextDistance
from sparsify.svg import svg_line, svg_text

HEADER = ("top-1 agreement %", "KL, nats/token", "never diverge %", "first diverging token, median")
_WIDTH, _PANEL, _LEFT, _RIGHT, _TOP = 760, 260, 60, 210, 44
# Okabe-Ito: told apart by people with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B5A2B")


def distance_table(found: DistanceFile) -> str:
    """The results as Markdown."""
    models = [model for model in found.models if model.distance is not None]
    dense = next(model for model in found.models if model.distance is None)
    rows = []
    for model in models:
        assert model.distance is not None
        for text in model.distance.texts:
            sizes = [f"{text.tokens:,}", f"{text.prompts:,}"]
            rows.append([escape(model.name), escape(text.text), *sizes, *distance_cells(text)])
    lines = [
        f"Distance to {escape(dense.name)} ({dense.engine}); 95 % intervals in brackets, by "
        "template, document or window",
        "",
        *table(["model", "text", "tokens", "prompts", *HEADER], rows, left=2),
    ]
    left_out = {t.text: t.left_out for m in models if m.distance for t in m.distance.texts if t.left_out}
    lines += [f"\n{escape(name)}: {count} documents do not fit the context" for name, count in left_out.items()]
    return "\n".join(lines) + "\n"


def distance_cells(text: TextDistance) -> list[str]:
    """The four measures of a text, in the order of `HEADER`."""
    return [_share(text.top1), _nats(text.kl), _share(text.never), first_token(text.first_token)]


def first_token(found: FirstToken) -> str:
    """A median with its limits; `> N` where it lies beyond the last token is told by the reason."""
    if found.value is None:
        return "—" if found.low is None else f"beyond the last [{found.low}, …]"
    return f"{found.value} [{found.low}, {'…' if found.high is None else found.high}]"


def _share(found: Measure) -> str:
    return "—" if found.value is None else with_interval(found.value, found.ci95)


def _nats(found: Measure) -> str:
    if found.value is None:
        return "—"
    limits = "" if found.ci95 is None else f" [{found.ci95[0]:.3g}, {found.ci95[1]:.3g}]"
    return f"{found.value:.3g}{limits}"


def distance_plot(variants: Mapping[str, DistanceResult], title: str) -> str:
    """Two panels over the token's position, a line a variant: top-1 agreement, and continuations that did not part.

    Empty where nothing was measured.
    """
    agreement = {name: _agreement(result.texts[-1]) for name, result in variants.items()}
    equal = {name: _equal(result.texts[-1]) for name, result in variants.items()}
    panels = [("top-1 agreement on the fixed text", agreement), ("greedy continuations that are still equal", equal)]
    panels = [(name, series) for name, series in panels if any(series.values())]
    if not panels:
        return ""
    height = _TOP + len(panels) * _PANEL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        svg_text(_LEFT, 22, title, size=14),
    ]
    for index, (name, series) in enumerate(panels):
        parts += _panel(name, series, _TOP + index * _PANEL)
    for index, variant in enumerate(variants):
        line = _TOP + 20 + 20 * index
        parts.append(svg_line(_WIDTH - _RIGHT + 14, line, _WIDTH - _RIGHT + 38, line, _colour(index), width=2))
        parts.append(svg_text(_WIDTH - _RIGHT + 44, line + 4, variant))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _agreement(text: TextDistance) -> list[tuple[float, float]]:
    return [(math.sqrt(each.first * each.last), each.share) for each in text.agreement]


def _equal(text: TextDistance) -> list[tuple[float, float]]:
    return [(float(token), share) for token, share in enumerate(text.survival, 1)]


def _panel(name: str, series: Mapping[str, Sequence[tuple[float, float]]], top: int) -> list[str]:
    points = [point for line in series.values() for point in line]
    last = max(2.0, max(x for x, _ in points))
    low = math.floor(10 * min(min(share for _, share in points), 0.9)) / 10
    bottom, right = top + _PANEL - 56, _WIDTH - _RIGHT

    def x(position: float) -> float:
        return _LEFT + math.log(position) / math.log(last) * (right - _LEFT)

    def y(share: float) -> float:
        return bottom - (share - low) / (1 - low) * (bottom - top - 14)

    parts = [svg_text(_LEFT, top + 4, name)]
    for tick in (low + (1 - low) * step / 5 for step in range(6)):
        parts.append(svg_line(_LEFT, y(tick), right, y(tick), "#dddddd"))
        parts.append(svg_text(_LEFT - 6, y(tick) + 4, f"{100 * tick:.0f} %", anchor="end"))
    for power in range(math.floor(math.log2(last)) + 1):
        parts.append(svg_text(x(2**power), bottom + 16, str(2**power), anchor="middle"))
    parts.append(svg_text(right, bottom + 32, "token", anchor="end", size=11))
    for index, line in enumerate(series.values()):
        parts += _line(line, x, y, _colour(index))
    return parts


def _line(
    points: Sequence[tuple[float, float]], x: Callable[[float], float], y: Callable[[float], float], colour: str
) -> list[str]:
    path = " ".join(f"{x(at):.1f},{y(share):.1f}" for at, share in points)
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'] if points else []


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]
