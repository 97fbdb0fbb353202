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


def machine_state(root: Path = Path("/sys/devices/system/cpu")) -> dict[str, Any]:
    """What can change while a panel runs: clock of every core in MHz, governor, load average; null where unknown."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    governors = {_text(path) for path in root.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {None}
    return {
        "frequency_mhz": _frequencies(root),
        "governor": ", ".join(sorted(str(governor) for governor in governors)) or None,
        "load_average": list(load) if load else None,
    }


def _frequencies(root: Path) -> list[float] | None:
    """From cpufreq, else from `/proc/cpuinfo` (in a virtual machine often only the nominal clock)."""
    known = [_text(path) for path in sorted(root.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    if known and all(known):
        return [int(str(khz)) / 1000 for khz in known]
    lines = (_text(Path("/proc/cpuinfo")) or "").splitlines()
    return [float(line.split(":", 1)[1]) for line in lines if line.startswith("cpu MHz")] or None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None
