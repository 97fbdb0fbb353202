"""The gate's report as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from xml.etree import ElementTree

from harness.gate.result import GateReport, RuleResult


def gate_junit(report: GateReport, *, title: str = "sparsebench") -> str:
    """Return one `testcase` a check: `failure` for a fail, `error` for an error.

    An inconclusive result is a `failure` of type `inconclusive` or, with `--on-inconclusive pass`, `skipped`: JUnit
    has no word for it.
    """
    total = len(report.results)
    inconclusive = report.count("inconclusive")
    as_failure = inconclusive if report.on_inconclusive == "fail" else 0
    counts = {
        "tests": str(total),
        "failures": str(report.count("fail") + as_failure),
        "errors": str(report.count("error")),
        "skipped": str(inconclusive - as_failure),
    }
    root = ElementTree.Element("testsuites", {"name": "sparsebench gate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _legal(title), **counts})
    for result in report.results:
        _case(suite, result, report)
    output = ElementTree.SubElement(suite, "system-out")
    output.text = _legal("\n".join([*report.notes, report.line]))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, result: RuleResult, report: GateReport) -> None:
    against = f" against {result.against}" if result.against else ""
    names = {"classname": _legal(f"gate.{result.rule}"), "name": _legal(f"{result.name}{against}")}
    case = ElementTree.SubElement(suite, "testcase", names)
    message = {"message": _legal(result.message)}
    if result.verdict == "pass":
        ElementTree.SubElement(case, "system-out").text = message["message"]
    elif result.verdict == "error":
        ElementTree.SubElement(case, "error", {**message, "type": f"exit-{result.exit_code}"})
    elif result.verdict == "inconclusive" and report.on_inconclusive == "pass":
        ElementTree.SubElement(case, "skipped", {"message": _legal(f"inconclusive: {result.message}")})
    else:
        failure = ElementTree.SubElement(case, "failure", {**message, "type": result.verdict})
        failure.text = _legal("\n".join(result.items)) or None


def _legal(text: str) -> str:
    """Drop what XML 1.0 cannot hold, not even escaped: most control characters, surrogates, U+FFFE and U+FFFF."""
    return "".join(
        character
        for character in text
        if character in "\t\n\r"
        or (" " <= character and not "\ud800" <= character <= "\udfff" and character < "\ufffe")
        or character > "\uffff"
    )
