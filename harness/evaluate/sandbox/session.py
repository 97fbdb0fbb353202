"""Runs programs: one fresh sandbox for each, one judge in a sandbox of its own for many, the harness between them.

The harness holds neither tests nor programs in a form that runs: it starts the two processes, carries frames from one
to the other without looking into the candidate's, watches the clock and reads the judge's verdict.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from harness.errors import ConfigError, SandboxError
from harness.evaluate.sandbox.backends import Backend
from harness.evaluate.sandbox.channel import ChannelClosed, ChannelMisuse, ChannelTimeout
from harness.evaluate.sandbox.process import Guest
from harness.evaluate.sandbox.protocol import TICKET, WireError, decode, encode
from harness.evaluate.sandbox.types import Job, Limits, SandboxInfo, Verdict
from sparsify.progress import NullProgress, Progress

_SIGKILL, _SIGXCPU = 9, 24
_GRACE = 2.0


def clean(text: str) -> str:
    """Untrusted text as at most 200 printable ASCII characters on one line."""
    plain = " ".join(text.split()).encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)[:200]


_FORGED = "writes to the result channel"


class _Abandoned(Exception):
    """A program ended without a verdict of the judge."""

    def __init__(self, status: str, signs: Sequence[str] = ()) -> None:
        super().__init__(status)
        self.status = status
        self.signs = list(signs)


class _Slot:
    """One judge and the programs that it judges in turn; used by one thread only."""

    def __init__(self, backend: Backend, limits: Limits) -> None:
        self._backend = backend
        self._limits = limits
        self._judge: Guest | None = None

    def close(self) -> None:
        if self._judge is not None:
            self._judge.close()
        self._judge = None

    def run(self, job: Job) -> Verdict:
        """Judge one program.

        Raises:
            SandboxError: The sandbox does not start or the judge dies.
            ConfigError: The problem's own test cannot be run.
        """
        if self._judge is None:
            # Kernels before 5.14 count all processes of the user, and the judge must be able to fork.
            limits = replace(self._limits, processes=1024, memory_bytes=2 * self._limits.memory_bytes)
            self._judge = Guest(self._backend, "judge", limits)
        start = time.monotonic()
        candidate = Guest(self._backend, "candidate", self._limits)
        try:
            status, detail, signs = self._relay(self._judge, candidate, job)
            if candidate.channel.pending():
                signs.append(_FORGED)
        except _Abandoned as abandoned:
            status, detail, signs = abandoned.status, "", abandoned.signs
        finally:
            candidate.close()
        if status == "bad_problem":
            raise ConfigError(f"problem {job.problem.task_id}: {clean(detail)}; correct or remove it")
        return _verdict(status, detail, signs, time.monotonic() - start)

    def _relay(self, judge: Guest, candidate: Guest, job: Job) -> tuple[str, str, list[str]]:
        deadline = time.monotonic() + self._limits.wall_seconds
        problem = job.problem
        request = encode((problem.prompt, problem.test, problem.entry_point, job.program))
        try:
            judge.channel.send(b"J" + request, deadline)
            frame = judge.channel.receive(deadline)
            while frame[:1] == b"C":
                judge.channel.send(b"R" + self._ask(judge, candidate, frame[1:], deadline), deadline)
                frame = judge.channel.receive(deadline)
            return _read_verdict(frame)
        except ChannelTimeout:  # the test itself runs on and on with what the candidate answered
            self.close()
            raise _Abandoned("timeout") from None
        except (ChannelMisuse, WireError):
            self.close()
            raise _Abandoned("error:JudgeDied") from None
        except ChannelClosed:
            self.close()
            raise SandboxError("sandbox: the judge process died; is the machine out of memory?") from None

    def _ask(self, judge: Guest, candidate: Guest, request: bytes, deadline: float) -> bytes:
        """Pass one request to the candidate.

        Raises:
            _Abandoned: No answer came; the judge has been told and is ready for the next job.
        """
        ticket = os.urandom(TICKET)
        signs = []
        try:
            candidate.channel.send(ticket + request, deadline)
            answer = candidate.channel.receive(deadline)
            if answer[:TICKET] == ticket:
                return answer[TICKET:]
            status = "error:BadAnswer"
            signs.append(_FORGED)
        except ChannelTimeout:
            status = "timeout"
        except ChannelMisuse:
            status = "error:BadAnswer"
            signs.append(_FORGED)
        except ChannelClosed:
            status = _ending(candidate.wait(_GRACE))
        try:
            judge.channel.send(b"X", time.monotonic() + _GRACE)
            signs += _read_verdict(judge.channel.receive(time.monotonic() + _GRACE))[2]
        except (ChannelClosed, ChannelMisuse, ChannelTimeout, WireError):
            self.close()
        raise _Abandoned(status, signs)


def _read_verdict(frame: bytes) -> tuple[str, str, list[str]]:
    """Status, detail and signs of cheating as the judge states them.

    Raises:
        ChannelMisuse: It is no verdict.
        WireError: It is no value.
    """
    if frame[:1] != b"V":
        raise ChannelMisuse
    value = decode(frame[1:])
    if type(value) is not tuple or len(value) != 3 or type(value[2]) is not list:
        raise ChannelMisuse
    return str(value[0]), str(value[1]), [str(sign) for sign in value[2]]


def _verdict(status: str, detail: str, signs: Sequence[str], seconds: float) -> Verdict:
    """The verdict; whatever the tests said, a program with a sign of cheating has not passed."""
    if status == "error:BadAnswer" and _FORGED not in signs:
        signs = [*signs, _FORGED]
    if not signs:
        return Verdict(clean(status), clean(detail), seconds)
    return Verdict("suspicious", clean(f"{'; '.join(signs)}; its tests: {status} {detail}"), seconds, clean(status))


def _ending(exit_status: int | None) -> str:
    """The status of a program that stopped answering, from its exit status (128 + signal through a sandbox)."""
    if exit_status is None or 0 <= exit_status < 128:
        return "error:SystemExit"
    signal = -exit_status if exit_status < 0 else exit_status - 128
    return "timeout" if signal == _SIGXCPU else "killed"


class Sandbox:
    """Runs generated programs and reports what their tests say.

    Args:
        backend: The kind of sandbox.
        info: What it is, for the record.
        limits: What one program may use.
        workers: Programs at a time; None takes one per processor, at most 8.
    """

    def __init__(
        self, backend: Backend, info: SandboxInfo, limits: Limits | None = None, workers: int | None = None
    ) -> None:
        self.backend = backend
        self.info = info
        self.limits = limits or Limits()
        self.workers = workers or min(8, len(os.sched_getaffinity(0)))

    def with_limits(self, limits: Limits) -> Sandbox:
        """The same sandbox with other limits."""
        return Sandbox(self.backend, self.info, limits, self.workers)

    def run(self, jobs: Sequence[Job], *, progress: Progress | None = None) -> list[Verdict]:
        """Judge programs; the verdicts come in the order of `jobs`, equal jobs are run once.

        Raises:
            SandboxError: The sandbox failed; no program is scored for that.
            ConfigError: A problem's own test cannot be run.
        """
        progress = progress or NullProgress()
        distinct = list(dict.fromkeys(jobs))
        verdicts: dict[Job, Verdict] = {}
        local = threading.local()
        slots: list[_Slot] = []

        def work(job: Job) -> tuple[Job, Verdict]:
            # One slot per thread: bubblewrap dies with the *thread* that started it.
            if not hasattr(local, "slot"):
                local.slot = _Slot(self.backend, self.limits)
                slots.append(local.slot)
            slot: _Slot = local.slot
            return job, slot.run(job)

        pool = ThreadPoolExecutor(max_workers=min(self.workers, max(1, len(distinct))), thread_name_prefix="sandbox")
        try:
            for future in as_completed([pool.submit(work, job) for job in distinct]):
                job, verdict = future.result()
                verdicts[job] = verdict
                progress.update(len(verdicts), len(distinct), "programs")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for slot in slots:
                slot.close()
        return [verdicts[job] for job in jobs]
