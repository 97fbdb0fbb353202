"""A pool of tasks on a Ray cluster, behind the interface of the pool of processes.

Tasks leave what they make in the run's folder, which every node sees under the same path; only messages travel through
Ray. A task whose worker dies is started again: what its journal holds is not made twice.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.errors import ConfigError, EngineError
from harness.pool import Message, RemoteError, Task, tell_error
from harness.quiet import quieten
from harness.ray_nodes import RayPlace, check_nodes, on_node, one_line, room

LOCAL = "local"
ATTEMPTS = 3
_POLL_S, _CANCEL_S = 0.5, 10.0
# Messages are small and nothing else goes through the object store; the smallest that Ray takes is 75 MB.
_STORE_BYTES = 80_000_000


class RayPool:
    """Runs tasks on a Ray cluster; the cluster is joined when the first task is.

    Args:
        place: Where.
        log: File in the run's folder that receives tracebacks of unexpected errors.

    Raises:
        ConfigError: Ray is not installed, or the address is none that tasks can be sent to.
    """

    def __init__(self, place: RayPlace, log: Path) -> None:
        """Check that Ray is there, without starting it."""
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("--ray needs Ray, which is not installed; pip install 'sparsebench[ray]'")
        if "://" in place.address:
            raise ConfigError(
                f"--ray {place.address}: Ray's client protocol is not supported; start this on a node of the cluster "
                "with --ray auto"
            )
        self._place, self._log = place, log
        self._ray: Any = None
        self._mailbox: Any = None
        self._jobs = 0
        self._running: dict[Any, tuple[Task, int]] = {}

    @property
    def jobs(self) -> int:
        """Tasks at a time; joins the cluster."""
        self._join()
        return self._jobs

    def run(self, tasks: list[Task], *, ready: Callable[[Task, list[Task]], bool] | None = None) -> Iterator[Message]:
        """Run tasks and yield what they say; `retry` tells that one was started again.

        Args:
            tasks: What to do; their names are unique, earlier tasks are started first.
            ready: Whether a task may start beside those that run.

        Raises:
            RemoteError: A task failed; the others are stopped.
            EngineError: A worker was lost `ATTEMPTS` times, or the cluster was.
        """
        self._join()
        waiting = [(task, 1) for task in tasks]
        named = {task.name: task for task in tasks}
        try:
            while waiting or self._running:
                self._submit(waiting, ready)
                finished, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_POLL_S)
                for name, kind, value in self._get(self._mailbox.take.remote()):
                    yield Message(named[name], kind, value)
                for ref in finished:
                    yield self._finish(ref, waiting)
        finally:
            self._cancel()

    def __enter__(self) -> RayPool:
        """The pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what runs and leave the cluster; one of this machine alone ends."""
        if self._ray is not None:
            self._cancel()
            self._ray.shutdown()
            self._ray = None

    def _submit(self, waiting: list[tuple[Task, int]], ready: Callable[[Task, list[Task]], bool] | None) -> None:
        remote = self._ray.remote(_work).options(**self._needs(), max_retries=0)
        for each in list(waiting):
            if len(self._running) >= self._jobs:
                return
            task, attempt = each
            if ready is None or not self._running or ready(task, [other for other, _ in self._running.values()]):
                waiting.remove(each)
                self._running[remote.remote(task, self._mailbox, str(self._log))] = (task, attempt)

    def _needs(self) -> dict[str, float]:
        return {"num_cpus": self._place.threads, "num_gpus": 1 if self._place.device == "cuda" else 0}

    def _finish(self, ref: Any, waiting: list[tuple[Task, int]]) -> Message:
        from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

        task, attempt = self._running.pop(ref)
        try:
            kind, value = self._get(ref)
        except (NodeDiedError, OutOfMemoryError, WorkerCrashedError) as error:
            if attempt == ATTEMPTS:
                raise EngineError(
                    f"{task.name}: its worker was lost {ATTEMPTS} times ({type(error).__name__}); is a node out of "
                    "memory? Run the same command again to continue"
                ) from None
            waiting.insert(0, (task, attempt + 1))
            return Message(task, "retry", f"its worker was lost ({type(error).__name__}); started again")
        if kind == "error":
            raise RemoteError(*value)
        return Message(task, "done", value)

    def _get(self, ref: Any) -> Any:
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, WorkerCrashedError

        try:
            return self._ray.get(ref)
        except (NodeDiedError, OutOfMemoryError, WorkerCrashedError):
            raise
        except RayError as error:
            raise EngineError(f"Ray: {one_line(error)}; run the same command again to continue") from None

    def _cancel(self) -> None:
        from ray.exceptions import RayError

        refs = list(self._running)
        self._running.clear()
        with suppress(RayError):
            for ref in refs:
                self._ray.cancel(ref, force=True)
            if refs:
                self._ray.wait(refs, num_returns=len(refs), timeout=_CANCEL_S)

    def _join(self) -> None:
        """Join or start the cluster, and make sure that every node can do the work."""
        if self._ray is not None:
            return
        import ray

        _connect(ray, self._place)
        self._ray = ray
        needs = self._needs()
        rooms = {node["NodeID"]: room(node["Resources"], needs) for node in ray.nodes() if node["Alive"]}
        places = sum(rooms.values())
        if places == 0:
            wanted = f"{self._place.threads} CPUs" + (" and a GPU" if needs["num_gpus"] else "")
            raise ConfigError(f"--ray {self._place.address}: no node of the cluster has {wanted}; use a larger --jobs")
        self._jobs = min(places, self._place.jobs or places)
        check_nodes(ray, [node for node in ray.nodes() if rooms.get(node["NodeID"])], self._place)
        here = ray.get_runtime_context().get_node_id()
        self._mailbox = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=on_node(here)).remote()


def _connect(ray: Any, place: RayPlace) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if place.address == LOCAL:
        cpus = place.threads * (place.jobs or 1)
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=place.address, **options)
    except Exception as error:  # Ray has no type of its own for what goes wrong here
        ray.shutdown()
        if place.address == LOCAL:
            raise EngineError(f"Ray does not start here ({one_line(error)}); run again, or without --ray") from None
        raise ConfigError(
            f"--ray {place.address}: cannot join it ({one_line(error)}); give {LOCAL}, auto or HOST:PORT of a running "
            "cluster that this machine is a node of (`ray start`)"
        ) from None
    finally:
        # Ray would end the process on SIGTERM without stopping the run.
        with suppress(ValueError):  # not the main thread: there it has set none
            signal.signal(signal.SIGTERM, handler)


class _Mailbox:
    """An actor that keeps what tasks say until the driver takes it."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, str, Any]] = []

    def put(self, name: str, kind: str, value: Any) -> None:
        """Keep a message."""
        self._kept.append((name, kind, value))

    def take(self) -> list[tuple[str, str, Any]]:
        """All messages, in the order in which they came; they are forgotten."""
        kept, self._kept = self._kept, []
        return kept


def _work(task: Task, mailbox: Any, log: str) -> tuple[str, Any]:
    """On a node: do a task, and tell what became of it."""
    import ray

    quieten()
    last: list[Any] = []

    def send(kind: str, value: Any) -> None:
        last[:] = [mailbox.put.remote(task.name, kind, value)]

    try:
        told: tuple[str, Any] = ("done", task.run(send))
    except BaseException as error:  # noqa: BLE001 (a process boundary: everything must be told to the driver)
        told = ("error", tell_error(task, error, log))
    # Messages of one sender come in order: when the last has arrived, all have.
    ray.get(last)
    return told
