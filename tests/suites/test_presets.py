"""Preset files: strict, described, and apart from the hashes of other presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from suites.errors import SuiteError
from suites.gsm8k.presets import cot
from suites.problems import called, modules
from suites.registry import ALL_SUITES, load_suite, read_suite, scorer, suite_hash
from suites.rows import NORMALISE

HEADER = """\
name: toy
version: 1
primary_metric: accuracy
margin: 0.05
presets:
  full: {data: full, max_new_tokens: 8}
"""
OWN = "data: full\nmax_new_tokens: 4\nprotocol: p\nsource: s\n"


def toy(folder: Path, **files: str) -> Path:
    (folder / "presets").mkdir()
    (folder / "suite.yaml").write_text(HEADER)
    for name, text in files.items():
        (folder / "presets" / f"{name}.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("name", ALL_SUITES)
def test_every_preset_names_its_protocol_and_source(name: str) -> None:
    suite = load_suite(name)
    for preset in suite.presets.values():
        assert len(preset.protocol) > 20 and preset.source
    assert len({suite_hash(suite, p) for p, preset in suite.presets.items() if preset.file}) == sum(
        preset.file is not None for preset in suite.presets.values()
    ), "every preset with a file of its own has a hash of its own"


def test_a_new_preset_leaves_the_hashes_of_the_others(tmp_path: Path) -> None:
    before = suite_hash(read_suite(toy(tmp_path)), "full")
    (tmp_path / "presets" / "own.yaml").write_text(OWN)
    (tmp_path / "presets" / "full.yaml").write_text("protocol: said\nsource: here\n")
    suite = read_suite(tmp_path)
    assert suite.preset("full").protocol == "said"
    assert suite_hash(suite) == suite_hash(suite, "full") == before != suite_hash(suite, "own")
    own = suite_hash(suite, "own")
    (tmp_path / "presets" / "own.yaml").write_text(OWN + "stop: ['x']\n")
    assert suite_hash(read_suite(tmp_path), "own") != own


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("full", "max_new_tokens: 9\n", "preset full stands in suite.yaml"),
        ("own", OWN + "colour: red\n", "own.yaml: colour"),
        ("own", OWN + "samples: 5\n", "need a temperature"),
        ("own", OWN + "text: x\nlm_eval: y\n", "either text or lm_eval"),
        ("own", OWN.replace("4", "0"), "presets.own.max_new_tokens must be above 0"),
        ("own", "- 1\n", "must be a mapping"),
        ("own", "a: {\n", "not valid YAML"),
    ],
)
def test_a_wrong_preset_file_is_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message) as caught:
        read_suite(toy(tmp_path, **{name: text}))
    assert "\n" not in str(caught.value)


def test_chains_of_thought_are_read_as_lm_eval_reads_them() -> None:
    from lm_eval.filters.extraction import RegexFilter

    stock = RegexFilter(regex_pattern=r"The answer is (\-?[0-9\.\,]+).")
    texts = ["The answer is 18.", "The answer is 1,234.\nQ:", "The answer is 18", "The answer is -3. x", "no", "So 18."]
    for text, (found,) in zip(texts, stock.apply([[text] for text in texts], [{}] * len(texts)), strict=True):
        assert (cot.strict(text) or "[invalid]") == found.strip()
    assert scorer("gsm8k", "8shot-cot") is cot
    right = cot.score({"answer": "x\n#### 1,234"}, "It is 1234 as 5+5. The answer is 1,234.")
    assert right == {"exact_match_flexible": 1.0, "exact_match_strict": 1.0, "extracted": 1.0}
    assert cot.score({"answer": "x\n#### 7"}, "#### 7")["exact_match_strict"] == 0.0


def test_the_function_under_test_is_found() -> None:
    assert called("def f(x):\n  pass\ndef g(x):\n  pass", ["assert set(g(1)) == set(f(2))"]) == "g"
    assert called("def sum(a, b):\n  pass", ["assert sum(1, 2) == 3"]) == "sum"
    with pytest.raises(ValueError, match="calls no function"):
        called("x = 1", ["assert x == 1"])
    with pytest.raises(ValueError, match="not Python"):
        called("x = 1", ["assert ("])


def test_modules_that_only_the_solution_imports_are_imported_for_the_assertions() -> None:
    tests = ["assert f(1) == sys.getsizeof(1)", "assert f(2) == math.pi"]
    solution = "import sys, os, math as m\nimport json\ndef f(x):\n  import math\n  return sys.getsizeof(x)"
    assert modules(solution, tests) == ["sys"]
    doc = NORMALISE["mbpp"]({"task_id": 596, "text": "t", "code": solution, "test_list": tests[:1]})
    names: dict[str, Any] = {"f": lambda x: __import__("sys").getsizeof(x)}
    exec(doc["test"], names)
    names["check"](None)
    with pytest.raises(ValueError, match="not Python"):
        modules("def f(", tests)


def test_an_mbpp_problem_runs_its_assertions_word_for_word() -> None:
    doc = NORMALISE["mbpp"](
        {
            "task_id": 11,
            "text": "t",
            "code": "def f(x):\r\n  return x",
            "test_list": ["assert f('a\\n')  == 'a\\n'", "assert f(2) == K"],
            "test_setup_code": "K = 2",
        }
    )
    names: dict[str, Any] = {}
    exec(doc["test"], names)
    names["f"] = lambda x: x
    names["check"](None)
    names["f"] = lambda x: 2
    with pytest.raises(AssertionError):
        names["check"](None)
    with pytest.raises(ValueError, match="field test_list is"):
        NORMALISE["mbpp"]({"task_id": 11, "text": "t", "code": "def f(): pass"})
