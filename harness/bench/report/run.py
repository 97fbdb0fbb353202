"""The benchmark of the HTML report: make a run, build the page, open it, write what was measured."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.priority import priority
from harness.bench.report.browser import Opened, open_page
from harness.bench.report.synthetic import Shape, write_synthetic
from harness.records import write_json_atomic, write_text_atomic
from harness.report.markdown import table

SIZE_LIMIT, OPEN_LIMIT = 15_000_000, 2.0
"""What the report promises for 50 variants and 20,000 rows: bytes, seconds to open."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        shape: of the made-up run.
        times: how often the page is built and opened.
        command: as the user gave it.
        keep: where the page is kept; None keeps none.
    """

    shape: Shape
    times: int
    command: str
    keep: Path | None = None


def run_benchmark(plan: Plan, out: Path) -> dict[str, Any]:
    """Measure, write `results.json` and `results.md`, and return the record.

    Raises:
        ConfigError: Playwright or Chromium is missing.
    """
    with tempfile.TemporaryDirectory(prefix="sparsebench-report-") as name:
        folder = Path(name)
        rows = write_synthetic(folder, plan.shape)
        html, seconds = _build(folder, plan.times)
        page = plan.keep if plan.keep is not None else folder / "recovery.html"
        write_text_atomic(page, html)
        opened, browser = open_page(page, plan.times)
    record = _record(plan, rows, len(html.encode()), seconds, opened, browser)
    write_json_atomic(out / "results.json", record)
    write_text_atomic(out / "results.md", markdown(record))
    return record


def _build(folder: Path, times: int) -> tuple[str, list[float]]:
    from harness.report.html.build import recovery_html
    from harness.report.html.source import open_source

    found, seconds = "", []
    for _ in range(times):
        began = time.monotonic()
        found = recovery_html(open_source(folder))
        seconds.append(time.monotonic() - began)
    return found, seconds


def _record(
    plan: Plan, rows: int, size: int, seconds: list[float], opened: list[Opened], browser: str
) -> dict[str, Any]:
    from harness.fingerprint import environment

    found = environment()
    return {
        "schema_version": 1,
        "command": plan.command,
        "shape": {**asdict(plan.shape), "rows": rows},
        "machine": {key: found[key] for key in ("cpu", "cores", "platform", "python")},
        "browser": f"Chromium {browser}, headless",
        "bytes": size,
        "build_seconds": [round(s, 3) for s in seconds],
        "open_seconds": [round(each.seconds, 3) for each in opened],
        "open_cpu_seconds": [round(each.cpu, 3) for each in opened],
        "first_paint_seconds": [None if each.painted is None else round(each.painted, 3) for each in opened],
        "sample_seconds": [round(each.sample, 3) for each in opened],
        "requests": sorted({url for each in opened for url in each.requests}),
        "complaints": sorted({text for each in opened for text in each.complaints}),
        "load_average": round(os.getloadavg()[0], 2),
        "priority": priority(),
        "within_limits": size < SIZE_LIMIT and statistics.median(each.seconds for each in opened) < OPEN_LIMIT,
    }


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    shape = record["shape"]

    def spread(name: str) -> str:
        values = [value for value in record[name] if value is not None]
        return f"{statistics.median(values):.2f} s [{min(values):.2f}, {max(values):.2f}]" if values else "—"

    rows = [
        ["size of the file", f"{record['bytes'] / 1e6:.2f} MB", f"{SIZE_LIMIT / 1e6:.0f} MB"],
        ["build", spread("build_seconds"), "—"],
        ["open, until the first items are shown", spread("open_seconds"), f"{OPEN_LIMIT:.0f} s"],
        ["the same, processor time of the page's main thread", spread("open_cpu_seconds"), "—"],
        ["open, until the first contentful paint", spread("first_paint_seconds"), "—"],
        ["open a sample, both answers shown", spread("sample_seconds"), "—"],
        ["requests beside the file", str(len(record["requests"])), "0"],
        ["console messages and errors", str(len(record["complaints"])), "0"],
    ]
    machine = record["machine"]
    lines = [
        "# The HTML report: size and time",
        "",
        f"A made-up run of {shape['variants']} variants and {shape['rows']:,} sample rows ({shape['words']} words a "
        f"mean answer, {shape['blocks']} blocks of 7 linears), built and opened {len(record['open_seconds'])} times; "
        f"median [least, most]. {record['browser']}, on {machine['cpu']}, {machine['cores']} cores. Load average "
        f"{record['load_average']}: other work makes times by the clock longer, niceness {record['priority']['nice']} "
        "makes up for some of it (Chromium gives its pages a niceness of its own, 0 or more).",
        "",
        *table(["what", "measured", "limit"], rows),
        "",
        f"Within the limits: {'yes' if record['within_limits'] else 'no'}.",
        "",
        "```sh",
        record["command"],
        "```",
        "",
    ]
    return "\n".join(lines)
