"""Programs a second a core: in each sandbox and in bare Python, in turns on the same core."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from harness.bench.sandbox.cpu_time import cpu_meter
from harness.errors import InfrastructureError
from harness.evaluate.sandbox import Job, Sandbox
from harness.evaluate.sandbox.backends import INSIDE_ENV, PYTHON_FLAGS
from harness.evaluate.sandbox.interpreter import find_interpreter
from sparsify.progress import Progress

BARE = "bare python"
_WORKERS = 4


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
        `unit`, and by name of the sandbox (and `bare python`) in `arms`: `rates` of all rounds, their `median`, `wall`
        (the median by the clock) and `ratio`, the median of the rounds' ratios to bare Python in the same round. The
        unit is programs a second of processor time, or by the clock where processor time cannot be told.

    Raises:
        InfrastructureError: A sandbox fails, or an honest program does not pass.
    """
    arms: dict[str, Callable[[], int]] = {BARE: partial(_bare, jobs)}
    for name, sandbox in sandboxes.items():
        arms[name] = partial(_sandboxed, Sandbox(sandbox.backend, sandbox.info, sandbox.limits, _WORKERS), jobs)
    rates: dict[str, list[float]] = {name: [] for name in arms}
    walls: dict[str, list[float]] = {name: [] for name in arms}
    with one_core(), cpu_meter() as meter:
        for turn in range(rounds):
            for name in list(arms) if turn % 2 == 0 else list(reversed(arms)):
                clock, start = meter or time.monotonic, time.monotonic()
                before = clock()
                passed = arms[name]()
                if passed != len(jobs):
                    raise InfrastructureError(
                        f"{len(jobs) - passed} of {len(jobs)} programs failed in {name}; free the machine and run again"
                    )
                rates[name].append(len(jobs) / (clock() - before))
                walls[name].append(len(jobs) / (time.monotonic() - start))
                progress.update(sum(map(len, rates.values())), rounds * len(arms), name)
    found = {
        name: {
            "rates": each,
            "median": statistics.median(each),
            "wall": statistics.median(walls[name]),
            "ratio": statistics.median(a / b for a, b in zip(each, rates[BARE], strict=True)),
        }
        for name, each in rates.items()
    }
    return {"unit": "cpu" if meter else "wall", "arms": found}


def _sandboxed(sandbox: Sandbox, jobs: Sequence[Job]) -> int:
    return sum(verdict.passed for verdict in sandbox.run(jobs))


def _bare(jobs: Sequence[Job]) -> int:
    """How many programs pass in a Python of their own, without a sandbox; only for programs that are trusted."""
    executable = find_interpreter(any_user=False).executable

    def run(job: Job) -> bool:
        problem = job.problem
        source = f"{job.program}\n{problem.test}\ncheck({problem.entry_point})\n"
        done = subprocess.run([executable, *PYTHON_FLAGS, "-c", source], env=dict(INSIDE_ENV), capture_output=True)
        return done.returncode == 0

    with ThreadPoolExecutor(_WORKERS) as pool:
        return sum(pool.map(run, jobs))
