"""Which Python the sandbox runs, and the host paths that it needs."""

from __future__ import annotations

import functools
import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SandboxUnavailable

_SYSTEM = ("/usr/bin/python3", "/usr/local/bin/python3")
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
_ASK = "import json, sys, sysconfig as s; print(json.dumps([sys.version.split()[0], sys.base_prefix, s.get_path('stdlib'), s.get_path('platstdlib')]))"  # noqa: E501


@dataclass(frozen=True)
class Interpreter:
    """A Python that the sandbox's user can run.

    Attributes:
        executable: Its real path.
        version: Such as `3.11.2`.
        paths: Host files and folders that it reads, to be shown read-only inside the sandbox; none lies below another.
        links: Symbolic links of the root folder to make inside, as (link, target), such as (`/lib`, `usr/lib`).
    """

    executable: str
    version: str
    paths: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def _world_readable(path: str) -> bool:
    """Whether any user can reach and read a path, and list it if it is a folder."""
    for folder in Path(path).parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            return False
    mode = Path(path).stat().st_mode
    return bool(mode & stat.S_IROTH) and bool(mode & stat.S_IXOTH or not stat.S_ISDIR(mode))


def _describe(executable: str) -> tuple[str, list[str]] | None:
    """Version and library folders of an interpreter; None if it does not run."""
    try:
        done = subprocess.run([executable, "-I", "-S", "-c", _ASK], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version, prefix, *folders = json.loads(done.stdout)
    return version, [*folders, *([] if prefix == "/usr" else [f"{prefix}/lib"])]


def _outermost(paths: set[str]) -> tuple[str, ...]:
    return tuple(sorted(p for p in paths if not any(p != q and p.startswith(q + "/") for q in paths)))


@functools.cache
def find_interpreter(*, any_user: bool) -> Interpreter:
    """The Python to run generated code with: the harness's own if the sandbox's user can read it, else the system's.

    Args:
        any_user: The sandbox runs as another user than this process, so everything must be world-readable.

    Raises:
        SandboxUnavailable: There is none.
    """
    links = tuple((p, os.readlink(p)) for p in ("/lib", "/lib64") if os.path.islink(p))
    tried: list[str] = []
    for name in dict.fromkeys(os.path.realpath(p) for p in (sys.executable, *_SYSTEM)):
        if name in tried or not os.path.exists(name):
            continue
        tried.append(name)
        if any_user and not _world_readable(name):
            continue
        found = _describe(name)
        if found is None or (any_user and not all(_world_readable(p) for p in found[1] if os.path.exists(p))):
            continue
        libraries = [p for p in _LIBRARIES if os.path.exists(p) and p not in dict(links)]
        paths = _outermost({p for p in (name, *found[1], *libraries) if os.path.exists(p)})
        return Interpreter(name, found[0], paths, links)
    raise SandboxUnavailable(
        f"no Python that an unprivileged user can run (tried {', '.join(tried)}); "
        "install the system's python3 (apt-get install python3-minimal)"
    )
