"""The gate's JUnit against what Jenkins' junit-10.xsd (xunit plugin) allows, and with text that XML cannot hold."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate import GateReport, RuleResult
from harness.report.gate_junit import gate_junit

# element: (children, attributes it needs, attributes it may have); as in the schema, counts and times are text.
ALLOWED = {
    "testsuites": ({"testsuite"}, set[str](), {"name", "time", "tests", "failures", "errors"}),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
    ),
    "testcase": (
        {"skipped", "error", "failure", "system-out", "system-err"},
        {"name"},
        {"time", "classname", "group"},
    ),
    "failure": (set[str](), set[str](), {"type", "message"}),
    "error": (set[str](), set[str](), {"type", "message"}),
    "skipped": (set[str](), set[str](), {"type", "message"}),
    "system-out": (set[str](), set[str](), set[str]()),
}
MIXED = {"failure", "error", "skipped", "system-out"}
"""Elements that may hold text."""
VERDICTS: tuple[Literal["pass", "fail", "inconclusive", "error"], ...] = ("pass", "fail", "inconclusive", "error")


def problems(element: ElementTree.Element) -> list[str]:
    """What the schema does not allow, below and at an element."""
    if element.tag not in ALLOWED:
        return [f"<{element.tag}>"]
    children, needed, optional = ALLOWED[element.tag]
    found = [f"{element.tag} needs {name}" for name in needed - set(element.attrib)]
    found += [f"{element.tag} may not have {name}" for name in set(element.attrib) - needed - optional]
    found += [f"{child.tag} in {element.tag}" for child in element if child.tag not in children]
    text = (element.text or "") + "".join(child.tail or "" for child in element)
    if element.tag not in MIXED and text.strip():
        found.append(f"text in {element.tag}")
    return found + [problem for child in element for problem in problems(child)]


def report(text: str, on: Literal["pass", "fail"] = "fail") -> GateReport:
    results = tuple(
        RuleResult(
            rule="no_regression",
            variant=text,
            suite=text,
            verdict=verdict,
            message=text,
            against=text,
            items=(text, text) if verdict == "fail" else (),
            exit_code=3 if verdict == "error" else None,
        )
        for verdict in VERDICTS
    )
    return GateReport(results, on, notes=(text,))


def test_the_check_itself_sees_what_the_schema_refuses() -> None:
    for xml, words in (
        ('<testsuites skipped="0"/>', "testsuites may not have skipped"),
        ("<testsuites><testcase name='a'/></testsuites>", "testcase in testsuites"),
        ("<testsuites><testsuite name='a' tests='1' failures='0'/></testsuites>", "testsuite needs errors"),
        ("<testsuites>x</testsuites>", "text in testsuites"),
    ):
        assert problems(ElementTree.fromstring(xml)) == [words]


@pytest.mark.parametrize("on", ["pass", "fail"])
def test_every_verdict_fits_and_the_counts_are_those_of_the_cases(on: Literal["pass", "fail"]) -> None:
    root = ElementTree.fromstring(gate_junit(report("name", on)))
    assert problems(root) == []
    suite = root[0]
    for count, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.attrib[count]) == len(list(suite.iter(tag))), count
    assert len(list(suite.iter("skipped"))) == (1 if on == "pass" else 0)


@given(
    st.text(
        alphabet=st.one_of(
            st.sampled_from("\x00\x08\x0b\x1b\x7f\x85\u2028\ud800\udfff\ufffe\uffff<>&\"'\n\r\t]"), st.characters()
        ),
        max_size=30,
    )
)
def test_any_text_gives_xml_that_parses_and_fits(text: str) -> None:
    data = gate_junit(report(text), title=text).encode("utf-8")
    root = ElementTree.fromstring(data)
    assert problems(root) == [] and len(root[0].findall("testcase")) == 4


def test_readable_text_is_kept() -> None:
    text = 'naïve "<70 %>" & 語 \U0001f600'
    case = ElementTree.fromstring(gate_junit(report(text)))[0][1]
    assert case.attrib["name"] == f"{text}.{text} against {text}"
    assert case.find("failure").attrib["message"] == text  # type: ignore[union-attr]


def test_a_strict_parser_takes_it() -> None:
    etree = pytest.importorskip("lxml.etree", reason="lxml is not installed")
    parser = etree.XMLParser(recover=False, resolve_entities=False, huge_tree=False)
    etree.fromstring(gate_junit(report("a\x00\ud800\x1b[0m]]>b")).encode("utf-8"), parser)
