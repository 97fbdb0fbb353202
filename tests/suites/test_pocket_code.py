"""Pocket programs: solutions pass their tests, wrong programs do not, and items come back byte for byte."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from suites.pocket import code, items
from suites.pocket.draw import Draw

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"task_id", "prompt", "entry_point", "canonical_solution", "test"}
DIGEST = (
    "import hashlib, json\n"
    "from suites.pocket import items\n"
    "rows = [[d.template, d.slots, d.difficulty, dict(d.doc), d.response] for d in items.test_items('code', 100)]\n"
    "print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())\n"
)


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


def test_every_template_can_be_drawn() -> None:
    for difficulty in (1, 2, 3, 4):
        for template in code.templates_for(difficulty):
            draw = code.draw(random.Random(1), difficulty=difficulty, templates=(template,))
            assert draw.template == template and draw.difficulty == difficulty


def test_same_slots_mean_same_prompt() -> None:
    prompts: dict[object, str] = {}
    for draw in itertools.islice(items.train_items("code", seed=5), 4000):
        assert prompts.setdefault(draw.key, draw.doc["prompt"]) == draw.doc["prompt"]


def test_order_of_a_set_of_templates_does_not_matter() -> None:
    ids = list(code.templates_for(4))
    one = code.draw(random.Random(3), difficulty=4, templates=set(ids))
    two = code.draw(random.Random(3), difficulty=4, templates=tuple(reversed(ids)))
    assert one == two


def test_train_stream_shows_no_unseen_template_and_no_test_item() -> None:
    stream = list(itertools.islice(items.train_items("code", seed=1), 3000))
    assert not {draw.template for draw in stream} & code.UNSEEN
    test = items.test_items("code")
    assert items.leaks(stream, test) == []
    assert len({draw.doc["prompt"] for draw in stream}) > 0.95 * len(stream)
    planted = [*stream, test[17]]
    assert items.leaks(planted, test) == [test[17]]
    reworded = dataclasses.replace(test[3], doc={**test[3].doc, "prompt": "def other():\n"})
    assert items.leaks([reworded], test) == [reworded]


def test_test_set_is_distinct_and_a_tenth_is_unseen() -> None:
    test = items.test_items("code")
    assert len({draw.doc["task_id"] for draw in test}) == len({draw.key for draw in test}) == 2500
    assert sum(items.is_unseen("code", draw) for draw in test) == 250
    assert items.test_items("code", 300) == test[:300]


def test_items_come_back_byte_for_byte() -> None:
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1 and len(digests.pop()) == 64
