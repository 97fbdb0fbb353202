"""Speed results for the terminal, as rich tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.bench.clock import Ratio
from harness.bench.decide import floor_of
from harness.bench.spec import BASELINE_REASON, PanelRow, PanelSpec

if TYPE_CHECKING:
    from rich.table import Table

_SHARED = "Ratio: baseline time / variant time, medians of block-adjusted times, 95 % interval; above 1 is faster."


def panel_table(spec: PanelSpec, rows: Sequence[PanelRow]) -> Table:
    """A panel's rows: ratio, verdict, and tokens/s of this machine."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    sweep = spec.workload == "throughput"
    notes = [_SHARED, *_floors(rows)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    for title in ("model", *(["batch"] if sweep else []), "ratio", "verdict", "tokens/s", "peak MB", "weights MB"):
        table.add_column(title, justify="left" if title in ("model", "verdict") else "right", overflow="fold")
    for row in rows:
        name = row.variant if row.engine == spec.engine else f"{row.variant} on {row.engine}"
        if row.reason and row.verdict not in ("baseline", "not decided"):
            notes.append(f"{name}{f', batch {row.batch}' if sweep else ''}: {row.reason}")
        cells = [name, *([str(row.batch)] if sweep else []), _ratio(row), str(row.verdict)]
        cells += [_number(row.tokens_per_s), _mega(row.peak_device or row.peak_rss), _mega(row.bytes)]
        table.add_row(*(Text(cell) for cell in cells))
    undecided = {row.reason for row in rows if row.verdict == "not decided"} - {None, BASELINE_REASON}
    notes += sorted(str(reason) for reason in undecided)
    energies = {row.energy_j_per_token for row in rows} - {None}
    notes.append("energy: unavailable" if energies <= {"unavailable"} else f"J/token: {_energies(rows)}")
    table.caption = Text("\n".join(notes))
    return table


def serve_table(summary: Mapping[str, Any]) -> Table:
    """Latencies in milliseconds, and what was answered."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    for title in ("ms", "n", "mean", "p50", "p90", "p95", "p99"):
        table.add_column(title, justify="left" if title == "ms" else "right")
    for name in ("ttft", "tpot", "itl", "e2e"):
        found = summary[name]
        values = [found["mean"], *(found[p]["value"] for p in ("p50", "p90", "p95", "p99"))]
        table.add_row(name, str(found["n"]), *("—" if v is None else f"{1000 * v:.2f}" for v in values))
    statuses = ", ".join(f"{count} {status}" for status, count in summary["statuses"].items())
    lines = [
        f"{summary['requests']} requests ({statuses}) in {summary['seconds']:.1f} s: "
        f"{_number(summary['requests_per_s'])} requests/s, {_number(summary['output_tokens_per_s'])} tokens/s",
        "—: too few values for that percentile (p50 takes 10, p90 50, p95 100, p99 500)",
    ]
    if summary["goodput"]:
        good = summary["goodput"]
        lines.append(f"goodput: {good['per_second']:.2f} requests/s, {100 * good['share']:.1f} % of those asked")
    if not summary["valid"]:
        lines.append("NOT VALID: " + "; ".join(summary["invalid_because"]))
    table.caption = Text("\n".join(lines))
    return table


def _floors(rows: Sequence[PanelRow]) -> list[str]:
    floors = {}
    for row in rows:
        if row.noise_floor and row.noise_floor["ci95"]:
            low, high = row.noise_floor["ci95"]
            floors[row.batch] = floor_of(Ratio(row.noise_floor["ratio"], (low, high)))
    shown = ", ".join(
        f"{100 * floor:.1f} %{f' at batch {batch}' if len(floors) > 1 else ''}" for batch, floor in floors.items()
    )
    return [f"Noise floor (the baseline against itself): {shown}."] if floors else []


def _ratio(row: PanelRow) -> str:
    if row.ratio is None:
        return "—"
    return f"{row.ratio:.3f}" if row.ci95 is None else f"{row.ratio:.3f} [{row.ci95[0]:.3f}, {row.ci95[1]:.3f}]"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _mega(value: int | None) -> str:
    return "—" if value is None else f"{value / 1e6:,.1f}"


def _energies(rows: Sequence[PanelRow]) -> str:
    known = [(row.variant, row.energy_j_per_token) for row in rows if isinstance(row.energy_j_per_token, float)]
    return ", ".join(f"{name} {joules:.3g}" for name, joules in known)
