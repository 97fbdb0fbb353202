"""What a piece of work really took: wall time, peak memory of the process and of the device."""

from __future__ import annotations

import ctypes
import resource
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Used:
    """What was used.

    Attributes:
        seconds: Wall time.
        host_bytes: Peak resident memory of the process above what it had at the start.
        device_bytes: Peak memory that torch held on the device; 0 on the CPU.
    """

    seconds: float
    host_bytes: int
    device_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON."""
        return asdict(self)


class Meter:
    """Measures from its making on; `lap` measures parts within.

    The peak is the kernel's own (VmHWM), which misses nothing between samples. Where it cannot be reset (not on Linux,
    or forbidden) it is the peak of the whole life of the process, and laps see only what exceeds it.
    """

    def __init__(self, device: str) -> None:
        """Start measuring work on `device`."""
        self._cuda = device.startswith("cuda")
        self._device = device
        self._began = self._lap = time.monotonic()
        self._start = _resident()
        self._peak = self._device_peak = 0
        self._reset()

    def lap(self) -> Used:
        """What was used since the last lap; memory above the start of the whole."""
        now, host, device = time.monotonic(), self._host(), self._held()
        self._peak, self._device_peak = max(self._peak, host), max(self._device_peak, device)
        used = Used(round(now - self._lap, 3), host, device)
        self._lap = now
        self._reset()
        return used

    def total(self) -> Used:
        """What was used since the start."""
        self.lap()
        return Used(round(time.monotonic() - self._began, 3), self._peak, self._device_peak)

    def _host(self) -> int:
        return max(0, _peak_resident() - self._start)

    def _held(self) -> int:
        if not self._cuda:
            return 0
        import torch

        return int(torch.cuda.max_memory_allocated(self._device))

    def _reset(self) -> None:
        with suppress(OSError):
            _CLEAR.write_text("5", encoding="ascii")
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)


def give_back() -> None:
    """Return freed memory to the system where the C library is glibc.

    Tensors of up to 32 MB come from its heap, which keeps the holes that they leave: without this the memory of a long
    run creeps up although nothing is held.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident() -> int:
    return _status("VmRSS") or _peak_resident()


def _peak_resident() -> int:
    found = _status("VmHWM")
    # ru_maxrss counts kilobytes, on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return found or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int:
    try:
        text = _STATUS.read_text(encoding="ascii")
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith(key + ":")), "")
    return int(line.split()[1]) * 1024 if line else 0
