"""Starts a sandboxed Python and waits for its greeting."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import subprocess
import time
from pathlib import Path

from harness.errors import SandboxError
from harness.evaluate.sandbox.backends import FILTER_FD, Backend, Launch
from harness.evaluate.sandbox.channel import Channel, ChannelClosed, ChannelMisuse, ChannelTimeout
from harness.evaluate.sandbox.protocol import HELLO
from harness.evaluate.sandbox.types import Limits

_PACKAGE = "harness.evaluate.sandbox"
_counter = itertools.count()
_NEEDS = {"judge": ("suspicion", "stand_in")}

# Compiles {name: source} from standard input to {name: code}; run by the very interpreter that will load the result.
_COMPILE = (
    "import marshal, sys; texts = eval(sys.stdin.read());"
    "codes = {n: compile(t, n, 'exec', dont_inherit=True, optimize=2) for n, t in texts.items()};"
    "print(marshal.dumps(codes).hex())"
)


@functools.cache
def boot_source(role: str, executable: str | None, first: str | None = None) -> str:
    """The program text that a sandboxed Python is started with.

    The sandbox sees no file of ours, so the modules travel in the command line, each under its own name, and compiled
    where that is possible: compiling takes as long as starting Python.

    Args:
        role: Module whose `main` runs: `candidate` or `judge`.
        first: Module whose `enter_root` takes the last argument off before.
        executable: The interpreter, if it can be run outside the sandbox, too; the modules are sent as text otherwise.
    """
    folder = Path(__file__).parent
    names = ("protocol", *([first] if first else []), "guest", *_NEEDS.get(role, ()), role)
    texts = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in names}
    modules = repr(texts)
    if executable is not None:
        argv = [executable, "-I", "-S", "-c", _COMPILE]
        done = subprocess.run(argv, input=repr(texts), capture_output=True, text=True, check=True, timeout=60)
        modules = f"__import__('marshal').loads(bytes.fromhex({done.stdout.strip()!r}))"
    return (
        "import sys\n"
        "sys.path[:] = [p for p in sys.path if p]\n"
        f"for name, code in {modules}.items():\n"
        f"    module = sys.modules[{_PACKAGE!r} + '.' + name] = type(sys)(name)\n"
        "    exec(code, module.__dict__)\n"
        f"    if name == {first!r}:\n"
        "        module.enter_root(bytes.fromhex(sys.argv.pop()))\n"
        "module.main()\n"
    )


def _start(launch: Launch) -> subprocess.Popen[bytes]:
    """Start the process; the filter waits for it in a pipe, which a few hundred bytes never fill."""
    argv = launch.argv
    inherited: tuple[int, ...] = ()
    if launch.filter:
        read_end, write_end = os.pipe()
        os.write(write_end, launch.filter)
        os.close(write_end)
        inherited = (read_end,)
        argv = tuple(str(read_end) if part == FILTER_FD else part for part in argv)
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(launch.env), bufsize=0, cwd="/", pass_fds=inherited
        )
    finally:
        for fd in inherited:
            os.close(fd)


class Guest:
    """A running sandboxed process and the channel to it.

    Args:
        backend: The kind of sandbox.
        role: `candidate` or `judge`.
        limits: Lowered before anything foreign is loaded.

    Raises:
        SandboxError: The sandbox does not start; no program has run then.
    """

    def __init__(self, backend: Backend, role: str, limits: Limits) -> None:
        tag = f"sparsebench-{os.getpid()}-{next(_counter)}"
        self._launch = backend.launch(
            ("-c", boot_source(role, backend.python, backend.first), limits.as_argument()), limits, tag
        )
        try:
            self._process = _start(self._launch)
        except OSError as error:
            raise SandboxError(f"sandbox {backend.name} does not start: {error}") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self.channel = Channel(os.dup(self._process.stdout.fileno()), os.dup(self._process.stdin.fileno()))
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            greeting = self.channel.receive(time.monotonic() + limits.start_seconds)
        except (ChannelClosed, ChannelMisuse, ChannelTimeout):
            greeting = b""
        if not greeting.startswith(HELLO):
            raise SandboxError(f"sandbox {backend.name} does not start: {self._reason()}")
        self.greeting = greeting[len(HELLO) :].decode("ascii", "replace").strip()
        if self._launch.filter:
            self.greeting += ", system call filter"

    def _reason(self) -> str:
        self._process.kill()
        assert self._process.stderr is not None
        text = self._process.stderr.read(4000).decode("utf-8", "replace").split("\n")
        self.close()
        return next((line for line in reversed(text) if line.strip()), "no message")[:300]

    def wait(self, seconds: float) -> int | None:
        """The exit status (signals as negative numbers) once the process has ended; None if it has not in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End the process and everything that it started; closing twice is fine."""
        self.channel.close()
        self._process.kill()
        if self._launch.stop:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(self._launch.stop, env=dict(self._launch.env), capture_output=True, timeout=30)
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
