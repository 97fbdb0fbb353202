"""The table of a variant's linears as a picture and as Markdown: sparsity and output error, block by block."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from harness.records import write_text_atomic
from harness.report.markdown import escape as escape_markdown
from harness.report.markdown import table

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP = 760, 190, 64, 170, 34
_NUMBER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Linear:
    """One linear of a pruned variant."""

    block: int
    kind: str
    sparsity: float
    error: float | None
    damping: float | None
    seconds: float | None
    bytes: int | None


def read_linears(variant: Path) -> list[Linear]:
    """The linears that the last prune stage of a variant names in variant.json; none where it has no such stage."""
    path = variant / "variant.json"
    if not path.is_file():
        return []
    stages = json.loads(path.read_text(encoding="utf-8")).get("stages") or []
    found: dict[str, Any] = next((stage["linears"] for stage in reversed(stages) if stage.get("kind") == "prune"), {})
    return [_linear(name, row) for name, row in found.items() if "sparsity" in row]


def linears_svg(linears: Sequence[Linear], title: str) -> str:
    """Two panels over the blocks, sparsity and relative output error, a line for each kind of linear."""
    kinds = list(dict.fromkeys(linear.kind for linear in linears))
    panels = [("share of zeros", {k: _points(linears, k, "sparsity") for k in kinds}, False)]
    errors = {k: _points(linears, k, "error") for k in kinds}
    if any(errors.values()):
        panels.append(("relative output error", errors, True))
    legend = max(len(kinds) * 16 + _TOP, len(panels) * _HEIGHT)
    height = max(legend, len(panels) * _HEIGHT) + 40
    body = [f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(title)}</text>']
    last = max((linear.block for linear in linears), default=0)
    for index, (name, series, log) in enumerate(panels):
        body += _panel(name, series, log=log, top=_TOP + index * _HEIGHT, last=last)
    for index, kind in enumerate(kinds):
        y = _TOP + 10 + 16 * index
        body.append(f'<rect x="{_WIDTH - _RIGHT + 14}" y="{y - 8}" width="10" height="10" fill="{_colour(index)}"/>')
        body.append(f'<text x="{_WIDTH - _RIGHT + 30}" y="{y + 1}">{escape(kind)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11" fill="#333"><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(body)
        + "</svg>\n"
    )


def linears_markdown(variants: Mapping[str, Sequence[Linear]]) -> str:
    """The tables of all variants, averaged over the kinds of linear in each block's row."""
    lines = ["# Linears", ""]
    for name, linears in variants.items():
        lines += [f"## {escape_markdown(name)}", "", f"![linears of {escape_markdown(name)}](linears/{name}.svg)", ""]
        rows = [
            [
                str(linear.block),
                escape_markdown(linear.kind),
                f"{100 * linear.sparsity:.2f}",
                _shown(linear.error, ".4f"),
                _shown(linear.damping, "g"),
                _shown(linear.seconds, ".2f"),
                _shown(None if linear.bytes is None else linear.bytes / 1e6, ".0f"),
            ]
            for linear in linears
        ]
        head = ["block", "linear", "zeros (%)", "relative output error", "damping", "seconds", "memory (MB)"]
        lines += [*table(head, rows, left=2), ""]
    return "\n".join(lines)


def write_linears(variants: Mapping[str, Path], out: Path) -> None:
    """Write `linears.md` and a picture of each variant that has linears to show; nothing where none has."""
    found = {name: linears for name, path in variants.items() if (linears := read_linears(path))}
    if not found:
        return
    (out / "linears").mkdir(exist_ok=True)
    for name, linears in found.items():
        write_text_atomic(out / "linears" / f"{name}.svg", linears_svg(linears, name))
    write_text_atomic(out / "linears.md", linears_markdown(found))


def _linear(name: str, row: Mapping[str, Any]) -> Linear:
    number = _NUMBER.search(name)
    block, kind = (int(number[1]), name[number.end() :]) if number else (0, name)
    # Experts of one matrix are one kind.
    kind = re.sub(r"experts\.\d+\.", "experts.", kind)
    memory = row.get("device_bytes") or row.get("host_bytes")
    return Linear(
        block,
        kind,
        float(row["sparsity"]),
        row.get("relative_error"),
        row.get("damping"),
        row.get("seconds"),
        None if memory is None else int(memory),
    )


def _points(linears: Sequence[Linear], kind: str, field: str) -> list[tuple[int, float]]:
    points = [(linear.block, getattr(linear, field)) for linear in linears if linear.kind == kind]
    return [(block, float(value)) for block, value in points if value is not None and math.isfinite(value)]


def _panel(name: str, series: Mapping[str, list[tuple[int, float]]], *, log: bool, top: int, last: int) -> list[str]:
    values = [value for points in series.values() for _, value in points if value > 0 or not log]
    low, high = (min(values, default=0.0), max(values, default=1.0)) if log else (0.0, 1.0)
    low, high = (
        (low, high) if not log else (10 ** math.floor(math.log10(low or 1e-6)), 10 ** math.ceil(math.log10(high or 1)))
    )
    high = high if high > low else low * 10
    bottom, plot = top + _HEIGHT - 46, _HEIGHT - 60

    def y(value: float) -> float:
        share = math.log(max(value, low) / low) / math.log(high / low) if log else (value - low) / (high - low)
        return bottom - share * plot

    def x(block: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (block / last if last else 0.5)

    ticks = [low * 10**step for step in range(round(math.log10(high / low)) + 1)] if log else [0, 0.25, 0.5, 0.75, 1]
    parts = [f'<text x="{_LEFT}" y="{top + 6}">{escape(name)}{", logarithmic" if log else ""}</text>']
    for tick in ticks:
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for block in range(0, last + 1, max(1, math.ceil((last + 1) / 16))):
        parts.append(f'<text x="{x(block):.1f}" y="{bottom + 14}" text-anchor="middle">{block}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{bottom + 26}" text-anchor="end">block</text>')
    for index, (kind, points) in enumerate(series.items()):
        colour = _colour(index)
        line = " ".join(f"{x(block):.1f},{y(value):.1f}" for block, value in sorted(points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5" opacity="0.8"/>')
        for block, value in points:
            tip = escape(f"{kind}, block {block}: {value:.4g}")
            parts.append(
                f'<circle cx="{x(block):.1f}" cy="{y(value):.1f}" r="2.5" fill="{colour}"><title>{tip}</title></circle>'
            )
    return parts


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _shown(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)
