"""Pictures of docs/, drawn from the committed records of the pocket study; readable on light and on dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.records import SpeedRow, Summary, read_summary
from sparsify.svg import svg_text

_STYLE = (
    "<style>text{font-family:sans-serif;fill:#1f2328}.mark{fill:#0b5cad}.bar,.axis{stroke:#0b5cad;stroke-width:2}"
    ".axis{stroke:#59636e;stroke-width:1}.band{fill:#59636e;fill-opacity:.18}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.mark{fill:#6cb6ff}.bar{stroke:#6cb6ff}"
    ".axis{stroke:#9198a1}.band{fill:#9198a1;fill-opacity:.28}}</style>"
)
_LEFT, _RIGHT, _WIDTH, _ROW, _TOP, _BOTTOM = 250, 120, 760, 24, 44, 40


@dataclass(frozen=True)
class Row:
    """One line of a forest plot; a band is drawn behind it where it has a noise floor."""

    label: str
    value: float
    low: float
    high: float
    said: str
    floor: float | None = None


def pictures(results: Path) -> dict[str, str]:
    """File name to SVG, from `results/pocket`."""
    summary = read_summary(results / "pocket")
    return {"intervals.svg": _recoveries(summary), "noise.svg": _speeds(summary)}


def _recoveries(summary: Summary) -> str:
    rows = []
    for name in ("int8", "sparse70-recovered", "sparse50"):
        variant = summary.variant(name)
        assert variant is not None
        for suite in (*summary.study.suites, "mean"):
            found = variant.recovery[suite]
            if found.value is not None and found.ci95 is not None:
                value, low, high = (100 * x for x in (found.value, *found.ci95))
                rows.append(Row(f"{name}: {suite}", value, low, high, f"{found.n_discordant} of {found.n} differ"))
    title = "Recovery with 95 % intervals, % of the baseline's score (results/pocket)"
    return _forest(title, rows, centre=100.0, ticks=(60, 70, 80, 90, 100, 110))


def _speeds(summary: Summary) -> str:
    def kept(row: SpeedRow) -> bool:
        return row.engine == "torch" and row.verdict != "baseline" and row.ratio is not None and row.ci95 is not None

    rows = []
    for row in filter(kept, summary.speed):
        assert row.ratio is not None and row.ci95 is not None
        label = f"{row.workload}: {row.variant}"
        rows.append(Row(label, row.ratio, *row.ci95, str(row.verdict), row.noise_floor))
    title = "Speed on engine torch against dense, with the panel's noise floor (results/pocket)"
    return _forest(title, rows, centre=1.0, ticks=(0.8, 0.9, 1.0, 1.1, 1.2))


def _forest(title: str, rows: Sequence[Row], *, centre: float, ticks: Sequence[float]) -> str:
    low, high = ticks[0], ticks[-1]
    height = _TOP + _ROW * len(rows) + _BOTTOM
    bottom = height - _BOTTOM

    def at(value: float) -> float:
        return _LEFT + (min(max(value, low), high) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    parts = [svg_text(12, 22, title, size=14)]
    for tick in ticks:
        parts += [_line(at(tick), bottom, at(tick), bottom + 5, "axis")]
        parts.append(svg_text(at(tick), bottom + 20, f"{tick:g}", anchor="middle"))
    parts.append(_line(at(low), bottom, at(high), bottom, "axis"))
    for index, row in enumerate(rows):
        y = _TOP + _ROW * (index + 0.5)
        if row.floor is not None:
            left, right = at(centre - row.floor), at(centre + row.floor)
            parts.append(
                f'<rect class="band" x="{left:.1f}" y="{y - _ROW / 2:.1f}" width="{right - left:.1f}" height="{_ROW}"/>'
            )
        parts.append(svg_text(_LEFT - 12, y + 4, row.label, anchor="end"))
        parts.append(_line(at(row.low), y, at(row.high), y, "bar"))
        parts += [_line(at(end), y - 5, at(end), y + 5, "bar") for end in (row.low, row.high)]
        parts.append(f'<circle class="mark" cx="{at(row.value):.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(svg_text(_WIDTH - _RIGHT + 10, y + 4, row.said, size=11))
    parts.append(_line(at(centre), _TOP - 6, at(centre), bottom, "axis"))
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{title}">\n{_STYLE}\n{inside}\n</svg>\n'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
