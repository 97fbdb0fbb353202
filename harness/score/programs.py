"""Judges the programs of a file in the sandbox; what is judged is journaled, so that a long run can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.evaluate.sandbox import Job, Sandbox
from harness.evaluate.sandbox import Verdict as Judged
from harness.evaluate.verdicts import verdict_key
from harness.journal import Journal
from sparsify.progress import Progress

_AT_A_TIME = 32


class _Share:
    """Reports one piece of the programs as its share of all."""

    def __init__(self, progress: Progress, before: int, total: int) -> None:
        self._progress, self._before, self._total = progress, before, total

    def update(self, done: float, total: float, note: str = "") -> None:
        self._progress.update(self._before + done, self._total, note)


def judge(jobs: Sequence[Job], *, sandbox: Sandbox, journal: Path, progress: Progress) -> list[Judged]:
    """Verdicts in the order of `jobs`; a program that the journal knows under this sandbox is not run again.

    Raises:
        InfrastructureError: The sandbox failed; finished verdicts stay in the journal.
        ConfigError: A problem's own test cannot be run, or another run holds the journal.
    """
    keys = [verdict_key(job, sandbox) for job in jobs]
    distinct = dict(zip(keys, jobs, strict=True))
    piece = _AT_A_TIME * sandbox.workers
    key = {"sandbox": asdict(sandbox.info), "limits": asdict(sandbox.limits)}
    with Journal(journal, key, row_key="program") as known:
        waiting = [name for name in distinct if name not in known]
        done = len(distinct) - len(waiting)
        for start in range(0, len(waiting), piece):
            names = waiting[start : start + piece]
            share = _Share(progress, done + start, len(distinct))
            verdicts = sandbox.run([distinct[name] for name in names], progress=share)
            known.append([{"program": name, **asdict(found)} for name, found in zip(names, verdicts, strict=True)])
        progress.update(len(distinct), len(distinct), "programs")
        return [
            Judged(known.rows[name]["status"], known.rows[name]["detail"], known.rows[name]["seconds"]) for name in keys
        ]
