"""One panel inside the host process: workers forked once, one of them measuring at a time."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.bench.clock import block_order, blocks_to_go
from harness.bench.machine import busy_between, read_activity
from harness.bench.spec import DECODE_LEAD_IN, LEAST_BLOCKS, PanelSpec
from harness.bench.wire import receive, send
from harness.bench.worker import work

# No single answer takes this long unless the worker hangs.
STALL_S = 900.0
# Share of the budget that warming all workers may take.
WARM_UP_SHARE = 0.25
TAIL = 600


class WorkerFailed(Exception):
    """A worker said what is wrong, or ended; `exit_code` as in `harness.errors`."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Keep both."""
        super().__init__(message)
        self.exit_code = exit_code


class ParentGone(Exception):
    """The process that asked for the panel is gone."""


@dataclass
class Worker:
    """A forked process that holds one variant."""

    variant: str
    connection: Connection
    process: BaseProcess
    stderr: Path
    opened: dict[str, Any] | None = None


class Workers:
    """Forks workers from this process (which has torch loaded, so that they need not), and keeps them."""

    def __init__(self, folder: Path, parent_input: int) -> None:
        """Keep stderr files in `folder`; watch `parent_input`, which is readable only when the parent is gone."""
        self._folder, self._parent_input = folder, parent_input
        self._context = multiprocessing.get_context("fork")
        self._workers: dict[tuple[str, ...], Worker] = {}
        self._started = 0

    def open(self, roles: Mapping[str, tuple[str, str]], spec: PanelSpec) -> dict[str, Worker]:
        """Workers by role; `roles` maps it to (variant, directory). Those that are missing start together."""
        keys = {role: (role, path, spec.dtype, spec.device) for role, (_, path) in roles.items()}
        for role, (variant, path) in roles.items():
            if keys[role] not in self._workers:
                self._workers[keys[role]] = self._fork(variant, path, spec)
        for key in keys.values():
            worker = self._workers[key]
            if worker.opened is None:
                worker.opened = self.answer(worker)
        return {role: self._workers[key] for role, key in keys.items()}

    def ask(self, worker: Worker, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and wait for the answer."""
        try:
            send(worker.connection, message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._ended(worker) from None
        return self.answer(worker)

    def answer(self, worker: Worker) -> dict[str, Any]:
        """Wait for a worker's message.

        Raises:
            WorkerFailed: It reported an error, ended or hangs.
            ParentGone: The parent ended meanwhile.
        """
        ready = multiprocessing.connection.wait([worker.connection, self._parent_input], timeout=STALL_S)
        if self._parent_input in ready:
            raise ParentGone
        if not ready:
            worker.process.kill()
            raise self._ended(worker)
        try:
            reply = receive(worker.connection)
        except (EOFError, ConnectionResetError):
            raise self._ended(worker) from None
        if "error" in reply:
            if worker.opened is None:  # it could not load and is about to end; an open one stays usable
                self._forget(worker)
            raise WorkerFailed(f"speed worker of variant {worker.variant}: {reply['error']}", reply["exit_code"])
        return reply

    def kill(self) -> None:
        """End all workers at once."""
        for worker in self._workers.values():
            worker.process.kill()
            worker.process.join()

    def _fork(self, variant: str, path: str, spec: PanelSpec) -> Worker:
        ours, theirs = self._context.Pipe()
        self._started += 1
        stderr = self._folder / f"worker-{self._started}.stderr"
        options = {"path": path, "device": spec.device, "dtype": spec.dtype, "threads": spec.threads}
        process = self._context.Process(target=work, args=(theirs, options, str(stderr), os.getpid()), daemon=True)
        process.start()
        theirs.close()
        return Worker(variant, ours, process, stderr)

    def _ended(self, worker: Worker) -> WorkerFailed:
        self._forget(worker)
        code = worker.process.exitcode
        killed = code is not None and code < 0
        how = f"was killed by signal {-(code or 0)} (9: often out of memory)" if killed else f"ended ({code})"
        text = worker.stderr.read_text(errors="replace") if worker.stderr.exists() else ""
        tail = " ".join(text[-TAIL:].split()) or "no output"
        return WorkerFailed(f"speed worker of variant {worker.variant} {how}: {tail}", 3)

    def _forget(self, worker: Worker) -> None:
        self._workers = {key: other for key, other in self._workers.items() if other is not worker}
        worker.connection.close()
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def prefill_steps(slowest: float) -> tuple[int, int]:
    """(lead-in, timed) forwards of a prefill measurement; a slow one needs no lead-in and no repetition."""
    return (1, 2) if slowest < 0.5 else (0, 1)


def run_interleaved(
    spec: PanelSpec,
    workers: Workers,
    roles: Mapping[str, tuple[str, str]],
    report: Callable[[float, float, str], None],
) -> dict[str, Any]:
    """Warm every worker up, then measure blocks until the budget is spent.

    Returns:
        `{"processes": {role: ...}, "measures": [{block, position, role, seconds, cpu}, ...], "activity", "blocks"}`.
    """
    opened = workers.open(roles, spec)
    names: Sequence[str] = tuple(roles)
    activity, start = read_activity(), time.perf_counter()
    prepare = {
        "op": "prepare",
        "workload": spec.workload,
        "context": spec.context,
        "batch": spec.batch,
        "seed": spec.seed,
        "longest": spec.longest,
        "chunk": spec.new_tokens if spec.workload == "decode" else 1,
        "threads": spec.threads,
        "warm_up_s": spec.budget_s * WARM_UP_SHARE / len(names),
    }
    processes: dict[str, dict[str, Any]] = {}
    for name in names:
        report(time.perf_counter() - start, spec.budget_s, f"{spec.panel}: warming {name}")
        processes[name] = {**(opened[name].opened or {}), **workers.ask(opened[name], prepare)}
    slowest = max(statistics.median(process["warm_up"][-5:]) for process in processes.values())
    lead_in, steps = (DECODE_LEAD_IN, spec.new_tokens) if spec.workload == "decode" else prefill_steps(slowest)
    message = {"op": "measure", "lead_in": lead_in, "steps": steps, "threads": spec.threads}
    measures: list[dict[str, Any]] = []
    blocks, begun = 0, time.perf_counter()
    budget = spec.budget_s - (begun - start)
    while blocks_to_go(blocks, elapsed=time.perf_counter() - begun, budget=budget, least=LEAST_BLOCKS):
        for position, name in enumerate(block_order(names, blocks)):
            reply = workers.ask(opened[name], message)
            processes[name]["peak_rss"] = reply.pop("peak_rss")
            measures.append({"block": blocks, "position": position, "process": name, **reply})
        blocks += 1
        report(time.perf_counter() - start, spec.budget_s, f"{spec.panel}: block {blocks}")
    return {
        "processes": processes,
        "measures": measures,
        "blocks": blocks,
        "lead_in": lead_in,
        "seconds": time.perf_counter() - start,
        "activity": busy_between(activity, read_activity()),
    }
