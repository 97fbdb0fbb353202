"""The gate's report as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from xml.etree import ElementTree

from harness.gate.result import GateReport, RuleResult
from harness.report.xml_text import xml_legal


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
    }
    skipped = {"skipped": str(inconclusive - as_failure)}  # Jenkins' schema has no such count on the root
    root = ElementTree.Element("testsuites", {"name": "sparsebench gate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": xml_legal(title), **counts, **skipped})
    for result in report.results:
        _case(suite, result, report)
    output = ElementTree.SubElement(suite, "system-out")
    output.text = xml_legal("\n".join([*report.notes, report.line]))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, result: RuleResult, report: GateReport) -> None:
    against = f" against {result.against}" if result.against else ""
    names = {"classname": xml_legal(f"gate.{result.rule}"), "name": xml_legal(f"{result.name}{against}")}
    case = ElementTree.SubElement(suite, "testcase", names)
    message = {"message": xml_legal(result.message)}
    if result.verdict == "pass":
        ElementTree.SubElement(case, "system-out").text = message["message"]
    elif result.verdict == "error":
        ElementTree.SubElement(case, "error", {**message, "type": f"exit-{result.exit_code}"})
    elif result.verdict == "inconclusive" and report.on_inconclusive == "pass":
        ElementTree.SubElement(case, "skipped", {"message": xml_legal(f"inconclusive: {result.message}")})
    else:
        failure = ElementTree.SubElement(case, "failure", {**message, "type": result.verdict})
        failure.text = xml_legal("\n".join(result.items)) or None
