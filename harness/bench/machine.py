"""What the machine was and how busy it was; recorded beside every panel. Nothing that names the machine or its user."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """Processor, core count, operating system and Python; the same on every call."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


@dataclass(frozen=True)
class Activity:
    """Clock ticks of all cores since boot: in total, idle, and taken by other guests of the hypervisor."""

    total: int
    idle: int
    steal: int


def read_activity() -> Activity | None:
    """Counters of `/proc/stat`, or None where there is none."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    ticks = [int(field) for field in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return Activity(sum(ticks), ticks[3] + ticks[4], ticks[7])


def busy_between(before: Activity | None, after: Activity | None) -> dict[str, Any]:
    """Shares of all cores' time that were busy and stolen, and the load average; null where unknown."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    shares: dict[str, Any] = {"busy": None, "steal": None, "load_average": list(load) if load else None}
    if before is not None and after is not None and after.total > before.total:
        span = after.total - before.total
        shares["busy"] = round(1 - (after.idle - before.idle) / span, 4)
        shares["steal"] = round((after.steal - before.steal) / span, 4)
    return shares
