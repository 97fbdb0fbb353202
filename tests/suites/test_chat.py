"""Scoring of two-turn conversations."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from suites.chat.scoring import NEEDS_JUDGE, normalise, scorable, score
from suites.registry import load_suite, scorer

DOC = {
    "question_id": "pocket-1",
    "category": "pocket/me",
    "turns": ["I am Anna. I live in Oslo. Where do I live?", "What is my name?"],
    "reference": ["You live in Oslo.", "Your name is Anna."],
}


@pytest.mark.parametrize(
    "text",
    [
        "You live in Oslo.",
        " you  live\nin OSLO ",
        "Sure, you live in Oslo!",
        "Okay. You live in Oslo...",
        "Of course: You live in Oslo",
    ],
)
def test_harmless_differences_do_not_count(text: str) -> None:
    assert score(DOC, [text, "Your name is Anna."])["both_turns"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure.",
        "Oslo",
        "You live in Rome.",
        "You live in Oslo. Your name is Anna.",
        "You do not live in Oslo.",
        "Sure, sure, you live in Oslo.",
        "Your name is Anna. You live in Oslo.",
        "You live in Oslo or Rome.",
        "Surely you live in Oslo.",
    ],
)
def test_anything_else_is_wrong(text: str) -> None:
    scores = score(DOC, [text, "Your name is Anna."])
    assert (scores["turn1"], scores["turn2"], scores["both_turns"]) == (0.0, 1.0, 0.0)
    assert scores["answered"] == float(bool(text))


def test_missing_turns_count_as_empty() -> None:
    assert score(DOC, ["You live in Oslo."])["turns"] == [1.0, 0.0]
    assert score(DOC, "You live in Oslo.")["turn1"] == 1.0
    assert score(DOC, [])["answered"] == 0.0


def test_normalise_keeps_a_lone_filler() -> None:
    assert normalise("Okay.") == "okay"
    assert normalise("Yes, no.") == "no"


def test_mt_bench_needs_a_judge() -> None:
    doc = {"category": "math", "turns": ["1 + 1?", "And 2 + 2?"], "reference": ["2", "4"]}
    assert scorable(doc) == scorable({"turns": ["a"]}) == NEEDS_JUDGE
    assert score(doc, ["2", "4"]) == {"answered": 1.0}
    assert score(doc, ["2", " \n"]) == {"answered": 0.0}
    assert scorable(DOC) is None


def test_suite_header() -> None:
    suite = load_suite("chat")
    assert suite.primary_metric in score(DOC, DOC["reference"])
    assert suite.task_file is None, "a two-turn conversation has no stock form"
    assert scorer("chat").score is score
    assert suite.full is not None and suite.full.local is not None


def test_real_questions() -> None:
    folder = Path(os.environ.get("SPARSEBENCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
    file = folder / "mt_bench" / "question.jsonl"
    if not file.is_file():
        pytest.skip("no mt_bench/question.jsonl; set SPARSEBENCH_DATA to the folder of original data")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 80
    assert {scorable(row) for row in rows} == {NEEDS_JUDGE}
    assert [score(row, row["turns"]) for row in rows] == [{"answered": 1.0}] * 80
