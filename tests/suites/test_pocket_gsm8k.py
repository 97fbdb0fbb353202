"""Pocket arithmetic: the answers are right, follow from the question, and come back byte for byte."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from suites.pocket import gsm8k
from suites.pocket.draw import Draw

MARK = re.compile(r"(\d+)([-+*/])(\d+)=<<(\d+[-+*/]\d+)=(\d+)>>(\d+) ")


def draws(difficulty: int, count: int = 300) -> list[Draw]:
    return [
        gsm8k.draw(random.Random(f"{difficulty}/{i}"), difficulty=difficulty, templates=gsm8k.TEMPLATES)
        for i in range(count)
    ]


def steps(answer: str) -> list[tuple[int, str, int, int]]:
    """Each step as (left, sign, right, result), its three renderings compared."""
    found = []
    for line in answer.splitlines()[:-1]:
        marks = MARK.findall(line)
        assert len(marks) == 1, line
        left, sign, right, inside, result, shown = marks[0]
        assert inside == f"{left}{sign}{right}" and result == shown, line
        found.append((int(left), sign, int(right), int(result)))
    return found


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4])
def test_steps_are_right_and_lead_to_the_answer(difficulty: int) -> None:
    for draw in draws(difficulty):
        assert set(draw.doc) == {"question", "answer"}
        assert draw.response == draw.doc["answer"]
        found = steps(draw.doc["answer"])
        for left, sign, right, result in found:
            exact = {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[sign]
            assert exact == result >= 0, draw.doc["answer"]
        assert draw.doc["answer"].splitlines()[-1] == f"#### {found[-1][3]}"


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4])
def test_numbers_of_a_step_are_given(difficulty: int) -> None:
    for draw in draws(difficulty):
        question = draw.doc["question"]
        known = {int(n) for n in re.findall(r"\d+", question)}
        known |= {2} if "twice" in question else set()
        known |= {7} if "week" in question else set()
        for left, _, right, result in steps(draw.doc["answer"]):
            assert left in known and right in known, (question, draw.doc["answer"])
            known.add(result)


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4])
def test_difficulty_is_steps_and_size(difficulty: int) -> None:
    limit = {1: 99, 2: 99, 3: 999, 4: 999}[difficulty]
    for draw in draws(difficulty):
        found = steps(draw.doc["answer"])
        assert len(found) in {1: (1,), 2: (2,), 3: (3,), 4: (4, 5)}[difficulty]
        assert draw.difficulty == difficulty
        if difficulty >= 3:
            products = [(a, b) for a, sign, b, _ in found if sign == "*"]
            assert products, draw.doc["answer"]
            assert all(min(pair) <= 9 for pair in products), draw.doc["answer"]
        assert all(result <= limit for *_, result in found), draw.doc["answer"]


def test_hardest_level_has_numbers_that_are_not_needed() -> None:
    unused = 0
    for draw in draws(4):
        given = [int(n) for n in re.findall(r"\d+", draw.doc["question"])]
        used = {n for left, _, right, _ in steps(draw.doc["answer"]) for n in (left, right)}
        unused += any(n not in used for n in given)
    assert 90 < unused < 210


def test_no_pattern_field_is_left_open() -> None:
    for draw in itertools.chain.from_iterable(draws(d) for d in (1, 2, 3, 4)):
        text = draw.doc["question"] + draw.doc["answer"]
        assert "{" not in text and "}" not in text and "  " not in text
        assert draw.doc["question"].count("?") == 1
