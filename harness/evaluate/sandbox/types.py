"""The nouns of code execution: problem, job, limits, verdict, and what a sandbox says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

MIB = 2**20

Kind = Literal[
    "passed",
    "failed_assert",
    "error",
    "syntax_error",
    "timeout",
    "oom",
    "killed",
    "suspicious",
    "extract_failed",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_of(status: str) -> Kind:
    """The kind of a status: `error` for every `error:<Type>`, the status itself otherwise.

    There is no kind for a sandbox that fails: that raises `SandboxError`, and nothing is scored.

    Raises:
        ValueError: No verdict has this status.
    """
    for kind in KINDS:
        if status == kind or (kind == "error" and status.startswith("error:")):
            return kind
    raise ValueError(f"no verdict has the status {status!r}")


@dataclass(frozen=True)
class Problem:
    """A programming problem in HumanEval's form.

    Attributes:
        task_id: Name for messages.
        prompt: The source that the model was shown; its helpers and imports are defined for the test, too.
        test: Source that defines `check(candidate)`.
        entry_point: Name of the function under test.
    """

    task_id: str
    prompt: str
    test: str
    entry_point: str


@dataclass(frozen=True)
class Job:
    """One program to judge: the whole source, prompt included."""

    problem: Problem
    program: str


@dataclass(frozen=True)
class Limits:
    """What one program may use; each limit is only ever lowered.

    Attributes:
        wall_seconds: From the program's start to the verdict.
        cpu_seconds: Processor time of each process.
        memory_bytes: Address space of each process.
        tmp_bytes: Size of the private `/tmp`.
        file_bytes: Size of one file.
        processes: Processes and threads at a time, the sandbox's own included.
        start_seconds: How long the sandbox itself may take to start.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 5
    memory_bytes: int = 512 * MIB
    tmp_bytes: int = 32 * MIB
    file_bytes: int = 16 * MIB
    processes: int = 16
    start_seconds: float = 60.0

    def as_argument(self) -> str:
        """The limits as the sandboxed processes read them, `NAME=value` by `RLIMIT_NAME`."""
        return (
            f"CPU={self.cpu_seconds},AS={self.memory_bytes},FSIZE={self.file_bytes},"
            f"NPROC={self.processes},NOFILE=64,CORE=0,MEMLOCK={MIB}"
        )


@dataclass(frozen=True)
class SandboxInfo:
    """Which sandbox runs the programs.

    Attributes:
        name: `bwrap`, `docker`, `podman` or `unshare`.
        detail: Version, interpreter and user, for the record.
    """

    name: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What became of one program.

    Attributes:
        status: `passed`, `failed_assert`, `error:<Type>`, `syntax_error`, `timeout`, `oom`, `killed` or `suspicious`:
            it did what only a cheat does, and counts as not passed whatever its tests said.
        detail: The message of the exception, or what was suspicious; at most 200 printable ASCII characters, untrusted.
        seconds: Wall time from the start of its sandbox to the verdict.
        outcome: What the tests of a suspicious program said, a status; empty for all others.
    """

    status: str
    detail: str
    seconds: float
    outcome: str = ""

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.status == "passed"
