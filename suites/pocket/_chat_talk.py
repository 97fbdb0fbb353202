"""A two-turn conversation in the making, and the small words that vary between conversations."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_OPENERS = ("", "", "", "Hello! ", "Hi. ", "Good morning. ", "Please remember: ", "Here is some news. ")
_LEADS = ("", "", "", "Tell me: ", "Please answer: ", "Question: ")
_SECOND = ("", "", "", "Thanks. ", "Good. ", "Right. ", "Next: ", "Now tell me: ")
_NEWS = ("Actually, ", "Wait, ", "Sorry, ", "Now ", "News: ", "No, ")


@dataclass(frozen=True)
class Talk:
    """Two user turns, the two ideal answers, and the values that fill them.

    Attributes:
        turns: What the user says first and second.
        answers: The ideal answer to each turn.
        slots: All values, in a fixed order; the wording is no part of them.
    """

    turns: tuple[str, str]
    answers: tuple[str, str]
    slots: tuple[str, ...]


Maker = Callable[[random.Random], Talk]


def opener(rng: random.Random) -> str:
    """A greeting or nothing, with the space that follows it."""
    return rng.choice(_OPENERS)


def question(rng: random.Random, wordings: Sequence[str]) -> str:
    """One wording of a first-turn question, perhaps led in."""
    return rng.choice(_LEADS) + rng.choice(wordings)


def follow_up(rng: random.Random, wordings: Sequence[str]) -> str:
    """One wording of a second-turn question, perhaps led in."""
    return rng.choice(_SECOND) + rng.choice(wordings)


def news(rng: random.Random) -> str:
    """The word that introduces a change."""
    return rng.choice(_NEWS)


def article(noun: str) -> str:
    """The noun behind its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
