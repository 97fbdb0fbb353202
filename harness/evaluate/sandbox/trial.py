"""Tries the programs of the threat table in a sandbox and says what each came to."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import SandboxError
from harness.evaluate.sandbox.session import Sandbox
from harness.evaluate.sandbox.threats import PROMPT, TEST, THREATS, Threat
from harness.evaluate.sandbox.threats.bait import bait
from harness.evaluate.sandbox.types import Job, Limits, Problem, Verdict
from sparsify.progress import Progress

_LINGER = 10.0


@dataclass(frozen=True)
class Trial:
    """What became of one hostile program.

    Attributes:
        threat: The line of the table.
        verdict: What the sandbox said.
    """

    threat: Threat
    verdict: Verdict

    @property
    def outcome(self) -> str:
        """What the tests said, suspicious or not."""
        return self.verdict.outcome or self.verdict.status

    @property
    def held(self) -> bool:
        """Contained or not fooled, by the threat's goal: the tests themselves did not pass it."""
        return self.outcome != "passed" and not self.verdict.passed

    @property
    def as_told(self) -> bool:
        """Whether it ended as the table says, and was marked as the table says."""
        marked = self.verdict.status == "suspicious"
        return self.held and self.outcome in self.threat.ends and marked == self.threat.marked


def strict(limits: Limits, *, wall_seconds: float = 4.0) -> Limits:
    """Limits under which programs that run on and on end soon.

    Args:
        limits: All others stay as they are here.
        wall_seconds: The clock; a busy machine needs more for an attack to run to its end.
    """
    return replace(limits, cpu_seconds=1, wall_seconds=wall_seconds)


def threat_job(threat: Threat, marks: Mapping[str, str]) -> Job:
    """A hostile program as a job, with the names of things of the host filled in."""
    program = threat.source
    for mark, value in marks.items():
        program = program.replace(mark, value)
    return Job(Problem("preflight", PROMPT, TEST, "f"), program)


def run_threats(
    sandbox: Sandbox,
    threats: Sequence[Threat] = THREATS,
    *,
    wall_seconds: float = 20.0,
    progress: Progress | None = None,
) -> list[Trial]:
    """Run hostile programs under strict limits, in the order given.

    Raises:
        SandboxError: The sandbox failed, a program reached the host, or something of one runs on after its verdict.
    """
    # A size that no other run has marks the command lines of this run's processes.
    size = sandbox.limits.file_bytes + os.getpid() % 65_536 + time.monotonic_ns() % 65_536
    marked = sandbox.with_limits(replace(strict(sandbox.limits, wall_seconds=wall_seconds), file_bytes=size))
    with bait() as marks:
        verdicts = marked.run([threat_job(threat, marks) for threat in threats], progress=progress)
    deadline = time.monotonic() + _LINGER
    while left := _processes(f"FSIZE={size}"):
        if time.monotonic() > deadline:
            raise SandboxError(f"sandbox preflight failed: {left} processes run on in {sandbox.info.name}; end them")
        time.sleep(0.05)
    return [Trial(threat, verdict) for threat, verdict in zip(threats, verdicts, strict=True)]


def _processes(mark: str) -> int:
    """How many processes of this machine have a text in their command line."""
    found = 0
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += mark.encode() in entry.read_bytes()
        except OSError:
            continue
    return found
