"""A worker as the benchmark sees it: started with its environment, asked with a time limit, ended with its group."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.bench.priority import favour, keep_to
from harness.bench.sparsify.workers import parse_answer
from harness.errors import InfrastructureError

_SHOWN = 200


class WorkerProcess:
    """A process that answers one JSON line with another; use it as a context manager."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], log: Path, *, threads: int) -> None:
        """Start it, before ordinary processes, on `threads` processors; what it prints goes to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log, self._rest = log, b""
        with log.open("w", encoding="utf-8") as stream:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=dict(variables),
                start_new_session=True,
            )
        favour(self._process.pid)
        keep_to(threads, self._process.pid)

    def __enter__(self) -> WorkerProcess:
        """It runs already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def ask(self, *, limit: float, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer, `limit` seconds at most; `error` in it is the worker's own.

        Raises:
            InfrastructureError: It ended or did not answer; it is of no further use.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise InfrastructureError(self._end()) from None
        return parse_answer(self._line(time.monotonic() + limit, limit))

    def log_text(self) -> str:
        """What it printed so far."""
        return self._log.read_text("utf-8", errors="replace") if self._log.exists() else ""

    def close(self) -> None:
        """End it, and whatever it started."""
        process = self._process
        if process.poll() is None and process.stdin is not None:
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _line(self, until: float, limit: float) -> str:
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            ready, _, _ = select.select([stream], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise InfrastructureError(f"no answer within {limit:.0f} s")
            read = os.read(stream, 1 << 16)
            if not read:
                raise InfrastructureError(self._end())
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def _end(self) -> str:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        last = " ".join(self.log_text().split())[-_SHOWN:]
        return f"ended by {how}" + (f": {last}" if last else "")
