"""A speed worker: holds one variant, sits still, and measures when it is told to."""

from __future__ import annotations

import gc
import os
import signal
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.bench.clock import Clocks, is_steady, measure
from harness.bench.memory import read_memory
from harness.bench.wire import die_with_parent, receive, send
from harness.errors import ConfigError, SparsebenchError
from sparsify.errors import SparsifyError

LEAST_WARM_UP = 12


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

    from harness.engines.torch import TorchEngine

    before = read_memory()
    start = time.perf_counter()
    try:
        engine = TorchEngine.load(
            Path(spec["path"]), device=spec["device"], dtype=spec["dtype"], threads=spec["threads"]
        )
    except (SparsebenchError, SparsifyError) as error:
        send(connection, {"error": str(error), "exit_code": error.exit_code})
        return
    # Everything loaded so far lives as long as the process: keep the collector away from it while timing.
    gc.collect()
    gc.freeze()
    send(connection, {"load_seconds": time.perf_counter() - start, "rss_before": before.rss})
    clocks = Clocks(time.perf_counter, time.process_time, engine.synchronise)
    session = Session(engine, clocks)
    while True:
        message = receive(connection)
        torch.set_num_threads(message["threads"])
        try:
            reply = session.prepare(message) if message["op"] == "prepare" else session.measure(message)
        except (SparsebenchError, SparsifyError) as error:
            reply = {"error": str(error), "exit_code": error.exit_code}
        send(connection, reply)


class Session:
    """One worker's current workload."""

    def __init__(self, engine: Any, clocks: Clocks) -> None:
        """No workload is prepared yet."""
        self._engine, self._clocks = engine, clocks
        self._workload: Any = None

    def prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Build the workload and warm it up until steady, within `warm_up_s` seconds (but at least a few steps)."""
        from harness.bench.workloads import build_workload

        needed = message["context"] + message["longest"]
        if needed > self._engine.context_length:
            raise ConfigError(f"the panel needs {needed} positions of {self._engine.context_length}; lower its context")
        keys = ("workload", "context", "batch", "seed")
        self._workload = build_workload(self._engine, **{key: message[key] for key in keys})
        seconds: list[float] = []
        start = self._clocks.wall()
        while True:
            self._workload.reset()
            timing = measure(self._workload.step, lead_in=0, steps=message["chunk"], clocks=self._clocks)
            seconds += timing.seconds
            spent = self._clocks.wall() - start
            steady = len(seconds) >= LEAST_WARM_UP and is_steady(seconds)
            if steady or spent > message["warm_up_s"]:
                return {"warm_up": seconds, "steady": steady, "warm_up_s": spent}

    def measure(self, message: dict[str, Any]) -> dict[str, Any]:
        """Measure once."""
        self._workload.reset()
        timing = measure(self._workload.step, lead_in=message["lead_in"], steps=message["steps"], clocks=self._clocks)
        return {**asdict(timing), "peak_rss": read_memory().peak_rss}
