"""Starts the two kinds of worker, asks them and ends them; and the environment in which the peer's lives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.errors import ConfigError, InfrastructureError

PEER_PINS = (("torch==2.13.0",), ("llmcompressor==0.14.0.1",))
_ROOT = Path(__file__).resolve().parents[3]
_RUNNER = Path(__file__).with_name("peer_worker.py")


class Worker:
    """A process that answers one JSON line with another; use it as a context manager.

    Attributes:
        versions: What it says about itself when it is ready.
    """

    def __init__(self, command: Sequence[str], *, log: Path, threads: int = 1) -> None:
        """Remember how to start it; it starts with the first request. What it prints goes to `log`."""
        self._command, self._log, self._threads = list(command), log, threads
        self._process: subprocess.Popen[str] | None = None
        self.versions: dict[str, str] = {}

    def __enter__(self) -> Worker:
        """Nothing yet: starting may take a minute, and may not be needed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer; `error` in it is the worker's own.

        Raises:
            InfrastructureError: The process ended without an answer.
        """
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            self._gone()
        return self._read(process)

    def close(self) -> None:
        """End the process, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _start(self) -> subprocess.Popen[str]:
        threads = str(self._threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))),
        }
        if self._command[1:2] == [str(_RUNNER)]:
            # The peer's own environment sees none of our packages.
            environment.pop("PYTHONPATH")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        self._process = process
        self.versions = self._read(process)["ready"]
        return process

    def _read(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self._gone()
        return parse_answer(line)

    def _gone(self) -> None:
        code = self._process.wait() if self._process else None
        self._process = None
        raise InfrastructureError(f"{Path(self._command[-1]).name} ended with code {code}; see {self._log}")


def parse_answer(line: str) -> dict[str, Any]:
    """An answer of a worker.

    Raises:
        InfrastructureError: The line is not a JSON object.
    """
    try:
        answer = json.loads(line)
    except json.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise InfrastructureError(f"a worker answered {line[:80]!r}, which is no JSON object")
    return answer


def our_worker(log: Path) -> Worker:
    """The process that makes our variants."""
    return Worker([sys.executable, "-P", "-m", "harness.bench.sparsify.our_worker"], log=log)


def peer_worker(environment: Path, log: Path) -> Worker:
    """The process that runs llm-compressor in its own environment."""
    return Worker([str(environment / "bin" / "python"), str(_RUNNER)], log=log)


def make_peer_environment(directory: Path) -> Path:
    """Create the peer's environment with its pins, unless it is there.

    Raises:
        ConfigError: The folder exists and is no environment, or pip could not install the pins.
    """
    python = str(directory / "bin" / "python")
    installed = [python, "-c", "import importlib.metadata as m; print(m.version('llmcompressor'))"]
    if Path(python).exists():
        if subprocess.run(installed, capture_output=True).returncode == 0:
            return directory
    elif directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"--peers {directory} exists and is no virtual environment; name another folder")
    else:
        venv.create(directory, with_pip=True)
    for pins in PEER_PINS:
        done = subprocess.run([python, "-m", "pip", "install", "-q", *pins], capture_output=True, text=True)
        if done.returncode:
            reason = " ".join(done.stderr.split())[-300:]
            raise ConfigError(f"--peers: pip could not install {' '.join(pins)} into {directory}: {reason}")
    return directory
