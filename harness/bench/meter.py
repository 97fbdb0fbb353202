"""The machine's memory read bandwidth, taken before and after a panel in a process of its own."""

from __future__ import annotations

import os
import signal
import statistics
import time
from multiprocessing.connection import Connection

from harness.bench.wire import die_with_parent, receive, send

BUFFER = 128 << 20
"""Bytes; several times the last cache, so that every pass comes from memory."""
CHUNK = 4 << 20
"""Bytes per timed read: about half a millisecond, short beside a scheduler's slice."""
SECONDS = 0.2


def read_bandwidth(buffer: object, *, seconds: float = SECONDS) -> float:
    """Bytes per second that one thread reads from memory: the median over chunks of a buffer larger than the caches.

    CPU time is what counts: a thread that waits for memory uses it, one that waits for a core does not, and how busy
    the cores were is recorded on its own.

    Args:
        buffer: uint8 array, [n].
        seconds: Wall time to spend, at least one pass.
    """
    import numpy as np

    data = np.asarray(buffer, dtype=np.uint8)
    spent: list[float] = []
    begun = time.perf_counter()
    while not spent or time.perf_counter() - begun < seconds:
        for start in range(0, data.size - CHUNK + 1, CHUNK):
            before = time.thread_time()
            data[start : start + CHUNK].max()
            spent.append(time.thread_time() - before)
    return CHUNK / statistics.median(spent)


def meter(connection: Connection, parent: int) -> None:
    """Serve readings until the connection closes: any message in, `{"read_bandwidth": bytes per second}` out."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import numpy as np

    buffer = np.ones(BUFFER, dtype=np.uint8)  # ones: memory that was never written is one shared page of zeros
    try:
        while True:
            receive(connection)
            send(connection, {"read_bandwidth": read_bandwidth(buffer)})
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)
