"""The benchmark of the gate: a made-up run, each command in a process of its own, as CI starts it."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.report.synthetic import Shape, write_synthetic
from harness.errors import InfrastructureError
from harness.records import write_json_atomic, write_text_atomic
from harness.report.markdown import table
from sparsify.progress import NullProgress, Progress

_CLI = ("-m", "harness.cli")
_PASSED = 0
Found = tuple[list[float], list[float], str]
"""Seconds by the clock and of the processor, each start, and what came out."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        shape: of the made-up run.
        times: how often each command is started.
        commits: of the history that is checked.
        command: as the user gave it.
    """

    shape: Shape
    times: int
    commits: int
    command: str


@dataclass(frozen=True, slots=True)
class Timed:
    """One command, started several times.

    Attributes:
        what: it does.
        seconds, cpu_seconds: by the clock and of the processor, each start.
        note: what it was given or what came out.
    """

    what: str
    seconds: list[float]
    cpu_seconds: list[float]
    note: str = ""


def run_benchmark(plan: Plan, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Measure, write `results.json` and `results.md`, and return the record.

    Raises:
        InfrastructureError: A command that must pass did not.
    """
    progress = progress or NullProgress()
    with tempfile.TemporaryDirectory(prefix="sparsebench-gate-") as name:
        folder = Path(name)
        (folder / "run").mkdir()
        rows = write_synthetic(folder / "run", plan.shape)
        timed = []
        for at, (what, step) in enumerate(_STEPS.items()):
            progress.update(at, len(_STEPS), what)
            timed.append(Timed(what, *step(folder, plan)))
        progress.update(len(_STEPS), len(_STEPS))
        size = (folder / "history.jsonl").stat().st_size
    record = _record(plan, rows, size, timed)
    write_json_atomic(out / "results.json", record)
    write_text_atomic(out / "results.md", markdown(record))
    return record


def _gate(folder: Path, plan: Plan) -> Found:
    junit = folder / "gate.xml"
    argv = [*_CLI, "gate", str(folder / "run"), "--against", str(folder / "run"), "--junit", str(junit)]
    seconds, cpu = _times(argv, plan.times)
    tests = len(ElementTree.parse(junit).getroot().findall(".//testcase"))
    return seconds, cpu, f"{tests} checks, all passed"


def _plugin(folder: Path, plan: Plan) -> Found:
    argv = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--sparsebench-gate={folder / 'run'}"]
    argv += [f"--sparsebench-against={folder / 'run'}", f"--rootdir={folder}", str(folder)]
    seconds, cpu = _times(argv, plan.times)
    return seconds, cpu, ""


def _append(folder: Path, plan: Plan) -> Found:
    seconds, cpu = [], []
    for commit in range(plan.commits):
        when = f"2026-01-01T{commit // 60:02d}:{commit % 60:02d}:00Z"
        argv = [*_CLI, "history", "append", str(folder / "history.jsonl"), str(folder / "run")]
        found = _times([*argv, "--commit", f"{commit:040x}", "--time", when], 1)
        seconds += found[0]
        cpu += found[1]
    return seconds, cpu, f"{plan.commits} commits"


def _check(folder: Path, plan: Plan) -> Found:
    seconds, cpu = _times([*_CLI, "history", "check", str(folder / "history.jsonl")], plan.times)
    return seconds, cpu, "no step, as there is none"


def _plot(folder: Path, plan: Plan) -> Found:
    argv = [*_CLI, "history", "plot", str(folder / "history.jsonl"), "--out", str(folder / "history.svg")]
    return *_times(argv, plan.times), ""


_STEPS: dict[str, Callable[[Path, Plan], Found]] = {
    "`gate RUN --against RUN --junit FILE`": _gate,
    "`pytest --sparsebench-gate=RUN --sparsebench-against=RUN`": _plugin,
    "`history append FILE RUN`": _append,
    "`history check FILE`": _check,
    "`history plot FILE --out SVG`": _plot,
}


def _times(argv: Sequence[str], times: int) -> tuple[list[float], list[float]]:
    seconds, cpu = [], []
    for _ in range(times):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False)
        seconds.append(time.monotonic() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if done.returncode != _PASSED:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise InfrastructureError(f"{' '.join(argv[:4])} ended with {done.returncode}: {said}")
    return seconds, cpu


def _record(plan: Plan, rows: int, size: int, timed: Sequence[Timed]) -> dict[str, Any]:
    from harness.fingerprint import environment

    found = environment()
    return {
        "schema_version": 1,
        "command": plan.command,
        "shape": {**asdict(plan.shape), "rows": rows},
        "machine": {key: found[key] for key in ("cpu", "cores", "platform", "python")},
        "load_average": round(os.getloadavg()[0], 2),
        "history_bytes": size,
        "commits": plan.commits,
        "timed": [asdict(each) for each in timed],
    }


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    shape, machine = record["shape"], record["machine"]

    def spread(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"

    rows = [
        [each["what"], spread(each["seconds"]), spread(each["cpu_seconds"]), each["note"]] for each in record["timed"]
    ]
    lines = [
        "# The gate and the history: time",
        "",
        f"A made-up run of {shape['variants']} variants and {shape['rows']:,} sample rows; each command in a process "
        f"of its own, as CI starts it; median [least, most]. The history of {record['commits']} commits is "
        f"{record['history_bytes'] / 1e6:.1f} MB. {machine['cpu']}, {machine['cores']} cores, load average "
        f"{record['load_average']}.",
        "",
        *table(["command", "seconds", "of the processor", ""], rows, left=1),
        "",
        "```sh",
        record["command"],
        "```",
        "",
    ]
    return "\n".join(lines)
