"""The whole benchmark: what is missing is measured, sandbox by sandbox, then the results are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.bench.machine import describe_machine
from harness.bench.sandbox.programs import Reference, references
from harness.bench.sandbox.render import markdown
from harness.bench.sandbox.speed import measure_speed
from harness.bench.sparsify.journal import Journal
from harness.errors import SandboxUnavailable
from harness.evaluate.sandbox import Job, Problem, Sandbox, open_sandbox
from harness.evaluate.sandbox.threats import LEGAL, PROMPT, TEST, THREATS
from harness.evaluate.sandbox.trial import run_threats
from harness.evaluate.sandbox.types import kind_of
from harness.progress import Phase
from harness.records import write_json_atomic, write_text_atomic
from sparsify.files import sha256_json
from sparsify.progress import Progress

SCHEMA_VERSION = 1
JOURNAL = "parts.jsonl"
BACKENDS = ("bwrap", "docker", "podman", "unshare")

Part = Callable[[Sandbox, Progress], dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What the command line asks for.

    Attributes:
        backends: Which sandboxes; those that do not work here are reported as such.
        out: Folder of results and raw lines.
        data: Folder of the real data sets; None leaves out HumanEval+ and MBPP.
        workers: Honest programs at a time.
        rounds: Rounds of the speed measurement; 0 leaves it out.
        command: As it was typed, for the results.
    """

    backends: tuple[str, ...]
    out: Path
    data: Path | None
    workers: int
    rounds: int
    command: str


def run_benchmark(plan: Plan, *, quiet: bool = False) -> dict[str, Any]:
    """Measure what is missing and write the results; they come back as plain JSON.

    Raises:
        ConfigError: A data file is damaged.
        SandboxUnavailable: None of the sandboxes works here.
        SandboxError: A sandbox failed, or a program reached the host.
    """
    sandboxes, absent = _open(plan)
    sets = references(plan.data)
    parts: dict[str, Part] = {"hostile": _hostile, "legal": _legal}
    parts |= {each.name: partial(_solutions, each, plan.workers) for each in sets}
    pieces: list[tuple[str, str, Callable[[Progress], dict[str, Any]]]] = [
        (name, title, partial(part, sandbox)) for name, sandbox in sandboxes.items() for title, part in parts.items()
    ]
    if plan.rounds:
        pieces.append(("", "speed", partial(_speed, sandboxes, sets[0].jobs, plan.rounds)))
    journal = Journal(plan.out / JOURNAL)
    key = _key(plan, sandboxes, sets)
    found: dict[str, dict[str, Any]] = {name: {} for name in ("", *sandboxes)}
    with Phase("sandbox", len(pieces), quiet=quiet) as phase:
        for done, (name, title, measure) in enumerate(pieces):
            which = {"sandbox": name, "part": title, "key": key}
            if journal.find(**which) is None:
                within = _Within(phase, done, len(pieces), f"{name} {title}".strip())
                journal.add({**which, "machine": describe_machine(), "result": measure(within)})
            found[name][title] = (journal.find(**which) or {})["result"]
            phase.update(done + 1, len(pieces), f"{name} {title}".strip())
    results = {
        "schema_version": SCHEMA_VERSION,
        "command": plan.command,
        "machine": describe_machine(),
        "workers": plan.workers,
        "threats": len(THREATS),
        "sandboxes": {name: _summary(sandbox, found[name], sets) for name, sandbox in sandboxes.items()},
        "absent": absent,
        "speed": found[""].get("speed"),
    }
    write_json_atomic(plan.out / "results.json", results)
    write_text_atomic(plan.out / "results.md", markdown(results))
    return results


@dataclass(frozen=True)
class _Within:
    """Passes a part's progress on as a share of the whole."""

    phase: Phase
    done: int
    total: int
    note: str

    def update(self, done: float, total: float, note: str = "") -> None:
        self.phase.update(self.done + done / (total or 1.0), self.total, self.note)


def _open(plan: Plan) -> tuple[dict[str, Sandbox], dict[str, str]]:
    sandboxes, absent = {}, {}
    for name in plan.backends:
        try:
            sandboxes[name] = open_sandbox(name)
        except SandboxUnavailable as error:
            absent[name] = str(error)
    if not sandboxes:
        raise SandboxUnavailable(f"none of {', '.join(plan.backends)} works here; see `sparsebench doctor`")
    return sandboxes, absent


def _sources() -> dict[str, str]:
    """Texts of the sandbox's own modules: a change makes old measurements worthless."""
    folder = Path(__file__).parents[2] / "evaluate" / "sandbox"
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in sorted(folder.rglob("*.py"))}


def _key(plan: Plan, sandboxes: Mapping[str, Sandbox], sets: Sequence[Reference]) -> str:
    """What the measurements follow from, as a hash."""
    programs = {each.name: sha256_json([(job.problem.test, job.program) for job in each.jobs]) for each in sets}
    infos = [asdict(sandbox.info) for sandbox in sandboxes.values()]
    return sha256_json([infos, plan.workers, plan.rounds, programs, _sources()])


def _hostile(sandbox: Sandbox, progress: Progress) -> dict[str, Any]:
    trials = run_threats(sandbox, progress=progress)
    return {
        "trials": [
            {
                "name": trial.threat.name,
                "goal": trial.threat.goal,
                "status": trial.verdict.status,
                "outcome": trial.outcome,
                "held": trial.held,
                "as_told": trial.as_told,
            }
            for trial in trials
        ]
    }


def _legal(sandbox: Sandbox, progress: Progress) -> dict[str, Any]:
    problem = Problem("legal", PROMPT, TEST, "f")
    verdicts = sandbox.run([Job(problem, program) for program in LEGAL.values()], progress=progress)
    return {"statuses": {name: verdict.status for name, verdict in zip(LEGAL, verdicts, strict=True)}}


def _solutions(reference: Reference, workers: int, sandbox: Sandbox, progress: Progress) -> dict[str, Any]:
    here = Sandbox(sandbox.backend, sandbox.info, reference.limits, workers)
    verdicts = here.run(reference.jobs, progress=progress)
    failed = [
        {"task": job.problem.task_id, "status": verdict.status, "detail": verdict.detail}
        for job, verdict in zip(reference.jobs, verdicts, strict=True)
        if not verdict.passed
    ]
    return {
        "n": len(verdicts),
        "passed": len(verdicts) - len(failed),
        "kinds": dict(Counter(kind_of(verdict.status) for verdict in verdicts)),
        "slowest_seconds": max(verdict.seconds for verdict in verdicts),
        "limits": asdict(reference.limits),
        "failed": failed,
    }


def _speed(sandboxes: Mapping[str, Sandbox], jobs: Sequence[Job], rounds: int, progress: Progress) -> dict[str, Any]:
    return measure_speed(sandboxes, jobs, rounds=rounds, progress=progress)


def _summary(sandbox: Sandbox, parts: Mapping[str, Any], sets: Sequence[Reference]) -> dict[str, Any]:
    trials = parts["hostile"]["trials"]
    return {
        "detail": sandbox.info.detail,
        "contained": _share(trials, "machine"),
        "not_fooled": _share(trials, "verdict"),
        "as_told": [sum(trial["as_told"] for trial in trials), len(trials)],
        "trials": trials,
        "legal": parts["legal"]["statuses"],
        "references": {each.name: parts[each.name] for each in sets},
    }


def _share(trials: Sequence[Mapping[str, Any]], goal: str) -> list[int]:
    of_goal = [trial for trial in trials if trial["goal"] == goal]
    return [sum(trial["held"] for trial in of_goal), len(of_goal)]


def holds(results: Mapping[str, Any]) -> bool:
    """Whether every hostile program was held, and every honest one of HumanEval and of ours passed, everywhere."""
    return all(
        each["contained"][0] == each["contained"][1]
        and each["not_fooled"][0] == each["not_fooled"][1]
        and set(each["legal"].values()) == {"passed"}
        and each["references"]["humaneval"]["passed"] == each["references"]["humaneval"]["n"]
        for each in results["sandboxes"].values()
    )
