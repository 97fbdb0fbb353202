"""How late the client's own event loop is: stamps are as wrong as that, and a late client makes a server look slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from harness.bench.latency import percentile

INTERVAL_S = 0.005
LIMIT_S = 0.001
"""Above this, at p99, a result is invalid."""


class LagMeter:
    """Sleeps again and again, and notes by how much it woke late.

    Use it as an asynchronous context manager around the load.
    """

    def __init__(self, clock: Callable[[], float], *, interval: float = INTERVAL_S) -> None:
        """Take time from `clock`, in seconds."""
        self._clock, self._interval = clock, interval
        self._task: asyncio.Task[None] | None = None
        self.lags: list[float] = []

    async def __aenter__(self) -> LagMeter:
        """Start."""
        self._task = asyncio.get_running_loop().create_task(self._watch())
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            before = self._clock()
            await asyncio.sleep(self._interval)
            self.lags.append(max(0.0, self._clock() - before - self._interval))


def lateness(lags: Sequence[float]) -> float | None:
    """The p99 of the lags, or their maximum where there are too few for a p99; None without any."""
    if not lags:
        return None
    known = percentile(lags, 0.99)
    return max(lags) if known is None else known
