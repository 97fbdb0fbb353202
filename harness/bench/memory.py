"""Memory of the calling process."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Bytes of resident memory: now, and the most so far. `source` says where the numbers come from."""

    rss: int | None
    peak_rss: int
    source: str


def read_memory() -> Memory:
    """Resident memory of this process: `/proc/self/status` where it exists, else getrusage (peak only).

    The peak includes the interpreter and the libraries; a process forked from one that had them loaded counts them too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in fields and "VmRSS" in fields:
            rss, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
            return Memory(rss, peak, "/proc/self/status")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Memory(None, peak if sys.platform == "darwin" else peak * 1024, "getrusage")
