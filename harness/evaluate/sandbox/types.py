"""The nouns of code execution: problem, job, limits, verdict, and what a sandbox says of itself."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


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
            f"NPROC={self.processes},NOFILE=64,CORE=0"
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
        status: `passed`, `failed_assert`, `error:<Type>`, `syntax_error`, `timeout`, `oom` or `killed`.
        detail: The message of the exception, at most 200 printable ASCII characters; untrusted text.
        seconds: Wall time from the start of its sandbox to the verdict.
    """

    status: str
    detail: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.status == "passed"
