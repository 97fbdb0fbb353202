"""A pool of worker processes that die with their parent and pass errors on as one line."""

from __future__ import annotations

import errno
import multiprocessing as mp
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from harness.errors import EngineError, InfrastructureError, SparsebenchError
from sparsify.errors import SparsifyError
from suites.errors import SuiteError

TYPED = (SparsebenchError, SparsifyError, SuiteError)
# Imported once in the server that workers are forked from: torch and lm-eval cost seconds each.
_PRELOAD = ["harness.preload"]


class Task(Protocol):
    """Something that a worker process does; picklable."""

    @property
    def name(self) -> str:
        """How progress and messages call it."""

    def run(self, send: Callable[[str, Any], None]) -> Any:
        """Do it; `send(kind, value)` reports on the way."""


class TaskPool(Protocol):
    """Runs tasks somewhere; a context manager that gives back what it holds."""

    @property
    def jobs(self) -> int:
        """Tasks at a time."""

    def run(self, tasks: list[Task], *, ready: Callable[[Task, list[Task]], bool] | None = None) -> Iterator[Message]:
        """Run tasks and yield what they say, in the order in which it arrives; see `Pool.run`."""

    def __enter__(self) -> TaskPool:
        """The pool itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what runs and give everything back."""


@dataclass(frozen=True)
class Message:
    """What a worker said: `kind` is `progress`, `done`, or the task's own."""

    task: Task
    kind: str
    value: Any


class RemoteError(SparsebenchError):
    """A worker's typed error, carried over with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def describe_error(error: BaseException) -> tuple[str, int] | None:
    """One line and an exit code for an error that a user may meet; None for a bug of ours."""
    if isinstance(error, TYPED):
        return " ".join(str(error).split()), error.exit_code
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left on device" in str(error):
        return "the disk is full; free some space and run the same command again, finished work is kept", 3
    if isinstance(error, MemoryError):
        return "out of memory; use --jobs 1 or a smaller batch_size", 3
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or 'a file of the run'}; check the disk and run again", 3
    return None


def _start_server() -> None:
    """Start the server that workers are forked from, if it does not run.

    Left alone, it would look for modules in the current folder first. In a checkout of sparsebench that is the source,
    which has no compiled kernels, and elsewhere it is whatever lies there.
    """
    resource_tracker.ensure_running()  # it would unblock the signal below
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    # The server and its workers never see Ctrl-C, which is the parent's to handle, not even while they start.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


class Pool:
    """Runs tasks in processes of their own, at most `jobs` at a time.

    Args:
        jobs: Processes at a time.
        log: File that receives tracebacks of unexpected errors.
    """

    def __init__(self, jobs: int, log: Path) -> None:
        self.jobs = jobs
        self._log = log
        self._context = mp.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOAD)
        _start_server()
        self._running: dict[Connection, tuple[Any, Task]] = {}

    def run(self, tasks: list[Task], *, ready: Callable[[Task, list[Task]], bool] | None = None) -> Iterator[Message]:
        """Run tasks and yield what they say, in the order in which it arrives.

        Args:
            tasks: What to do; earlier tasks are started first.
            ready: Whether a task may start beside those that run.

        Raises:
            RemoteError: A worker failed; the others are stopped.
            EngineError: A worker was killed.
        """
        waiting = list(tasks)
        try:
            while waiting or self._running:
                self._start(waiting, ready)
                for connection in wait(list(self._running)):
                    assert isinstance(connection, Connection)
                    yield from self._receive(connection)
        finally:
            self.close()

    def _start(self, waiting: list[Task], ready: Callable[[Task, list[Task]], bool] | None) -> None:
        for task in list(waiting):
            if len(self._running) >= self.jobs:
                return
            if ready is None or not self._running or ready(task, [t for _, t in self._running.values()]):
                waiting.remove(task)
                ours, theirs = self._context.Pipe()
                # A daemon may start no processes; what is left of another is stopped by `close`, as all are.
                daemon = not getattr(task, "starts_processes", False)
                process = self._context.Process(target=_work, args=(task, theirs, str(self._log)), daemon=daemon)
                try:
                    process.start()
                except EOFError:  # click would take it for a closed terminal and report an interruption
                    raise EngineError("the server that starts workers ended; run the same command again") from None
                theirs.close()
                self._running[ours] = (process, task)

    def _receive(self, connection: Connection) -> Iterator[Message]:
        process, task = self._running[connection]
        try:
            kind, value = connection.recv()
        except (EOFError, ConnectionResetError):
            process.join(5)
            raise EngineError(
                f"{task.name}: its process ended ({process.exitcode}); is the machine out of memory? "
                "Run the same command again to continue"
            ) from None
        if kind == "error":
            raise RemoteError(*value)
        if kind == "done":
            del self._running[connection]
            connection.close()
            process.join()
        yield Message(task, kind, value)

    def __enter__(self) -> Pool:
        """The pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all workers."""
        self.close()

    def close(self) -> None:
        """Stop all workers; what they had journaled stays."""
        for connection, (process, _) in self._running.items():
            process.terminate()
            connection.close()
        for process, _ in self._running.values():
            process.join(5)
            if process.is_alive():
                process.kill()
        self._running.clear()


def die_with_parent(yes: bool = True) -> None:
    """Let this process be killed when its parent ends, or no longer; Linux only, elsewhere a pipe's end tells."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL if yes else 0)  # PR_SET_PDEATHSIG


def _work(task: Task, connection: Connection, log: str) -> None:
    die_with_parent()
    # Ctrl-C reaches the whole process group; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def send(kind: str, value: Any) -> None:
        try:
            connection.send((kind, value))
        except (BrokenPipeError, OSError):
            os._exit(1)  # the parent is gone

    try:
        send("done", task.run(send))
    except BaseException as error:  # noqa: BLE001 (a process boundary: everything must be told to the parent)
        send("error", tell_error(task, error, log))


def tell_error(task: Task, error: BaseException, log: str) -> tuple[str, int]:
    """One line and an exit code for what ended a task; the traceback of an unexpected error goes to the file `log`."""
    known = describe_error(error)
    if known is not None:
        return known
    with suppress(OSError), open(log, "a", encoding="utf-8") as stream:
        stream.write(f"{task.name}\n{traceback.format_exc()}\n")
    return f"{task.name}: unexpected {type(error).__name__}: {error}; the traceback is in {log}", 3


def internal_error(error: BaseException) -> InfrastructureError:
    """An unexpected error as one that the command line can print."""
    return InfrastructureError(f"unexpected {type(error).__name__}: {error}")
