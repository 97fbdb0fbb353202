"""A raised priority for the speed processes, where the system allows it, so that other work disturbs them less."""

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


def priority() -> dict[str, int | None]:
    """The niceness of this process, and of its session where the system has such a thing."""
    group = None
    with contextlib.suppress(OSError, ValueError):
        group = int(AUTOGROUP.read_text().rsplit(" ", 1)[1])
    return {"nice": os.getpriority(os.PRIO_PROCESS, 0), "session_nice": group}
