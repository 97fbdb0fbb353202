"""Processor time of this process and everything that it starts, from a control group.

`getrusage` misses what a killed sandbox leaves to the kernel to reap, and the clock counts what others do here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Meter = Callable[[], float]


def _hierarchy(root: Path, cgroups: str) -> tuple[Path, str] | None:
    """Folder of this process's own group and the file that counts, version 1 before 2."""
    lines = [line.split(":", 2) for line in cgroups.splitlines() if line.count(":") >= 2]
    for _, controllers, path in lines:
        if "cpuacct" in controllers.split(","):
            for mount in (controllers, "cpuacct"):
                if (folder := root / mount / path.lstrip("/")).is_dir():
                    return folder, "cpuacct.usage"
    for number, controllers, path in lines:
        if number == "0" and not controllers and (folder := root / path.lstrip("/")).is_dir():
            return folder, "cpu.stat"
    return None


def _seconds(path: Path) -> float:
    words = path.read_text().split()
    return int(words[0]) / 1e9 if len(words) == 1 else int(words[words.index("usage_usec") + 1]) / 1e6


@contextmanager
def cpu_meter(root: Path = Path("/sys/fs/cgroup"), cgroups: Path = Path("/proc/self/cgroup")) -> Iterator[Meter | None]:
    """A function that tells the processor seconds so far; None where no group may be made (not root, or none mounted).

    This process lives in a group of its own meanwhile, and so does everything that it starts.
    """
    found = _hierarchy(root, cgroups.read_text() if cgroups.is_file() else "")
    if found is None:
        yield None
        return
    home, counter = found
    group = home / f"sparsebench-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        _seconds(group / counter)
    except (OSError, ValueError):
        _leave(home, group)
        yield None
        return
    try:
        yield lambda: _seconds(group / counter)
    finally:
        _leave(home, group)


def _leave(home: Path, group: Path) -> None:
    """Go back; a group that something still lives in stays, empty of our doing."""
    for step in (lambda: (home / "cgroup.procs").write_text(str(os.getpid())), group.rmdir):
        try:
            step()
        except OSError:
            continue
