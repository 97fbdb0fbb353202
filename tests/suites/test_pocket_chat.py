"""The pocket conversations: correct, held out, reproducible."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from suites.chat.scoring import score
from suites.pocket import chat, items
from suites.pocket.draw import Draw


def _draws(difficulty: int, count: int = 300) -> list[Draw]:
    rng = random.Random(difficulty)
    return [chat.draw(rng, difficulty=difficulty, templates=chat.TEMPLATES) for _ in range(count)]


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4])
def test_ideal_answers_get_full_marks_and_wrong_ones_do_not(difficulty: int) -> None:
    for draw in _draws(difficulty):
        first, second = draw.response
        assert score(draw.doc, draw.response)["both_turns"] == 1.0
        assert draw.doc["reference"] == list(draw.response)
        assert score(draw.doc, [first, f"{second} {first}x"])["both_turns"] == 0.0
        assert score(draw.doc, ["", second]) == {
            "answered": 0.0,
            "turn1": 0.0,
            "turn2": 1.0,
            "both_turns": 0.0,
            "turns": [0.0, 1.0],
        }
        said = " ".join(draw.doc["turns"])
        assert score(draw.doc, [said, said])["turns"] == [0.0, 0.0], "repeating all facts must not count"


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4])
def test_answers_come_from_the_conversation(difficulty: int) -> None:
    fixed = set("the list is first second third last item has items your name you were told me facts in 3 4 5".split())
    fixed |= set("live lives work works as like likes best have had for lunch hobby of born bought are years".split())
    fixed |= set("old at on lesson teaches a an and was".split())
    for draw in _draws(difficulty):
        said = set(re.findall(r"\w+", " ".join(draw.doc["turns"]).lower()))
        answer = set(re.findall(r"\w+", " ".join(draw.response).lower()))
        assert answer - fixed <= said, (draw.doc, answer - fixed - said)


def test_known_conversations() -> None:
    """One template of each kind, solved here by reading the words of the prompt, not by the generator's state."""
    rng = random.Random(5)
    for _ in range(50):
        draw = chat.draw(rng, difficulty=3, templates=["list4.repeat.reverse"])
        listed = draw.response[0].removeprefix("The list is ").removesuffix(".")
        assert listed in draw.doc["turns"][0]
        assert draw.response[1] == f"The list is {', '.join(reversed(listed.split(', ')))}."
        draw = chat.draw(rng, difficulty=4, templates=["list5.replace.shorten"])
        before = draw.response[0].removesuffix(".").split(", ")
        assert draw.response[1].removesuffix(".").split(", ") == before[:-1]
        draw = chat.draw(rng, difficulty=4, templates=["people2x2.recall.swap"])
        name = draw.response[1].split()[0]
        sentence = next(s for s in draw.doc["turns"][1].split(".") if "swap" in s)
        assert name in sentence
        value = draw.response[1].removesuffix(".").split()[-1]
        own = [s for s in re.split(r"[.?]", draw.doc["turns"][0]) if name in s and value in s.split()]
        assert not own or value in ("lunch",), "after a swap the value is no longer the person's own"


def test_training_answers_are_short() -> None:
    train = itertools.islice(items.train_items("chat", seed=1), 5000)
    assert max(len(text) for draw in train for text in draw.response) / 3.5 < 40, "max_new_tokens of the suite"
