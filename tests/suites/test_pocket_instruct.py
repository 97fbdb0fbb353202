from __future__ import annotations

import hashlib
import itertools
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from suites.instruct.scoring import score
from suites.pocket import instruct
from suites.pocket._instruct_rules import COUNTING, RULES, compatible
from suites.pocket.draw import Draw
from suites.pocket.items import leaks, normalise, prompt_text, train_items
from suites.pocket.items import test_items as pocket_items

ROOT = Path(__file__).resolve().parents[2]


def draws(difficulty: int, count: int, seed: str = "test") -> list[Draw]:
    templates = instruct.templates_for(difficulty)
    rngs = (random.Random(f"{seed}/{difficulty}/{index}") for index in range(count))
    return [instruct.draw(rng, difficulty=difficulty, templates=templates) for rng in rngs]


def strict(draw: Draw, text: str) -> Any:
    return score(draw.doc, text)["prompt_level_strict"]


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4])
def test_ideal_answers_score_full_marks(difficulty: int) -> None:
    for draw in draws(difficulty, 300):
        scores = score(draw.doc, str(draw.response))
        flat = [scores["prompt_level_strict"], scores["prompt_level_loose"], scores["inst_level_strict"]]
        assert flat == [1.0, 1.0, [1.0] * len(draw.doc["kwargs"])], (draw.doc, draw.response)


@pytest.mark.parametrize("rule", ["lowercase", "capital"])
def test_langdetect_takes_answers_in_one_case_for_english(rule: str) -> None:
    # The names in an answer may look like any language; the draw itself must not ask langdetect (too slow).
    for difficulty in (1, 2, 3, 4):
        templates = tuple(t for t in instruct.templates_for(difficulty) if rule in t.split("+"))
        for index in range(50):
            draw = instruct.draw(random.Random(f"{rule}/{index}"), difficulty=difficulty, templates=templates)
            assert strict(draw, str(draw.response)) == 1.0, draw.response


# How to break each instruction's part of an answer without touching the document.
BREAK: dict[str, Any] = {
    "no_comma": lambda text: f"{text}, yes",
    "lowercase": lambda text: f"{text} Yes",
    "capital": lambda text: f"{text} yes",
    "title": lambda text: text.replace("<<", "<"),
    "quotation": lambda text: text[1:],
    "end": lambda text: f"{text} Yes",
    "postscript": lambda text: text.replace("P.", "P").replace("p.", "p"),
    "bullets": lambda text: f"{text}\n* yes",
    "sections": lambda text: text.replace("1\n", "\n"),
    "highlights": lambda text: text.replace("*", ""),
    "placeholders": lambda text: text.replace("[", "").replace("]", ""),
    "two": lambda text: text.replace("******", ""),
    "repeat": lambda text: f"Yes. {text}",
    "paragraph": lambda text: text.replace("\n\n", "\n"),
    "constrained": lambda text: text.replace("My answer", "It"),
}


def broken(name: str, kwargs: dict[str, Any], text: str) -> str:
    if name == "existence":
        return text.lower().replace(kwargs["keywords"][0], "x")
    if name == "frequency":
        return text.lower().replace(kwargs["keyword"], "x", 1)
    if name == "forbidden":
        return f"{kwargs['forbidden_words'][-1]} {text}"
    if name == "words":
        return f"{text} yes" * 99 if kwargs["relation"] == "less than" else "yes"
    return str(BREAK[name](text))


def test_a_corrupt_answer_loses_the_instruction_it_breaks() -> None:
    names = {rule.id: name for name, rule in RULES.items()}
    seen = set()
    for draw in itertools.chain.from_iterable(draws(difficulty, 120, "break") for difficulty in (1, 2, 3, 4)):
        for index, (rule_id, kwargs) in enumerate(
            zip(draw.doc["instruction_id_list"], draw.doc["kwargs"], strict=True)
        ):
            text = broken(names[rule_id], kwargs, str(draw.response))
            followed = score(draw.doc, text)["inst_level_strict"]
            assert isinstance(followed, list)
            assert followed[index] == 0.0, (rule_id, draw.response, text)
            seen.add(names[rule_id])
    assert seen == set(RULES)


def test_documents_have_the_benchmark_s_form() -> None:
    for draw in draws(4, 50) + draws(1, 50):
        doc = draw.doc
        assert list(doc) == ["key", "prompt", "instruction_id_list", "kwargs"]
        assert isinstance(doc["key"], int)
        assert len(doc["instruction_id_list"]) == len(doc["kwargs"]) == len(draw.template.split("+")) - 1
        assert all(value is not None for kwargs in doc["kwargs"] for value in kwargs.values())
        assert "{" not in doc["prompt"] + str(draw.response)


def test_difficulty_and_unseen_templates() -> None:
    listed = [instruct.templates_for(difficulty) for difficulty in (1, 2, 3, 4)]
    assert sorted(itertools.chain(*listed)) == sorted(set(instruct.TEMPLATES))
    assert sum(len(templates) for templates in listed) == len(instruct.TEMPLATES) >= 12
    for templates in listed:
        assert 0.1 <= sum(t in instruct.UNSEEN for t in templates) / len(templates) <= 0.15
    for template in instruct.TEMPLATES:
        assert compatible(template.split("+")[1:])
    four = [template.split("+")[1:] for template in listed[3]]
    assert all(set(rules) & set(COUNTING) or "repeat" in rules for rules in four)
    # Some sets of instructions are unseen with every request: new combinations are tested, not only new subjects.
    rules_of = [template.partition("+")[2] for template in instruct.TEMPLATES if template not in instruct.UNSEEN]
    assert {t.partition("+")[2] for t in instruct.UNSEEN} - set(rules_of)
    assert {rule for rules in rules_of for rule in rules.split("+")} == set(RULES)


def test_the_container_of_templates_does_not_matter() -> None:
    templates = instruct.templates_for(3)
    forms: list[Any] = [templates, list(reversed(templates)), set(templates), frozenset(templates)]
    assert len({instruct.draw(random.Random(5), difficulty=3, templates=form).key for form in forms}) == 1


def test_training_never_meets_the_test_set_and_a_planted_leak_is_found() -> None:
    test = pocket_items("instruct")
    train = list(itertools.islice(train_items("instruct", seed=3), 4000))
    assert not leaks(train, test)
    assert not {draw.template for draw in train} & instruct.UNSEEN
    assert len({draw.key for draw in test}) == len({normalise(prompt_text(draw)) for draw in test}) == len(test) == 2500
    same_slots = replace(test[7], doc={**test[7].doc, "prompt": "Another wording."})
    same_prompt = replace(test[8], slots=("other",), doc={**test[8].doc, "prompt": test[8].doc["prompt"].upper()})
    assert leaks([*train, same_slots, same_prompt], test) == [same_slots, same_prompt]


def test_every_tenth_test_item_is_of_an_unseen_combination() -> None:
    unseen = [draw.template in instruct.UNSEEN for draw in pocket_items("instruct", 300)]
    assert unseen == [index % 10 == 9 for index in range(300)]


def test_variety_and_speed_of_the_stream() -> None:
    next(train_items("instruct"))
    started = time.process_time()
    train = list(itertools.islice(train_items("instruct"), 20_000))
    seconds = time.process_time() - started
    assert len({normalise(prompt_text(draw)) for draw in train}) > 0.95 * len(train)
    assert len({draw.key for draw in train}) > 0.95 * len(train)
    assert len(train) / seconds > 500  # several thousand on an idle machine
    words = [len(prompt_text(draw).split()) + len(str(draw.response).split()) for draw in train]
    assert 30 < sum(words) / len(words) < 80
    assert max(words) < 140


def digest(seed: str) -> str:
    code = (
        "import hashlib, itertools\n"
        "from suites.pocket.items import test_items, train_items\n"
        "draws = [*test_items('instruct'), *itertools.islice(train_items('instruct', seed=1), 500)]\n"
        "print(hashlib.sha256('\\n'.join(map(repr, draws)).encode()).hexdigest())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_regenerated_byte_for_byte_in_other_processes() -> None:
    here = [*pocket_items("instruct"), *itertools.islice(train_items("instruct", seed=1), 500)]
    expected = hashlib.sha256("\n".join(map(repr, here)).encode()).hexdigest() + "\n"
    assert digest("1") == digest("2") == expected
