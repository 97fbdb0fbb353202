"""Programs a second a core: in each sandbox and in bare Python, in turns on the same core."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from harness.errors import InfrastructureError
from harness.evaluate.sandbox import Job, Sandbox
from harness.evaluate.sandbox.backends import INSIDE_ENV, PYTHON_FLAGS
from harness.evaluate.sandbox.interpreter import find_interpreter
from sparsify.progress import Progress

BARE = "bare python"
_TARGET_WORKERS = 4


@contextmanager
def one_core() -> Iterator[int]:
    """Keep this process and all that it starts on one core; yields its number."""
    cores = os.sched_getaffinity(0)
    core = max(cores)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, cores)


def measure_speed(
    sandboxes: Mapping[str, Sandbox], jobs: Sequence[Job], *, rounds: int, progress: Progress
) -> dict[str, Any]:
    """Programs a second on one core, tests included: each sandbox and bare Python in turns.

    A round runs every job once, and every other round runs the arms in reversed order. A sandbox pays for its judge's
    start in each round.

    Returns:
        By name of the sandbox (and `bare python`): `rates` of all rounds, their `median`, and `ratio`, the median of
        the rounds' ratios to bare Python in the same round.

    Raises:
        InfrastructureError: A sandbox fails, or an honest program does not pass.
    """
    arms: dict[str, Callable[[], int]] = {BARE: lambda: _bare(jobs)}
    for name, sandbox in sandboxes.items():
        here = Sandbox(sandbox.backend, sandbox.info, sandbox.limits, _TARGET_WORKERS)
        arms[name] = lambda here=here: sum(verdict.passed for verdict in here.run(jobs))  # type: ignore[misc]
    rates: dict[str, list[float]] = {name: [] for name in arms}
    with one_core():
        for turn in range(rounds):
            for name in list(arms) if turn % 2 == 0 else list(reversed(arms)):
                start = time.monotonic()
                passed = arms[name]()
                if passed != len(jobs):
                    raise InfrastructureError(
                        f"{len(jobs) - passed} of {len(jobs)} programs failed in {name}; free the machine"
                    )
                rates[name].append(len(jobs) / (time.monotonic() - start))
                progress.update(sum(map(len, rates.values())), rounds * len(arms), name)
    return {
        name: {
            "rates": each,
            "median": statistics.median(each),
            "ratio": statistics.median(a / b for a, b in zip(each, rates[BARE], strict=True)),
        }
        for name, each in rates.items()
    }


def _bare(jobs: Sequence[Job]) -> int:
    """How many programs pass in a Python of their own, without a sandbox; only for programs that are trusted."""
    executable = find_interpreter(any_user=False).executable

    def run(job: Job) -> bool:
        problem = job.problem
        source = f"{job.program}\n{problem.test}\ncheck({problem.entry_point})\n"
        done = subprocess.run([executable, *PYTHON_FLAGS, "-c", source], env=dict(INSIDE_ENV), capture_output=True)
        return done.returncode == 0

    with ThreadPoolExecutor(_TARGET_WORKERS) as pool:
        return sum(pool.map(run, jobs))
