"""What the speed panels say of a variant, in a form that plots and the headline share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.records import SpeedRow, Summary

UNSETTLED = ("not decided", "unconfirmed", "not measured")


@dataclass(frozen=True, slots=True)
class Measured:
    """The speed of one variant in one panel: the fastest engine that a panel decided on.

    Attributes:
        row: the row; None where there is none that counts.
        said: in words.
        reason: why there is none.
    """

    row: SpeedRow | None
    said: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """One panel at one batch size: rows that may be compared with each other."""

    number: int
    panel: str
    batch: int
    label: str

    def holds(self, row: SpeedRow) -> bool:
        """Whether a row belongs here."""
        return (row.panel, row.batch) == (self.panel, self.batch)


def places(summary: Summary) -> list[Place]:
    """Panels and batch sizes in the order of the records, named by their workload where that is enough."""
    first: dict[tuple[str, int], SpeedRow] = {}
    for row in summary.speed:
        first.setdefault((row.panel, row.batch), row)
    names = [row.workload for row in first.values()]
    return [
        Place(
            i, *key, row.workload if names.count(row.workload) == 1 else f"{row.workload} {row.panel} batch {row.batch}"
        )
        for i, (key, row) in enumerate(first.items())
    ]


def verdict_of(row: SpeedRow) -> str:
    """The panel's verdict; of an older record without one, what ratio, interval and noise floor say."""
    if row.verdict is not None:
        return row.verdict
    if row.ratio is None:
        return "not measured"
    if row.ci95 is None or row.noise_floor is None:
        return "baseline" if _is_baseline(row) else "not decided"
    if row.ci95[0] > 1 + row.noise_floor:
        return "faster"
    return "slower" if row.ci95[1] < 1 - row.noise_floor else "no difference"


def _is_baseline(row: SpeedRow) -> bool:
    return (row.variant, row.engine, row.dtype) == (row.baseline.variant, row.baseline.engine, row.baseline.dtype)


def fastest(summary: Summary, variant: str, place: Place) -> Measured:
    """The variant's row with the highest ratio of those that the panel decided on."""
    rows = [row for row in summary.speed if row.variant == variant and place.holds(row)]
    settled = [row for row in rows if row.ratio is not None and verdict_of(row) not in UNSETTLED]
    if not settled:
        said = (
            "not decided" if any(verdict_of(row) in ("not decided", "unconfirmed") for row in rows) else "not measured"
        )
        reasons = list(dict.fromkeys(row.reason or verdict_of(row) for row in rows if verdict_of(row) == said))
        return Measured(None, said, "; ".join(reasons) or f"{place.label} was not measured for it")
    best = max(settled, key=lambda row: row.ratio or 0.0)
    return Measured(best, f"{best.ratio:.2f}× ({best.engine})")


def engines(rows: Sequence[SpeedRow]) -> list[str]:
    """Engines of rows, in their order."""
    return list(dict.fromkeys(row.engine for row in rows))
