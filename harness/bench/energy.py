"""Energy of the processor package from the kernel's RAPL counters (`/sys/class/powercap`), where they can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """One package's energy counter: microjoules so far, and the value at which it starts again from 0."""

    microjoules: int
    limit: int


def read_energy(root: Path = POWERCAP) -> dict[str, Counter] | None:
    """Counters of all packages by zone, or None where there are none or they may not be read (virtual machines, users).

    Zones below a package (core, dram) are parts of it on most machines, and so are left out.
    """
    counters = {}
    for zone in sorted(root.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:
            continue
        try:
            used, limit = (int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj"))
        except (OSError, ValueError):
            return None
        counters[zone.name] = Counter(used, limit)
    return counters or None


def joules_between(before: Mapping[str, Counter] | None, after: Mapping[str, Counter] | None) -> float | None:
    """Joules used between two readings, over all packages; None unless both were read.

    A counter that is lower than before has started again once.
    """
    if before is None or after is None or before.keys() != after.keys():
        return None
    total = 0
    for name, start in before.items():
        spent = after[name].microjoules - start.microjoules
        total += spent if spent >= 0 else spent + start.limit
    return total / 1e6
