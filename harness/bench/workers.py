"""The worker processes of the host: forked once, kept between panels, replaced when a run must not share their luck."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.bench.meter import meter
from harness.bench.spec import PanelSpec
from harness.bench.wire import receive, send
from harness.bench.worker import work

# No single answer takes this long unless the worker hangs.
STALL_S = 900.0
TAIL = 600


class WorkerFailed(Exception):
    """A worker said what is wrong, or ended; `exit_code` as in `harness.errors`, `memory` where it was too little."""

    def __init__(self, message: str, exit_code: int, *, memory: bool = False) -> None:
        """Keep them."""
        super().__init__(message)
        self.exit_code, self.memory = exit_code, memory


class ParentGone(Exception):
    """The process that asked for the panel is gone."""


@dataclass(frozen=True)
class Role:
    """One process of a panel.

    Attributes:
        variant: Name of the variant it holds.
        path: Its directory.
        engine: What executes it.
        extra: Units of work on top of the spec's in every step; 0 except when error rates are measured.
    """

    variant: str
    path: str
    engine: str
    extra: int = 0


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
        self._workers: dict[tuple[object, ...], Worker] = {}
        self._meter: Worker | None = None
        self._started = 0

    def open(self, roles: Mapping[str, Role], spec: PanelSpec, *, fresh: bool = False) -> dict[str, Worker]:
        """Workers by role. Those that are missing start together; with `fresh`, all are ended and started anew."""
        keys = {
            name: (name, role.path, role.engine, spec.dtype, spec.device, spec.memory_limit)
            for name, role in roles.items()
        }
        for key in keys.values():
            if key in self._workers and (fresh or not self._workers[key].process.is_alive()):
                self.end(self._workers[key])
        for name, role in roles.items():
            if keys[name] not in self._workers:
                self._workers[keys[name]] = self._fork(role, spec)
        for key in keys.values():
            worker = self._workers[key]
            if worker.opened is None:
                worker.opened = self.answer(worker)
        return {name: self._workers[key] for name, key in keys.items()}

    def read_bandwidth(self) -> float:
        """Bytes per second that one thread reads from memory now, measured in a process of its own."""
        if self._meter is None or not self._meter.process.is_alive():
            self._meter = self._start("the bandwidth meter", meter, (os.getpid(),))
        return float(self.ask(self._meter, {"op": "read"})["read_bandwidth"])

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
            memory = bool(reply.get("memory"))
            # One that could not load is about to end, one that ran out of memory is in no state to go on.
            if worker.opened is None or memory:
                self.end(worker)
            message = f"speed worker of variant {worker.variant}: {reply['error']}"
            raise WorkerFailed(message, reply["exit_code"], memory=memory)
        return reply

    def end(self, worker: Worker) -> None:
        """End a worker and forget it."""
        self._forget(worker)
        worker.connection.close()
        worker.process.kill()
        worker.process.join()

    def reset(self) -> None:
        """End all workers and forget them."""
        self.kill()
        for worker in [*self._workers.values(), *([self._meter] if self._meter else [])]:
            worker.connection.close()
        self._workers, self._meter = {}, None

    def kill(self) -> None:
        """End all workers at once."""
        for worker in [*self._workers.values(), *([self._meter] if self._meter else [])]:
            worker.process.kill()
            worker.process.join()

    def _fork(self, role: Role, spec: PanelSpec) -> Worker:
        self._started += 1
        stderr = self._folder / f"worker-{self._started}.stderr"
        options = {
            "path": role.path,
            "engine": role.engine,
            "device": spec.device,
            "dtype": spec.dtype,
            "threads": spec.threads,
            "memory_limit": spec.memory_limit,
        }
        return self._start(role.variant, work, (options, str(stderr), os.getpid()), stderr)

    def _start(self, variant: str, target: Any, arguments: tuple[Any, ...], stderr: Path | None = None) -> Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=target, args=(theirs, *arguments), daemon=True)
        process.start()
        theirs.close()
        return Worker(variant, ours, process, stderr or self._folder / "none")

    def _ended(self, worker: Worker) -> WorkerFailed:
        self._forget(worker)
        worker.connection.close()
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        code = worker.process.exitcode
        killed = code is not None and code < 0
        how = f"was killed by signal {-(code or 0)} (9: often out of memory)" if killed else f"ended ({code})"
        text = worker.stderr.read_text(errors="replace") if worker.stderr.exists() else ""
        tail = " ".join(text[-TAIL:].split()) or "no output"
        message = f"speed worker of variant {worker.variant} {how}: {tail}"
        return WorkerFailed(message, 3, memory=code == -signal.SIGKILL)

    def _forget(self, worker: Worker) -> None:
        self._workers = {key: other for key, other in self._workers.items() if other is not worker}
        if worker is self._meter:
            self._meter = None
