"""What holds for the items of every pocket skill: held out, distinct, leaks found, the same bytes everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from suites.pocket import items
from suites.pocket.draw import Draw, normalise

ROOT = Path(__file__).resolve().parents[2]
FIELD = {"chat": "turns", "code": "prompt", "gsm8k": "question", "instruct": "prompt", "summarization": "article"}
# SHA-256 of `digest`'s text: a change of any test item is a new version of the suite, never an accident.
DIGESTS = {
    "chat": "f84e6dab5127941d3a42e425093ad82bb724a79bbced2948622770b5197bf453",
    "code": "979adc530123ae3e027dff7a4af5ed079277b4f8ed7ee71cb9ba171890213fd5",
    "gsm8k": "54de78f2ab3b35944543fcb082085bb2ee51dc916f7e5badc999e8105625e983",
    "instruct": "486ca6115a17081b8a9d51b492b1927826041981e870ae1d87c1dec864b9e65f",
    "summarization": "330c40050f3daaa24cff29eb74cee21b26a5e741b15063f429ab07ca09c89abf",
}
CODE = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
from test_pocket_items import digest
print(digest({skill!r}))
"""


def digest(skill: str) -> str:
    """Of all test items and the beginning of a training stream."""
    rows = [*items.test_items(skill), *itertools.islice(items.train_items(skill, seed=3), 200)]
    plain = [[row.template, row.slots, row.difficulty, dict(row.doc), row.response] for row in rows]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


@pytest.mark.parametrize("skill", items.SKILLS)
def test_items_are_the_same_bytes_in_every_process(skill: str) -> None:
    code = CODE.format(root=str(ROOT), here=str(Path(__file__).parent), skill=skill)
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(skill) == DIGESTS[skill]


@pytest.mark.parametrize("skill", items.SKILLS)
def test_the_test_set_is_distinct_and_every_tenth_item_unseen(skill: str) -> None:
    test = items.test_items(skill)
    assert len({draw.key for draw in test}) == items.TEST_SIZE == 2500
    assert len({normalise(items.prompt_text(draw)) for draw in test}) == items.TEST_SIZE
    assert [items.is_unseen(skill, draw) for draw in test] == [index % 10 == 9 for index in range(items.TEST_SIZE)]
    assert items.test_items(skill, 300) == test[:300]


@pytest.mark.parametrize("skill", items.SKILLS)
def test_training_never_meets_the_test_set_and_planted_leaks_are_found(skill: str) -> None:
    module, test = items.skill_module(skill), items.test_items(skill)
    train = list(itertools.islice(items.train_items(skill, seed=1), 3000))
    assert not {draw.template for draw in train} & module.UNSEEN
    assert items.leaks(train, test) == []
    assert len({normalise(items.prompt_text(draw)) for draw in train}) > 0.95 * len(train)
    assert len({draw.key for draw in train}) > 0.95 * len(train)
    field = FIELD[skill]
    reworded = dataclasses.replace(test[3], doc={**test[3].doc, field: train[0].doc[field]})
    loud = test[8].doc[field]
    loud = [turn.upper() for turn in loud] if skill == "chat" else loud.upper() + " "
    same_prompt = Draw("other", ("x",), 1, {**test[8].doc, field: loud}, test[8].response)
    assert items.leaks([*train, test[17], reworded, same_prompt], test) == [test[17], reworded, same_prompt]


@pytest.mark.parametrize("skill", items.SKILLS)
def test_every_difficulty_has_seen_and_unseen_templates_that_can_be_drawn(skill: str) -> None:
    module = items.skill_module(skill)
    assert len(module.TEMPLATES) == len(set(module.TEMPLATES)) >= 12
    assert module.UNSEEN <= set(module.TEMPLATES) and len(module.UNSEEN) >= 0.1 * len(module.TEMPLATES)
    assert set(itertools.chain(*(module.templates_for(level) for level in (1, 2, 3, 4)))) == set(module.TEMPLATES)
    for difficulty in (1, 2, 3, 4):
        served = module.templates_for(difficulty)
        assert {template in module.UNSEEN for template in served} == {True, False}
        for template in served:
            draw = module.draw(random.Random(7), difficulty=difficulty, templates=(template,))
            assert (draw.template, draw.difficulty) == (template, difficulty)
        forms = (served, tuple(reversed(served)), set(served), frozenset(served))
        drawn = [module.draw(random.Random(5), difficulty=difficulty, templates=form) for form in forms]
        assert drawn[1:] == drawn[:-1], "the container of the templates must not matter"


# Chat and instruct word the same slots in several ways; to the leak check these are one item.
@pytest.mark.parametrize("skill", ["code", "gsm8k", "summarization"])
def test_same_slots_mean_same_prompt(skill: str) -> None:
    prompts: dict[object, str] = {}
    for draw in itertools.islice(items.train_items(skill, seed=5), 4000):
        prompt = items.prompt_text(draw)
        assert prompts.setdefault((draw.key, draw.difficulty), prompt) == prompt
