from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from suites.instruct.scoring import score
from suites.pocket import instruct
from suites.pocket._instruct_rules import COUNTING, RULES, compatible
from suites.pocket.draw import Draw
from suites.pocket.items import normalise, prompt_text, train_items

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


def test_variety_and_length_of_the_stream() -> None:
    train = list(itertools.islice(train_items("instruct"), 20_000))
    assert len({normalise(prompt_text(draw)) for draw in train}) > 0.95 * len(train)
    assert len({draw.key for draw in train}) > 0.95 * len(train)
    words = [len(prompt_text(draw).split()) + len(str(draw.response).split()) for draw in train]
    assert 30 < sum(words) / len(words) < 80
    assert max(words) < 140
