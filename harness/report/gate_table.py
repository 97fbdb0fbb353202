"""The gate's report as plain text."""

from __future__ import annotations

from harness.gate import GateReport

_WORDS = {"pass": "pass", "fail": "FAIL", "inconclusive": "INCONCLUSIVE", "error": "ERROR"}


def gate_text(report: GateReport) -> str:
    """Return one aligned line a check, then the verdict line; ends in a line break."""
    rows = [(_WORDS[r.verdict], r.rule, r.variant, r.suite or "", r.message) for r in report.results]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    lines = []
    for row in rows:
        head = "  ".join(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True))
        lines.append(f"{head}  {row[4]}".rstrip())
    return "\n".join([*lines, report.line]) + "\n"
