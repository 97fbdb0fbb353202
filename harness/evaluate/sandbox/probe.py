"""Finds the sandbox that works on this machine."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace

from harness.errors import ConfigError, InfrastructureError, SandboxUnavailable
from harness.evaluate.sandbox.backends import NOBODY, Backend, Bwrap, Container, Unshare
from harness.evaluate.sandbox.interpreter import find_interpreter
from harness.evaluate.sandbox.process import Guest
from harness.evaluate.sandbox.session import Sandbox
from harness.evaluate.sandbox.types import Limits, SandboxInfo

VARIABLE = "SPARSEBENCH_SANDBOX"
IMAGE_VARIABLE = "SPARSEBENCH_SANDBOX_IMAGE"
DEFAULT_IMAGE = "python:3.11-slim"
_PATH = os.pathsep.join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))


def _tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=_PATH)
    if found is None:
        raise SandboxUnavailable(f"{name} is not installed")
    return os.path.realpath(found)


def _output(argv: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=seconds, check=True, text=True)
    except (OSError, subprocess.SubprocessError):
        raise SandboxUnavailable(f"{os.path.basename(argv[0])} does not answer") from None
    return done.stdout.strip()


def _bwrap() -> Backend:
    executable = _tool("bwrap")
    options = frozenset(re.findall(r"--[a-z-]+", _output([executable, "--help"], 10)))
    if missing := {"--clearenv", "--size", "--remount-ro"} - options:
        raise SandboxUnavailable(f"bubblewrap is too old: it lacks {', '.join(sorted(missing))} (0.7 has them)")
    root = os.geteuid() == 0
    # setpriv rather than subprocess(user=...): that makes Python fork, which is slow in a process that holds a model.
    drop = (_tool("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if root else ()
    return Bwrap(executable, options, drop, find_interpreter(any_user=root))


def _container(name: str) -> Backend:
    executable = _tool(name)
    _output([executable, "version", "--format", "{{.Server.Version}}" if name == "docker" else "{{.Version}}"], 3)
    image = os.environ.get(IMAGE_VARIABLE, DEFAULT_IMAGE)
    try:
        _output([executable, "image", "inspect", "--format", "{{.Id}}", image], 5)
    except SandboxUnavailable:
        raise SandboxUnavailable(
            f"{name} has no image {image} (run: {name} pull {image}, or set {IMAGE_VARIABLE})"
        ) from None
    return Container(executable, image, dict(os.environ), name)


def _unshare() -> Backend:
    if os.geteuid() != 0:
        raise SandboxUnavailable("unshare needs root")
    return Unshare(_tool("unshare"), _mount_point(), find_interpreter(any_user=True))


@functools.cache
def _mount_point() -> str:
    """An empty folder, kept for the life of the process; the sandbox mounts over it where nobody else sees it."""
    holder = tempfile.TemporaryDirectory(prefix="sparsebench-root-")
    _holders.append(holder)
    return holder.name


_holders: list[tempfile.TemporaryDirectory[str]] = []

_BACKENDS: dict[str, Callable[[], Backend]] = {
    "bwrap": _bwrap,
    "docker": lambda: _container("docker"),
    "podman": lambda: _container("podman"),
    "unshare": _unshare,
}


def _try(name: str) -> tuple[Backend, SandboxInfo]:
    """A backend that has started a process here.

    Raises:
        SandboxUnavailable: It is not installed, not allowed, or does not start.
    """
    backend = _BACKENDS[name]()
    try:
        guest = Guest(backend, "candidate", replace(Limits(), start_seconds=30.0))
    except InfrastructureError as error:
        raise SandboxUnavailable(str(error)) from None
    guest.close()
    users = {"bwrap": f"uid {NOBODY if os.geteuid() == 0 else os.geteuid()}", "unshare": "a uid of its own"}
    return backend, SandboxInfo(name, f"{guest.greeting}, {users.get(name, f'uid {NOBODY}')}")


def _choose(preferred: str | None) -> tuple[Backend, SandboxInfo]:
    wanted = preferred or os.environ.get(VARIABLE) or "auto"
    if wanted != "auto" and wanted not in _BACKENDS:
        raise ConfigError(f"{VARIABLE}={wanted!r} is unknown; choose one of auto, {', '.join(_BACKENDS)}")
    reasons = []
    for name in _BACKENDS if wanted == "auto" else (wanted,):
        try:
            return _try(name)
        except SandboxUnavailable as error:
            reasons.append(f"{name}: {error}")
    raise SandboxUnavailable(
        f"no sandbox for generated code ({'; '.join(reasons)}); install one, e.g. apt-get install bubblewrap"
    )


def probe(preferred: str | None = None) -> SandboxInfo:
    """Which sandbox works here; a trivial process was really started in it.

    Args:
        preferred: `bwrap`, `docker`, `podman`, `unshare` or `auto`; None reads SPARSEBENCH_SANDBOX, else `auto`.

    Raises:
        SandboxUnavailable: None does; the message names each one's reason.
        ConfigError: There is no sandbox of that name.
    """
    return _choose(preferred)[1]


def open_sandbox(preferred: str | None = None, *, limits: Limits | None = None, workers: int | None = None) -> Sandbox:
    """The sandbox that works here, ready to run programs; arguments and errors as in `probe`."""
    backend, info = _choose(preferred)
    return Sandbox(backend, info, limits, workers)
