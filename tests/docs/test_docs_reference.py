"""The reference pages are what the schemas and the command line say today."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.docs.environment_page import VARIABLES
from harness.docs.markdown import anchor, cell
from harness.docs.pages import reference_pages
from harness.docs.pictures import pictures
from harness.docs.planning import BEGIN, END, SHAPES, skeleton, updated
from harness.docs.schema_tables import Section, sections_text
from harness.errors import ConfigError, InfrastructureError
from harness.gate.margins import needed_for
from harness.study import Study

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = reference_pages()
AGAIN = "run `python -m harness.docs docs` and read the diff"


@pytest.mark.parametrize("name", sorted(PAGES))
def test_committed_pages_are_current(name: str) -> None:
    committed = (REFERENCE / name).read_text(encoding="utf-8")
    assert committed == PAGES[name], AGAIN


def test_no_page_is_left_over() -> None:
    assert {path.name for path in REFERENCE.iterdir()} == set(PAGES)


def test_every_verb_key_and_stage_is_there() -> None:
    for verb in (
        "run",
        "eval",
        "sparsify",
        "gate",
        "compare",
        "score",
        "judge",
        "distance",
        "bench serve",
        "data verify",
    ):
        assert f"## sparsebench {verb}\n" in PAGES["cli.md"]
    for key in Study.model_fields:
        assert f"| `{key}` |" in PAGES["study.md"]
    for stage in ("slice", "prune", "pretrain", "finetune", "quantize"):
        assert f"## {stage}\n" in PAGES["recipes.md"]
    assert "| `p_loss_holm` |" in PAGES["records.md"] and "## gsm8k\n" in PAGES["suites.md"]


def test_variables_are_those_that_the_sources_read() -> None:
    """Named in quotes in Python, or read by getenv in C++; without bait of the sandbox's tests."""
    found: set[str] = set()
    for folder in ("harness", "sparsify", "suites", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".cpp") and "docs" not in path.parts[-2:-1]:
                found |= set(re.findall(r"[\"'](SPARSEBENCH_[A-Z_]+)[\"']", path.read_text(encoding="utf-8")))
    tests_of_docs = {"SPARSEBENCH_DOCS"}
    assert found - {"SPARSEBENCH_BAIT_KEY"} | tests_of_docs == set(VARIABLES)


def test_exit_codes_are_those_of_the_errors() -> None:
    page = PAGES["environment.md"]
    assert f"| {ConfigError.exit_code} | your input" in page
    assert f"| {InfrastructureError.exit_code} | the machine" in page


def test_a_model_without_a_section_is_an_error() -> None:
    with pytest.raises(KeyError):
        sections_text([Section("Study", Study)], mode="validation")


def test_anchors_and_cells() -> None:
    assert anchor("`summary.json` of a run, again") == "summaryjson-of-a-run-again"
    assert anchor("Rule non_inferior") == "rule-non_inferior"
    assert cell("a | b\n <c>") == "a \\| b &lt;c>"


def test_planning_tables_are_current() -> None:
    page = (ROOT / "docs" / "explanation" / "planning.md").read_text(encoding="utf-8")
    assert updated(page) == page, AGAIN
    assert page.count("### ") >= len(SHAPES) and "| prune, SparseGPT, 50 % | 29.3 GB |" in page
    with pytest.raises(ValueError, match="lacks the lines"):
        updated(page.replace(BEGIN, "").replace(END, ""))


def test_shapes_are_those_of_the_models() -> None:
    """Parameter counts as published: Llama 3.2 1B, Llama 2 7B and 70B."""
    counts = [sum(p.numel() for p in skeleton(shape).parameters()) for shape in SHAPES.values()]
    assert counts == [1_235_814_400, 6_738_415_616, 68_976_648_192]


@pytest.mark.parametrize("name", ["intervals.svg", "noise.svg"])
def test_pictures_are_current_and_well_formed(name: str) -> None:
    picture = (ROOT / "docs" / "images" / name).read_text(encoding="utf-8")
    assert picture == pictures(ROOT / "results")[name], AGAIN
    assert ElementTree.fromstring(picture).tag.endswith("svg") and "prefers-color-scheme:dark" in picture


def test_example_rows_are_those_of_the_committed_report() -> None:
    page = (ROOT / "docs" / "explanation" / "numbers.md").read_text(encoding="utf-8")
    report = (ROOT / "results" / "pocket" / "recovery.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| (chat|code|gsm8k) \|", line)]
    known = {re.sub(r" +", " ", line) for line in report.splitlines()}
    assert len(rows) == 3 and set(rows) <= known


def test_required_items_are_those_of_the_planner() -> None:
    page = (ROOT / "docs" / "explanation" / "numbers.md").read_text(encoding="utf-8")
    for margin, words in ((0.01, "1 point"), (0.02, "2 points"), (0.05, "5 points")):
        counts = [needed_for("gsm8k", preset, margin) for preset in ("5shot", "pocket")]
        assert f"| {words} | {counts[0]:,} | {counts[1]:,} |" in page
