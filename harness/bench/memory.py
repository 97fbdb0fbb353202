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


def reset_peak() -> bool:
    """Start the peak of `read_memory` again from what is resident now; whether that was possible (Linux only)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def limit_memory(allowance: int) -> None:
    """Let this process allocate `allowance` bytes beyond what it has; more fails like a full memory (Linux only)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    data = next(line for line in status.read_text().splitlines() if line.startswith("VmData:"))
    most = int(data.split()[1]) * 1024 + allowance
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on the accelerator; torch has no type for the former."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("DefaultCPUAllocator", "out of memory", "bad_alloc", "Cannot allocate memory")
    )
