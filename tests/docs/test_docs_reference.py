"""The reference pages are what the schemas and the command line say today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.docs.environment_page import VARIABLES
from harness.docs.markdown import anchor, cell
from harness.docs.pages import reference_pages
from harness.docs.schema_tables import Section, sections_text
from harness.errors import ConfigError, InfrastructureError
from harness.study import Study

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = reference_pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_committed_pages_are_current(name: str) -> None:
    committed = (REFERENCE / name).read_text(encoding="utf-8")
    assert committed == PAGES[name], "run `python -m harness.docs docs` and read the diff"


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
