"""The gate's report as Markdown for a CI job's summary page."""

from __future__ import annotations

from pathlib import Path

from harness.errors import InfrastructureError
from harness.gate.result import GateReport, RuleResult
from harness.report.gate_terminal import WORDS
from harness.report.markdown import escape_text, escape_untrusted, table

_MAX_PASSED, _MAX_OPEN = 200, 400
"""GitHub shows at most 1 MiB of summary a step; checks beyond this are only counted."""
_MAX_NAME = 120


def gate_markdown(report: GateReport, *, title: str = "sparsebench") -> str:
    """Return the verdict, a table of what did not pass, and the passed checks folded away."""
    open_results = [result for result in report.results if result.verdict != "pass"]
    passed = [result for result in report.results if result.verdict == "pass"]
    lines = [f"## Gate: {escape_untrusted(title)}", "", f"**{escape_text(report.line)}**", ""]
    if open_results:
        lines += [*_table(open_results[:_MAX_OPEN]), ""]
        if len(open_results) > _MAX_OPEN:
            lines += [f"and {len(open_results) - _MAX_OPEN} more that did not pass", ""]
    lines += [*(f"> note: {escape_untrusted(note)}" for note in report.notes), ""] if report.notes else []
    if passed:
        lines += ["<details>", f"<summary>{len(passed)} passed</summary>", "", *_table(passed[:_MAX_PASSED])]
        if len(passed) > _MAX_PASSED:
            lines += ["", f"and {len(passed) - _MAX_PASSED} more"]
        lines += ["", "</details>", ""]
    return "\n".join(lines)


def _table(results: list[RuleResult]) -> list[str]:
    header = ["verdict", "rule", "variant", "suite", "against", "what was found"]
    rows = [
        [WORDS[r.verdict], r.rule, _name(r.variant), _name(r.suite), _name(r.against), escape_untrusted(r.message)]
        for r in results
    ]
    return table(header, rows, left=len(header))


def _name(text: str | None) -> str:
    return escape_untrusted(text or "", most=_MAX_NAME)


def append_markdown(path: Path, text: str) -> None:
    """Append to a file, as `$GITHUB_STEP_SUMMARY` is used by all steps of a job.

    Raises:
        InfrastructureError: It cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8", errors="replace") as stream:
            stream.write(text if text.endswith("\n") else text + "\n")
    except OSError as error:
        raise InfrastructureError(f"cannot write {path}: {error.strerror}; name another file") from None
