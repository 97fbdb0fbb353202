"""The state of one arithmetic word problem while it is told: its sentences, its steps and every choice made."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from suites.pocket import lexicon

T = TypeVar("T")

# Per difficulty 1..4: start of a sum, addend, size of a group, number of groups, largest product, largest result.
_START = ((2, 15), (5, 50), (11, 90), (20, 200))
_ADDEND = ((2, 12), (2, 40), (5, 90), (10, 200))
_SIZE = ((2, 9), (2, 9), (11, 40), (11, 99))
_COUNT = ((2, 5), (2, 9), (2, 9), (3, 9))
_PRODUCT = (45, 72, 360, 450)
LIMIT = (50, 99, 999, 999)


class Story:
    """A word problem under construction.

    Attributes:
        difficulty: 1 to 4; fixes the ranges of the numbers.
        left: Reasoning steps that are still to be told.
        slots: Every choice made so far, as strings.
        sentences: The question text without the final question.
        lines: The answer lines.
        value: Result of the last step.
        multiplied: Whether a step was a product.
        copied: Whether a continuation was a product.
        fields: Words for the sentence patterns (`n` and `m` names, `u` the counted things, ...).
        domain: Which continuations fit (`suites.pocket._gsm8k_tails.DOMAINS`).
        ask: Question patterns that fit the last step.
    """

    def __init__(self, rng: random.Random, difficulty: int, steps: int) -> None:
        """Start an empty story of `steps` reasoning steps."""
        self._rng = rng
        self.difficulty = difficulty
        self.left = steps
        self.slots: list[str] = []
        self.sentences: list[str] = []
        self.lines: list[str] = []
        self.value = 0
        self.multiplied = False
        self.copied = False
        self.domain = "things"
        self.ask: tuple[str, ...] = ()
        self.fields: dict[str, str] = {}
        self._names = list(lexicon.NAMES)
        self.fields["n"] = self.name()
        self.fields["m"] = self.name()

    def pick(self, options: Sequence[T]) -> T:
        """One of the options; its index becomes a slot."""
        index = self._rng.randrange(len(options))
        option = options[index]
        self.slots.append(option if isinstance(option, str) and " " not in option else str(index))
        return option

    def chance(self, share: float) -> bool:
        """True with probability `share`; recorded by what it leads to."""
        return self._rng.random() < share

    def name(self) -> str:
        """A name that this story has not used."""
        name = self.pick(self._names)
        self._names.remove(name)
        return name

    def number(self, low: int, high: int) -> int:
        """A whole number in [low, high], recorded."""
        value = self._rng.randint(low, max(low, high))
        self.slots.append(str(value))
        return value

    def start(self) -> int:
        """The first number of a sum or difference."""
        return self.number(*_START[self.difficulty - 1])

    def addend(self) -> int:
        """A number to add that keeps the result in range."""
        low, high = _ADDEND[self.difficulty - 1]
        return self.number(low, min(high, LIMIT[self.difficulty - 1] - self.value))

    def part(self, value: int) -> int:
        """A number to take away from `value` that leaves at least 2."""
        high = _ADDEND[self.difficulty - 1][1]
        return self.number(1 if value < 6 else 2, min(high, value - 2))

    def factors(self) -> tuple[int, int]:
        """A group size and a number of groups with a product in range."""
        level = self.difficulty - 1
        count = self.number(*_COUNT[level])
        low, high = _SIZE[level]
        return self.number(low, min(high, _PRODUCT[level] // count)), count

    def say(self, patterns: Sequence[str], **numbers: object) -> None:
        """Tell one of several wordings of a sentence."""
        self.sentences.append(self.pick(patterns).format(**self.fields, **numbers))

    def step(self, label: str, left: int, sign: str, right: int, unit: str = "{u}") -> int:
        """Add one reasoning step with its calculator mark; returns its result."""
        if sign == "+":
            value = left + right
        elif sign == "-":
            value = left - right
        elif sign == "*":
            value = left * right
            self.multiplied = True
        else:
            value, rest = divmod(left, right)
            assert rest == 0, "only exact divisions are told"
        assert value >= 0, "only numbers from 0 on are told"
        head = label.format(**self.fields)
        tail = unit.format(**self.fields)
        self.lines.append(f"{head} {left}{sign}{right}=<<{left}{sign}{right}={value}>>{value} {tail}.")
        self.left -= 1
        self.value = value
        return value
