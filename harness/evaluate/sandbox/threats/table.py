"""The threat table as docs/sandbox.md shows it, made from the same lines that the tests run."""

from __future__ import annotations

from collections.abc import Sequence

from harness.evaluate.sandbox.threats import THREATS
from harness.evaluate.sandbox.threats.threat import Goal, Threat
from harness.report.markdown import replaced

BEGIN, END = "<!-- threats: begin, made by harness.evaluate.sandbox.threats.table -->", "<!-- threats: end -->"
_TITLES: dict[Goal, str] = {
    "machine": "The machine: must be contained",
    "verdict": "The verdict: must not be fooled",
}


def threat_tables(threats: Sequence[Threat] = THREATS) -> str:
    """Both tables in Markdown, between the lines by which a document is brought up to date."""
    parts = [BEGIN]
    for goal, title in _TITLES.items():
        rows = [threat for threat in threats if threat.goal == goal]
        parts += [
            f"### {title} ({len(rows)})",
            "\n".join(["| asset | attack | control | outcome | test |", "|---|---|---|---|---|", *map(_row, rows)]),
        ]
    return "\n\n".join([*parts, END]) + "\n"


def _row(threat: Threat) -> str:
    ends = " or ".join(f"`{end}`" for end in threat.ends)
    if threat.marked:
        ends = f"`suspicious` ({ends})"
    cells = (threat.asset, threat.attack, threat.control, ends, f"`{threat.name}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def updated(document: str) -> str:
    """A document with its tables made anew.

    Raises:
        ValueError: It has no place for them.
    """
    return replaced(document, BEGIN, END, threat_tables())
