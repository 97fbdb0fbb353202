"""The elementary operations and conditions that pocket programs are composed of.

Each has wordings, a piece of Python text and, written independently of that text, a function with its meaning: tests
are computed by the function, so that a wrong piece of text cannot pass them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

LETTERS = tuple("aeorstln")


class Choices:
    """A random source that writes down what it chose."""

    def __init__(self, rng: random.Random) -> None:
        """Choose by `rng`, the only source of chance."""
        self.rng = rng
        self.slots: list[str] = []

    def pick(self, options: Sequence[T]) -> T:
        """One of the options; a word is recorded as itself, anything else by its index."""
        index = self.rng.randrange(len(options))
        option = options[index]
        self.slots.append(option if isinstance(option, str) and len(option) < 12 else str(index))
        return option

    def number(self, low: int, high: int) -> int:
        """A whole number in [low, high], recorded."""
        value = self.rng.randint(low, high)
        self.slots.append(str(value))
        return value


@dataclass(frozen=True)
class Piece:
    """An operation or a condition, its constant still open.

    Attributes:
        code: Python text with `{x}` for the operand and `{k}` for the constant.
        fn: Meaning, called with operand and constant.
        words: Participles of an operation (`increased by 3`), adjectives or verbs of a condition (`greater than 3`).
        nouns: Wordings with the operand in them (`{x} plus {k}`), for operations on one number.
        low: Smallest constant; with `high` 0 there is none; `letter` draws a letter instead.
        high: Largest constant.
        letter: Whether the constant is a letter.
        atomic: Whether the text needs no brackets inside a larger expression.
        pivot: Where the result changes, if there is no constant.
    """

    code: str
    fn: Callable[[Any, Any], Any]
    words: tuple[str, ...]
    nouns: tuple[str, ...] = ()
    low: int = 1
    high: int = 0
    letter: bool = False
    atomic: bool = False
    pivot: int | None = None

    def bind(self, choices: Choices) -> Bound:
        """Fix the constant and one wording."""
        constant: Any = None
        if self.letter:
            constant = choices.pick(LETTERS)
        elif self.high:
            constant = choices.number(self.low, self.high)
        return Bound(self, constant, choices.pick(self.words).replace("{k}", str(constant)))


@dataclass(frozen=True)
class Bound:
    """A piece with its constant and wording fixed.

    Attributes:
        piece: The piece.
        constant: Its constant: a number, a letter or None.
        words: The chosen wording.
    """

    piece: Piece
    constant: Any
    words: str

    def code(self, operand: str, *, bracket: bool = False) -> str:
        """Python text of the piece on `operand`; `bracket` if it stands inside a larger expression."""
        text = self.piece.code.replace("{x}", operand).replace("{k}", str(self.constant))
        return f"({text})" if bracket and not self.piece.atomic else text

    def noun(self, operand: str, choices: Choices) -> str:
        """A wording that contains the operand."""
        return choices.pick(self.piece.nouns).replace("{x}", operand).replace("{k}", str(self.constant))

    def fn(self, operand: Any) -> Any:
        """Meaning of the piece."""
        return self.piece.fn(operand, self.constant)

    @property
    def pivots(self) -> tuple[Any, ...]:
        """The number near which, or the letter at which, the piece changes its result."""
        pivot = self.piece.pivot if self.constant is None else self.constant
        return () if pivot is None else (pivot,)


OPS = {
    "add": Piece(
        "{x} + {k}",
        lambda x, k: x + k,
        ("increased by {k}", "raised by {k}"),
        ("{x} plus {k}", "the sum of {x} and {k}", "{x} increased by {k}"),
        1,
        30,
    ),
    "sub": Piece(
        "{x} - {k}",
        lambda x, k: x - k,
        ("decreased by {k}", "lowered by {k}"),
        ("{x} minus {k}", "{x} decreased by {k}", "{x} less {k}"),
        1,
        30,
    ),
    "mul": Piece(
        "{x} * {k}",
        lambda x, k: x * k,
        ("multiplied by {k}", "scaled by {k}"),
        ("{x} times {k}", "the product of {x} and {k}", "{x} multiplied by {k}"),
        2,
        12,
    ),
    "square": Piece(
        "{x} ** 2", lambda x, k: x * x, ("squared", "multiplied by itself"), ("the square of {x}", "{x} squared")
    ),
    "div": Piece(
        "{x} // {k}",
        lambda x, k: (x - x % k) // k,
        ("floor divided by {k}", "divided by {k} rounded down"),
        ("{x} divided by {k} rounded down", "{x} floor divided by {k}"),
        2,
        12,
    ),
    "mod": Piece(
        "{x} % {k}",
        lambda x, k: x - k * (x // k),
        ("reduced modulo {k}", "replaced by its remainder modulo {k}"),
        ("{x} modulo {k}", "the remainder of {x} modulo {k}"),
        2,
        12,
    ),
    "neg": Piece("-{x}", lambda x, k: 0 - x, ("negated", "switched in sign"), ("the negative of {x}", "{x} negated")),
    "abs": Piece(
        "abs({x})",
        lambda x, k: max(x, -x),
        ("replaced by its absolute value", "stripped of its sign"),
        ("the absolute value of {x}", "{x} stripped of its sign"),
        atomic=True,
    ),
}

PARITY = {
    "even": Piece("{x} % 2 == 0", lambda x, k: x // 2 * 2 == x, ("even",)),
    "odd": Piece("{x} % 2 == 1", lambda x, k: x // 2 * 2 != x, ("odd",)),
    "multiple": Piece(
        "{x} % {k} == 0", lambda x, k: x // k * k == x, ("divisible by {k}", "a multiple of {k}"), low=3, high=9
    ),
}
COMPARE = {
    "gt": Piece(
        "{x} > {k}",
        lambda x, k: x - k > 0,
        ("greater than {k}", "larger than {k}", "above {k}"),
        high=20,
    ),
    "lt": Piece(
        "{x} < {k}",
        lambda x, k: k - x > 0,
        ("less than {k}", "smaller than {k}", "below {k}"),
        high=20,
    ),
    "ge": Piece("{x} >= {k}", lambda x, k: x - k >= 0, ("at least {k}", "not less than {k}"), high=20),
    "le": Piece("{x} <= {k}", lambda x, k: k - x >= 0, ("at most {k}", "not greater than {k}"), high=20),
    "ne": Piece("{x} != {k}", lambda x, k: bool(x - k), ("not equal to {k}", "different from {k}"), high=20),
    "pos": Piece("{x} > 0", lambda x, k: x >= 1, ("positive", "above zero"), pivot=0),
    "neg": Piece("{x} < 0", lambda x, k: x <= -1, ("negative", "below zero"), pivot=0),
}
PREDS = {**PARITY, **COMPARE}

WORD_OPS = {
    "upper": Piece("{x}.upper()", lambda w, k: w.upper(), ("in upper case", "in capital letters")),
    "reverse": Piece("{x}[::-1]", lambda w, k: "".join(reversed(w)), ("reversed", "read from the back")),
    "first": Piece("{x}[0]", lambda w, k: w[:1], ("cut to its first letter", "replaced by its first letter")),
    "last": Piece("{x}[-1]", lambda w, k: w[-1:], ("cut to its last letter", "replaced by its last letter")),
    "repeat": Piece(
        "{x} * {k}", lambda w, k: "".join([w] * k), ("repeated {k} times", "written {k} times"), low=2, high=5
    ),
    "end": Piece(
        "{x} + '{k}'",
        lambda w, k: "".join([w, k]),
        ("followed by '{k}'", "with '{k}' at the end"),
        letter=True,
    ),
    "length": Piece("len({x})", lambda w, k: len(list(w)), ("replaced by its length", "turned into its length")),
}
WORD_PREDS = {
    "longer": Piece("len({x}) > {k}", lambda w, k: len(w) - k > 0, ("are longer than {k} letters",), low=3, high=6),
    "shorter": Piece("len({x}) < {k}", lambda w, k: k - len(w) > 0, ("are shorter than {k} letters",), low=4, high=7),
    "start": Piece(
        "{x}.startswith('{k}')",
        lambda w, k: w[:1] == k,
        ("start with '{k}'", "begin with '{k}'"),
        letter=True,
    ),
    "close": Piece(
        "{x}.endswith('{k}')",
        lambda w, k: w[-1:] == k,
        ("end with '{k}'", "have '{k}' as the last letter"),
        letter=True,
    ),
    "has": Piece("'{k}' in {x}", lambda w, k: w.find(k) >= 0, ("contain '{k}'", "have the letter '{k}'"), letter=True),
    "lacks": Piece(
        "'{k}' not in {x}", lambda w, k: w.find(k) < 0, ("do not contain '{k}'", "have no letter '{k}'"), letter=True
    ),
}
