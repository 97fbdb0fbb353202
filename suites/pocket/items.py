"""The pocket items: held-out test sets and the endless training stream of the five skills.

Everything follows from seeds: test item `i` of a skill depends only on the skill and `i`, so that a run of 300 items
scores a prefix of the 2,500. Training items are drawn only from templates outside `UNSEEN`, and any draw that shares
its (template, slots) tuple or its normalised prompt with one of the 2,500 test items is thrown away.

The difficulty mix of the test sets was set after the bundled checkpoints were trained (on the dense model's scores
alone), which changed some test items. Those that the checkpoints had met in training are retired: `retired.txt` names
their prompts, and the next draw takes their place.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import itertools
import random
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType

from suites.errors import SuiteError
from suites.pocket.draw import Draw, normalise

SKILLS = ("chat", "code", "gsm8k", "instruct", "summarization")
TEST_SIZE = 2500
TEST_SEED = 20240601
UNSEEN_SHARE = 0.1
_ATTEMPTS = 200


def skill_module(skill: str) -> ModuleType:
    """The generator module of a skill."""
    if skill not in SKILLS:
        raise SuiteError(f"unknown pocket skill {skill!r}; choose one of {', '.join(SKILLS)}")
    return importlib.import_module(f"suites.pocket.{skill}")


def prompt_text(draw: Draw) -> str:
    """All that a model is shown of an item, as one text."""
    doc = draw.doc
    for field in ("question", "article", "prompt"):
        if field in doc:
            return str(doc[field])
    return "\n".join(doc["turns"])


@functools.cache
def _templates(skill: str, difficulty: int, unseen: bool) -> tuple[str, ...]:
    module = skill_module(skill)
    return tuple(t for t in module.templates_for(difficulty) if (t in module.UNSEEN) == unseen)


def _draw(skill: str, rng: random.Random, unseen: bool, mix: Collection[float]) -> Draw:
    difficulty = rng.choices((1, 2, 3, 4), weights=tuple(mix))[0]
    draw = skill_module(skill).draw(rng, difficulty=difficulty, templates=_templates(skill, difficulty, unseen))
    assert isinstance(draw, Draw)
    return draw


def prompt_digest(prompt: str) -> str:
    """The first 12 hex digits of a normalised prompt's SHA-256, as `retired.txt` lists them."""
    return hashlib.sha256(normalise(prompt).encode()).hexdigest()[:12]


@functools.cache
def retired() -> frozenset[str]:
    """Digests of prompts that the bundled checkpoints met in training and that are no test items for it."""
    return frozenset(Path(__file__).with_name("retired.txt").read_text(encoding="utf-8").split())


@functools.cache
def _test_set(skill: str) -> tuple[Draw, ...]:
    module = skill_module(skill)
    items: list[Draw] = []
    keys: set[object] = set()
    for index in range(TEST_SIZE):
        rng = random.Random(f"sparsebench/{skill}/{TEST_SEED}/{index}")
        unseen = index % round(1 / UNSEEN_SHARE) == round(1 / UNSEEN_SHARE) - 1
        for _ in range(_ATTEMPTS):
            draw = _draw(skill, rng, unseen, module.DIFFICULTY_MIX)
            prompt = normalise(prompt_text(draw))
            if draw.key not in keys and prompt not in keys and prompt_digest(prompt) not in retired():
                break
        else:
            raise SuiteError(f"pocket {skill}: templates too narrow for {TEST_SIZE} distinct items; widen their slots")
        keys.update((draw.key, prompt))
        items.append(draw)
    return tuple(items)


def test_items(skill: str, n: int = TEST_SIZE) -> tuple[Draw, ...]:
    """The first `n` of a skill's 2,500 fixed test items; every tenth is of a template unseen in training."""
    if not 0 < n <= TEST_SIZE:
        raise SuiteError(f"pocket {skill} has {TEST_SIZE} test items; ask for 1 to {TEST_SIZE}, not {n}")
    return _test_set(skill)[:n]


def is_unseen(skill: str, draw: Draw) -> bool:
    """Whether the item's template never occurs in training text."""
    return draw.template in skill_module(skill).UNSEEN


def leaks(train: Collection[Draw], test: Collection[Draw]) -> list[Draw]:
    """The training draws that share a (template, slots) tuple or a normalised prompt with a test item."""
    keys: set[object] = {draw.key for draw in test} | {normalise(prompt_text(draw)) for draw in test}
    return [draw for draw in train if draw.key in keys or normalise(prompt_text(draw)) in keys]


def train_items(
    skill: str, *, seed: int = 0, mix: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> Iterator[Draw]:
    """An endless, seeded stream of training items that never meets the test set.

    Args:
        skill: One of `SKILLS`.
        seed: Seed of the stream; streams of different seeds are independent.
        mix: Weights of difficulty 1 to 4.
    """
    forbidden: set[object] = set()
    for draw in _test_set(skill):
        forbidden.update((draw.key, normalise(prompt_text(draw))))
    for index in itertools.count():
        rng = random.Random(f"sparsebench/{skill}/train/{seed}/{index}")
        draw = _draw(skill, rng, False, mix)
        if draw.key not in forbidden and normalise(prompt_text(draw)) not in forbidden:
            yield draw
