"""Pocket programs: solutions pass their tests, wrong programs do not, and items come back byte for byte."""

from __future__ import annotations

import ast
import hashlib
import itertools
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from suites.pocket import code
from suites.pocket.draw import Draw

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"task_id", "prompt", "entry_point", "canonical_solution", "test"}


def draws(difficulty: int, count: int = 300) -> list[Draw]:
    return [
        code.draw(random.Random(f"{difficulty}/{i}"), difficulty=difficulty, templates=code.TEMPLATES)
        for i in range(count)
    ]


def passes(doc: Mapping[str, Any], solution: str) -> bool:
    """Whether a solution passes; the text is our own, so it runs here."""
    space: dict[str, Any] = {}
    try:
        exec(doc["prompt"] + solution + doc["test"], space)
        space["check"](space[doc["entry_point"]])
    except (AssertionError, TypeError, ValueError, IndexError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4])
def test_solution_passes_and_a_constant_does_not(difficulty: int) -> None:
    for draw in draws(difficulty):
        assert set(draw.doc) == FIELDS
        assert draw.response == draw.doc["canonical_solution"]
        assert passes(draw.doc, draw.response), draw.doc["prompt"] + draw.response + draw.doc["test"]
        assert not passes(draw.doc, "    return None\n")
        first = re.findall(r"\) == (.*)\n", draw.doc["test"])[0]
        assert not passes(draw.doc, f"    return {first}\n"), draw.doc["test"]


@pytest.mark.parametrize(
    ("old", "new", "share"),
    [
        (" + ", " - ", 0.8),
        (" - ", " + ", 0.8),
        (" * ", " + ", 0.8),
        (" and ", " or ", 0.8),
        (" != ", " == ", 0.9),
        ("startswith", "endswith", 0.8),
        (" > ", " >= ", 0.5),
        (" < ", " <= ", 0.5),
    ],
)
def test_wrong_programs_are_mostly_caught(old: str, new: str, share: float) -> None:
    # Some changes leave the meaning as it was (adding a zero or not), so not all can be caught.
    mutants = [
        (draw.doc, draw.response.replace(old, new))
        for difficulty in (1, 2, 3, 4)
        for draw in draws(difficulty, 200)
        if old in draw.response
    ]
    assert len(mutants) > 10
    caught = sum(not passes(doc, solution) for doc, solution in mutants)
    assert caught >= share * len(mutants)


def test_documents_have_the_form_of_humaneval() -> None:
    for draw in itertools.chain.from_iterable(draws(d, 100) for d in (1, 2, 3, 4)):
        doc = draw.doc
        assert doc["task_id"] == "Pocket/" + hashlib.sha256(doc["prompt"].encode()).hexdigest()[:8]
        assert doc["prompt"].startswith(f"def {doc['entry_point']}(") and doc["prompt"].endswith('    """\n')
        assert doc["test"].startswith("\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(")
        assert 4 <= doc["test"].count("assert candidate(") <= 6
        body = doc["canonical_solution"]
        assert body.endswith("\n") and all(line.startswith("    ") for line in body.splitlines())
        assert 1 <= len(body.splitlines()) <= 8
        function = ast.parse(doc["prompt"] + body).body[0]
        assert isinstance(function, ast.FunctionDef)
        assert "{" not in (ast.get_docstring(function) or "")


def test_examples_are_true_and_not_asked_again() -> None:
    shown = 0
    for draw in itertools.chain.from_iterable(draws(d, 200) for d in (1, 2, 3, 4)):
        match = re.search(r">>> \w+\((.*)\)\n    (.*)\n", draw.doc["prompt"])
        if match:
            shown += 1
            assert f"candidate({match[1]}) ==" not in draw.doc["test"]
            test = f"\n\ndef check(candidate):\n    assert candidate({match[1]}) == {match[2]}\n"
            assert passes({**draw.doc, "test": test}, draw.response)
    assert 150 < shown < 400


def test_difficulty_grows_with_the_body() -> None:
    mean = [sum(len(d.response) for d in draws(difficulty)) / 300 for difficulty in (1, 2, 3, 4)]
    assert mean == sorted(mean) and mean[3] > 3 * mean[0]


def test_templates_and_unseen_share() -> None:
    assert len(code.TEMPLATES) == len(set(code.TEMPLATES)) > 1000
    for difficulty in (1, 2, 3, 4):
        served = code.templates_for(difficulty)
        share = sum(t in code.UNSEEN for t in served) / len(served)
        assert 0.1 <= share <= 0.2
    # What a held-out composition is made of is taught by others.
    pieces = {part for t in code.TEMPLATES for part in t.partition(":")[2].split("-")}
    taught = {part for t in code.TEMPLATES if t not in code.UNSEEN for part in t.partition(":")[2].split("-")}
    assert pieces == taught
    forms = {t.partition(":")[0] for t in code.TEMPLATES}
    assert forms == {t.partition(":")[0] for t in code.TEMPLATES if t not in code.UNSEEN}
