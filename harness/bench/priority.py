"""Priority and place of the speed processes, so that other work disturbs them less, and all of them alike."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NICE = -10
AUTOGROUP = Path("/proc/self/autogroup")


def raise_priority() -> None:
    """Ask for the processor before ordinary processes; without the right to (not root), nothing changes.

    All workers of a panel inherit it, so that their ratio stays fair. Linux may share the processor between sessions
    first (autogroup) and look at niceness only within one; so the caller, a child process, gets a session of its own.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if AUTOGROUP.exists():
        with contextlib.suppress(OSError):
            os.setsid()
            AUTOGROUP.write_text(str(NICE))


def favour(pid: int) -> None:
    """The same for a process that was just started with a session of its own."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE))


def keep_to(threads: int, pid: int = 0) -> None:
    """Keep a process (0: this one) to as many processors as it has threads, the last ones that it may use.

    All workers of a panel get the same ones. Otherwise the scheduler puts each where it likes, and the difference
    between two processors (and what their other halves are doing) looks like one between variants.
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(pid, allowed[-threads:])


def priority() -> dict[str, int | None]:
    """The niceness of this process, and of its session where the system has such a thing."""
    group = None
    with contextlib.suppress(OSError, ValueError):
        group = int(AUTOGROUP.read_text().rsplit(" ", 1)[1])
    return {"nice": os.getpriority(os.PRIO_PROCESS, 0), "session_nice": group}
