from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from suites.instruct import checkers, scoring
from suites.pocket.items import test_items as pocket_items
from suites.registry import load_suite, suite_hash

ROOT = Path(__file__).resolve().parents[2]
STOCK = {
    "prompt_level_strict": "prompt_level_strict_acc",
    "inst_level_strict": "inst_level_strict_acc",
    "prompt_level_loose": "prompt_level_loose_acc",
    "inst_level_loose": "inst_level_loose_acc",
}

# One document and a good and a bad answer for each of IFEval's 25 instruction types.
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["boat", "ring"]}, "A Boat and rings.", "A boat."),
    ("keywords:frequency", {"keyword": "boat", "frequency": 2, "relation": "at least"}, "Boat, boat.", "Boat."),
    ("keywords:forbidden_words", {"forbidden_words": ["boat"]}, "Two boats.", "One boat."),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": "at least"}, "See.", "Me."),
    ("language:response_language", {"language": "fr"}, "Bonjour, je suis dans la maison.", "I am in the house."),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        "One. Two.",
        "Yes! No? Go on.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "One two three.", "One two."),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "warm"},
        "One.\n\nWarm day.",
        "Warm.\n\nOne.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Text.\nP.S. More.", "Text."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and b"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1\na\nPart 2\nb",
        "Part 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<boat>>\nText.", "<boat>\nText."),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One.\n******\nOne."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it.\nYes.", "Yes. Say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, "It was the end.", "The end. Yes."),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "A BIG cat",
        "A cat",
    ),
    ("change_case:english_capital", {}, "THIS IS WHAT WE THINK OF IT.", "This is what we think of it."),
    ("change_case:english_lowercase", {}, "this is what we think of it.", "This is what we think of it."),
    ("punctuation:no_comma", {}, "One and two.", "One, two."),
    ("startend:quotation", {}, '"One."', '"One'),
]


def document(instruction: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"key": 1, "prompt": "Say it.", "instruction_id_list": [instruction], "kwargs": [kwargs]}


@pytest.mark.parametrize(("instruction", "kwargs", "good", "bad"), CASES, ids=[case[0] for case in CASES])
def test_each_instruction_type(instruction: str, kwargs: dict[str, Any], good: str, bad: str) -> None:
    doc = document(instruction, kwargs)
    assert scoring.score(doc, good)["prompt_level_strict"] == 1.0
    assert scoring.score(doc, bad)["prompt_level_strict"] == 0.0


def test_all_types_are_covered() -> None:
    assert sorted(checkers.load()) == sorted(case[0] for case in CASES)


def test_same_scores_with_the_hub_s_nulls() -> None:
    every = {name: None for _, kwargs, _, _ in CASES for name in kwargs}
    for instruction, kwargs, good, bad in CASES:
        local, hub = document(instruction, kwargs), document(instruction, every | kwargs)
        assert [scoring.score(local, text) for text in (good, bad)] == [
            scoring.score(hub, text) for text in (good, bad)
        ]


def test_levels_and_loose_readings() -> None:
    doc = document("punctuation:no_comma", {})
    doc["instruction_id_list"] = ["punctuation:no_comma", "startend:quotation"]
    doc["kwargs"] = [{}, {}]
    assert scoring.score(doc, 'Sure, here it is:\n"One two."') == {
        "prompt_level_strict": 0.0,
        "inst_level_strict": [0.0, 0.0],
        "prompt_level_loose": 1.0,
        "inst_level_loose": [1.0, 1.0],
    }
    assert scoring.score(doc, " \n ") == {
        "prompt_level_strict": 0.0,
        "inst_level_strict": [0.0, 0.0],
        "prompt_level_loose": 0.0,
        "inst_level_loose": [0.0, 0.0],
    }


def test_runaway_brackets_are_a_wrong_answer_not_a_crash() -> None:
    assert scoring.score(document("detectable_format:json_format", {}), "[" * 200_000)["prompt_level_strict"] == 0.0


def test_scores_are_pure_where_the_original_draws_a_letter() -> None:
    doc = document("keywords:letter_frequency", {"letter": "#", "let_frequency": 4, "let_relation": "at least"})
    assert {scoring.score(doc, "####")["prompt_level_strict"] for _ in range(20)} == {1.0}
    assert {scoring.score(doc, "aaaa " * 9)["prompt_level_strict"] for _ in range(20)} == {0.0}


# Rows of the published file, one or two of each instruction type, with texts that meet some of them.
ROWS = Path(os.environ.get("SPARSEBENCH_DATA", ROOT.parent / "shared" / "data")) / "ifeval" / "input_data.jsonl"


def outputs(doc: dict[str, Any]) -> list[str]:
    return [
        "Sure, here it is.\n* one\n* two\n\nP.S. Thanks!",
        f"{doc['prompt']}\n<<title>>\n{'word ' * 120}",
        '"hello world, this is all lowercase english text."',
        "SECTION 1\nTHIS IS WHAT WE THINK\nSECTION 2\n***\n[name] *a* *b* *c*\nMy answer is yes.",
        "",
    ]


@pytest.mark.skipif(not ROWS.is_file(), reason="needs the original IFEval file (ifeval/input_data.jsonl)")
def test_parity_with_lm_eval_on_real_rows() -> None:
    checkers.load()
    from lm_eval.tasks.ifeval import utils

    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["key"] not in (1122, 1129)]  # the original scores these at random
    positive = 0
    for row in rows[::9]:
        for text in outputs(row):
            ours, theirs = scoring.score(row, text), utils.process_results(row, [text])
            assert ours == {name: theirs[stock] for name, stock in STOCK.items()}, (row["key"], text)
            positive += ours["prompt_level_strict"] == 1.0
    assert len(rows[::9]) == 60
    assert positive >= 20


OFFLINE = """
    import json, os, socket, sys

    def refuse(*_):
        raise AssertionError("a socket was opened")

    socket.socket.connect = refuse
    socket.getaddrinfo = refuse
    from suites.instruct import checkers, scoring

    heavy = {"lm_eval", "nltk", "langdetect", "datasets"} & set(sys.modules)
    assert not heavy, heavy
    before = dict(os.environ)
    assert checkers.load() is checkers.load()
    assert dict(os.environ) == before
    assert "torch" not in sys.modules
    scored = 0
    for line in sys.stdin:
        doc = json.loads(line)
        scores = scoring.score(doc, "One. Two! THREE?\\nP.S. [four], *five*")
        assert len(scores["inst_level_loose"]) == len(doc["kwargs"])
        scored += 1
    print(scored)
"""


@pytest.mark.parametrize("rank", [None, "3"])
def test_loads_and_scores_with_sockets_blocked(rank: str | None) -> None:
    if ROWS.is_file() and rank is None:
        text = ROWS.read_text(encoding="utf-8")
    else:
        text = "".join(json.dumps(document(instruction, kwargs)) + "\n" for instruction, kwargs, _, _ in CASES)
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"LOCAL_RANK": rank} if rank else {})
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OFFLINE)], input=text, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # All of stdout: a failed download would print that it succeeded.
    assert done.stdout == f"{len(text.splitlines())}\n"


def test_header_and_hash() -> None:
    suite = load_suite("instruct")
    assert suite.primary_metric in scoring.score(document("punctuation:no_comma", {}), "Yes.")
    assert suite.prompt == "chat"
    assert suite.preset("pocket").data == "pocket"
    assert len(suite_hash(suite)) == 64


def test_stock_task_gives_the_same_prompts_and_scores() -> None:
    checkers.load()
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(ROOT / "suites"), include_defaults=False, metadata={"n": 12})
    task = manager.load_task_or_group(["sparsebench_instruct"])["sparsebench_instruct"]
    draws = pocket_items("instruct", 12)
    docs = list(task.test_docs())
    assert [task.doc_to_text(doc) for doc in docs] == [draw.doc["prompt"] for draw in draws]
    perfect = [task.process_results(doc, [draw.response]) for doc, draw in zip(docs, draws, strict=True)]
    assert perfect == [scoring.score(draw.doc, str(draw.response)) for draw in draws]
    empty = [task.process_results(doc, [""]) for doc in docs]
    means = {
        name: aggregate([row[name] for row in perfect[:1] + empty]) for name, aggregate in task.aggregation().items()
    }
    assert set(means) == set(STOCK)
    instructions = [len(draw.doc["kwargs"]) for draw in draws]
    assert means["prompt_level_strict"] == pytest.approx(1 / 13)
    assert means["inst_level_strict"] == pytest.approx(instructions[0] / (instructions[0] + sum(instructions)))
    settings = task.config.generation_kwargs
    assert (settings["until"], settings["do_sample"], settings["max_gen_toks"]) == ([], False, 160)
