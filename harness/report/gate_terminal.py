"""The gate's report as plain text."""

from __future__ import annotations

from harness.gate.result import GateReport
from harness.report.printable import printable

WORDS = {"pass": "pass", "fail": "FAIL", "inconclusive": "INCONCLUSIVE", "error": "ERROR"}


def gate_text(report: GateReport) -> str:
    """Return one aligned line a check, then the notes and the verdict line; ends in a line break."""
    rows = [
        tuple(printable(cell) for cell in (WORDS[r.verdict], r.rule, r.variant, r.suite or "", r.message))
        for r in report.results
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    lines = []
    for row in rows:
        head = "  ".join(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True))
        lines.append(f"{head}  {row[4]}".rstrip())
    notes = [f"note: {printable(note)}" for note in report.notes]
    return "\n".join([*lines, *notes, report.line]) + "\n"
