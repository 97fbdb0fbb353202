"""The whole benchmark: what is missing is measured, then results.json, results.md and the rooflines are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.engines.arms import Group, Shape, Workload
from harness.bench.engines.claims import check_claims
from harness.bench.engines.numbers import Panel, panels_of
from harness.bench.engines.plot import roofline
from harness.bench.engines.render import markdown, plots
from harness.bench.engines.session import Session, Settings
from harness.bench.sparsify.claims import as_json
from harness.bench.sparsify.journal import Journal
from harness.progress import Phase
from harness.records import write_json_atomic

JOURNAL = "turns.jsonl"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What the command line asks for.

    Attributes:
        shapes, groups, threads, workloads: What is measured.
        out: Folder of results.
        work: Folder of model files for the peers, logs and the flush file.
        peers: Folder of the peers' environments; None leaves them out.
        settings: Of all panels.
        command: As it was typed, for the results.
        again: Measure what is in the journal too; the last run of a panel counts.
    """

    shapes: tuple[Shape, ...]
    groups: tuple[Group, ...]
    threads: tuple[int, ...]
    workloads: tuple[Workload, ...]
    out: Path
    work: Path
    peers: Path | None
    settings: Settings
    command: str
    again: bool = False


def sessions(plan: Plan, journal: Journal) -> list[tuple[Session, list[Workload]]]:
    """Every group to open, with the workloads that are missing; one thread before two, the first shape first."""
    found = []
    for shape in plan.shapes:
        for threads in plan.threads:
            for group in plan.groups:
                session = Session(shape, group, threads, plan.settings, journal, plan.work, plan.peers)
                possible = [each for each in plan.workloads if group.whole or each.kind == "decode"]
                missing = possible if plan.again else session.missing(possible)
                if missing:
                    found.append((session, missing))
    return found


def run_benchmark(plan: Plan, *, measure: bool = True, quiet: bool = False) -> dict[str, Any]:
    """Measure what is missing unless `measure` is off, then write the results; they come back as plain JSON."""
    journal = Journal(plan.out / JOURNAL)
    if measure:
        todo = sessions(plan, journal)
        total = sum(len(workloads) for _, workloads in todo)
        with Phase("engines", total, quiet=quiet) as phase:
            done = 0
            for session, workloads in todo:
                _run(session, workloads, phase, done, total)
                done += len(workloads)
    return write_results(panels_of(journal.lines), plan)


def _run(session: Session, workloads: Sequence[Workload], phase: Phase, done: int, total: int) -> None:
    """One session; its panels count as they finish."""
    finished = 0

    def report(spent: float, budget: float, note: str) -> None:
        nonlocal finished
        part = min(0.99, spent / budget)
        phase.update(done + min(finished + part, len(workloads)), total, note)

    for _ in session.run(workloads, report):
        finished += 1
        phase.say(f"{session.shape.name} {session.group.name}, {session.threads} thread(s): {finished} done")


def write_results(panels: Sequence[Panel], plan: Plan) -> dict[str, Any]:
    """Write results.json, results.md and the rooflines."""
    plan.out.mkdir(parents=True, exist_ok=True)
    claims = check_claims(panels)
    for name, (title, drawn) in plots(panels).items():
        (plan.out / name).write_text(roofline(drawn, title), "utf-8")
    (plan.out / "results.md").write_text(markdown(panels, claims, plan.command), "utf-8")
    results = {
        "schema_version": SCHEMA_VERSION,
        "command": plan.command,
        "claims": as_json(claims),
        "panels": [
            {
                **{name: value for name, value in panel.line.items() if name not in ("kind", "told")},
                "bandwidth": panel.bandwidth,
                "bandwidth_of": panel.best,
                "reader": panel.reader,
                "moved": panel.moved,
                "rows": [asdict(row) for row in panel.rows],
            }
            for panel in panels
        ],
    }
    write_json_atomic(plan.out / "results.json", results)
    return results
