"""A speed worker: holds one variant, sits still, and measures when it is told to."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.bench.clock import Clocks, is_steady, measure
from harness.bench.energy import joules_between, read_energy
from harness.bench.memory import limit_memory, out_of_memory, read_memory, reset_peak
from harness.bench.priority import keep_to
from harness.bench.wire import die_with_parent, receive, send
from harness.errors import ConfigError, SparsebenchError
from sparsify.errors import SparsifyError

LEAST_WARM_UP = 12
# What an engine may say of itself: how it holds the weights, and fall-backs that it took.
FACTS = ("packing", "events")


def work(connection: Connection, spec: dict[str, Any], stderr: str, parent: int) -> None:
    """Serve one variant until the connection closes.

    Messages in: `{"op": "prepare", ...}`, `{"op": "measure", ...}`. Messages out: a result, or `{"error", "exit_code"}`
    for an error with a clear line. Anything else ends the process, with its traceback in the file `stderr`.
    """
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    target = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    try:
        serve(connection, spec)
    except (EOFError, BrokenPipeError):
        return


def serve(connection: Connection, spec: dict[str, Any]) -> None:
    """Open the variant, say so, then answer messages."""
    import torch

    from harness.engines import load_engine

    before = read_memory()
    if spec["memory_limit"] is not None:
        limit_memory(spec["memory_limit"])
    start = time.perf_counter()
    try:
        options = {name: spec[name] for name in ("device", "dtype", "threads")}
        engine: Any = load_engine(spec["engine"], Path(spec["path"]), **options)
    except (SparsebenchError, SparsifyError, MemoryError, RuntimeError) as error:
        send(connection, failure(error))
        return
    if spec["device"] == "cpu":
        keep_to(spec["threads"])
    # Everything loaded so far lives as long as the process: keep the collector away from it while timing.
    gc.collect()
    gc.freeze()
    opened = {"load_seconds": time.perf_counter() - start, "rss_before": before.rss}
    send(connection, opened | {name: value for name in FACTS if (value := getattr(engine, name, None))})
    clocks = Clocks(time.perf_counter, time.process_time, engine.synchronise)
    session = Session(engine, clocks)
    while True:
        message = receive(connection)
        torch.set_num_threads(message["threads"])
        try:
            reply = session.prepare(message) if message["op"] == "prepare" else session.measure(message)
        except (SparsebenchError, SparsifyError, MemoryError, RuntimeError) as error:
            reply = failure(error)
        send(connection, reply)


def failure(error: Exception) -> dict[str, Any]:
    """The answer for an error with a clear line, or for memory that ran out; any other is raised again."""
    if isinstance(error, SparsebenchError | SparsifyError):
        return {"error": str(error), "exit_code": error.exit_code}
    if out_of_memory(error):
        return {"error": "out of memory; use a smaller batch or context", "exit_code": 3, "memory": True}
    raise error


class Session:
    """One worker's current workload."""

    def __init__(self, engine: Any, clocks: Clocks) -> None:
        """No workload is prepared yet."""
        self._engine, self._clocks = engine, clocks
        self._workload: Any = None
        self._step: Callable[[], None] = lambda: None

    def prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Build the workload and warm it up until steady, within `warm_up_s` seconds (but at least a few steps)."""
        from harness.bench.workloads import build_workload

        needed = message["context"] + message["longest"]
        if needed > self._engine.context_length:
            raise ConfigError(f"the panel needs {needed} positions of {self._engine.context_length}; lower its context")
        keys = ("workload", "context", "batch", "new_tokens", "seed", "longest")
        self._workload, self._step = None, lambda: None  # the one before gives its memory back first
        self._reset_peak()
        workload = build_workload(self._engine, **{key: message[key] for key in keys})
        self._workload = workload
        self._step = repeated(workload.step, message["forwards"])
        seconds: list[float] = []
        start = self._clocks.wall()
        while True:
            workload.reset()
            timing = measure(self._step, steps=message["chunk"], clocks=self._clocks)
            seconds += timing.seconds
            spent = self._clocks.wall() - start
            steady = len(seconds) >= LEAST_WARM_UP and is_steady(seconds)
            if steady or spent > message["warm_up_s"]:
                return {"warm_up": seconds, "steady": steady, "warm_up_s": spent}

    def measure(self, message: dict[str, Any]) -> dict[str, Any]:
        """Measure once, after a lead-in that does not count (it warms the caches after others ran)."""
        self._workload.reset()
        for _ in range(message["lead_in"]):
            self._workload.step()
        self._clocks.synchronise()
        energy = read_energy()
        timing = measure(self._step, steps=message["steps"], clocks=self._clocks)
        timing = replace(timing, joules=joules_between(energy, read_energy()))
        return {**asdict(timing), "peak_rss": read_memory().peak_rss, "peak_device": self._peak_device()}

    def _reset_peak(self) -> None:
        import torch

        reset_peak()
        if self._engine.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._engine.model.device)

    def _peak_device(self) -> int | None:
        import torch

        device = self._engine.model.device
        return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def repeated(step: Callable[[], None], count: int) -> Callable[[], None]:
    """`count` calls of `step` as one."""
    if count == 1:
        return step

    def several() -> None:
        for _ in range(count):
            step()

    return several
