"""Program forms of difficulty 1 and 2: one expression, or one comprehension."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suites.pocket._code_ops import OPS, PREDS, WORD_OPS, WORD_PREDS, Choices, Piece

NUMBER_NAMES = ("n", "x", "num", "value", "number")
LIST_NAMES = ("nums", "values", "items", "numbers", "data")
TEXT_NAMES = ("s", "text", "word", "name", "line")
WORDS_NAMES = ("words", "texts", "names", "lines", "parts")
PAIR_NAMES = (("a", "b"), ("x", "y"), ("m", "n"), ("left", "right"))


@dataclass(frozen=True)
class Form:
    """A program before it gets a name and tests.

    Attributes:
        sentence: What the docstring says.
        lines: The body, not indented.
        fn: Its meaning, computed without the body.
        args: Argument names.
        kinds: What each argument holds: `number`, `numbers`, `text` or `words`.
        pivots: Numbers near which, or letters at which, results change.
    """

    sentence: str
    lines: tuple[str, ...]
    fn: Callable[..., Any]
    args: tuple[str, ...]
    kinds: tuple[str, ...]
    pivots: tuple[Any, ...] = ()


Builder = Callable[[tuple[str, ...], Choices], Form]


def say(choices: Choices, patterns: tuple[str, ...], **words: str) -> str:
    """One of several wordings with its words filled in."""
    return choices.pick(patterns).format(**words)


def _op(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, op = choices.pick(NUMBER_NAMES), OPS[parts[0]].bind(choices)
    text = say(choices, ("Return {e}.", "Compute {e}.", "Give back {e}.", "Find {e}."), e=op.noun(arg, choices))
    return Form(text, (f"return {op.code(arg)}",), op.fn, (arg,), ("number",), op.pivots)


def _pred(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, pred = choices.pick(NUMBER_NAMES), PREDS[parts[0]].bind(choices)
    patterns = ("Return True if {a} is {p}.", "Check if {a} is {p}.", "Tell whether {a} is {p}.", "Is {a} {p}?")
    text = say(choices, patterns, a=arg, p=pred.words)
    return Form(text, (f"return {pred.code(arg)}",), pred.fn, (arg,), ("number",), pred.pivots)


TWO = {
    "add": Piece("{x} + {k}", lambda a, b: sum([a, b]), ("{x} plus {k}", "the sum of {x} and {k}")),
    "sub": Piece("{x} - {k}", lambda a, b: a + -b, ("{x} minus {k}", "{x} less {k}")),
    "mul": Piece("{x} * {k}", lambda a, b: math.prod([a, b]), ("{x} times {k}", "the product of {x} and {k}")),
    "max": Piece(
        "max({x}, {k})", lambda a, b: sorted([a, b])[1], ("the larger of {x} and {k}", "the maximum of {x} and {k}")
    ),
    "min": Piece(
        "min({x}, {k})", lambda a, b: sorted([a, b])[0], ("the smaller of {x} and {k}", "the minimum of {x} and {k}")
    ),
}


def _two(parts: tuple[str, ...], choices: Choices) -> Form:
    piece = TWO[parts[0]]
    args = choices.pick(PAIR_NAMES)
    expression = choices.pick(piece.words).format(x=args[0], k=args[1])
    text = say(choices, ("Return {e}.", "Compute {e}.", "Give back {e}.", "Find {e}."), e=expression)
    body = f"return {piece.code.format(x=args[0], k=args[1])}"
    return Form(text, (body,), lambda a, b: piece.fn(a, b), args, ("number", "number"))


LIST = {
    "sum": Piece(
        "sum({x})", lambda v, k: math.fsum(v).__int__(), ("the sum of {x}", "the total of all numbers in {x}")
    ),
    "max": Piece("max({x})", lambda v, k: sorted(v)[-1], ("the largest number in {x}", "the maximum of {x}")),
    "min": Piece("min({x})", lambda v, k: sorted(v)[0], ("the smallest number in {x}", "the minimum of {x}")),
    "len": Piece("len({x})", lambda v, k: sum(1 for _ in v), ("the length of {x}", "how many numbers {x} has")),
    "first": Piece("{x}[0]", lambda v, k: next(iter(v)), ("the first number in {x}", "the first item of {x}")),
    "last": Piece("{x}[-1]", lambda v, k: next(reversed(v)), ("the last number in {x}", "the last item of {x}")),
    "sorted": Piece("sorted({x})", lambda v, k: sorted(v), ("{x} sorted", "the numbers of {x} in rising order")),
    "reverse": Piece("{x}[::-1]", lambda v, k: list(reversed(v)), ("{x} reversed", "the numbers of {x} from the back")),
}


def _list(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, piece = choices.pick(LIST_NAMES), LIST[parts[0]]
    expression = choices.pick(piece.words).format(x=arg)
    text = say(choices, ("Return {e}.", "Compute {e}.", "Give back {e}.", "Find {e}."), e=expression)
    return Form(text, (f"return {piece.code.format(x=arg)}",), lambda v: piece.fn(v, None), (arg,), ("numbers",))


def _text(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, op = choices.pick(TEXT_NAMES), WORD_OPS[parts[0]].bind(choices)
    patterns = ("Return {a} {p}.", "Give back {a} {p}.", "Return the text {a} {p}.", "Return the string {a} {p}.")
    text = say(choices, patterns, a=arg, p=op.words)
    return Form(text, (f"return {op.code(arg)}",), op.fn, (arg,), ("text",), op.pivots)


def _map(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, op = choices.pick(LIST_NAMES), OPS[parts[0]].bind(choices)
    patterns = (
        "Return a list with each number in {a} {p}.",
        "Return the numbers in {a}, each {p}.",
        "Return {a} with each number {p}.",
        "Build a list of all numbers of {a}, each {p}.",
    )
    text = say(choices, patterns, a=arg, p=op.words)
    body = f"return [{op.code('x')} for x in {arg}]"
    return Form(text, (body,), lambda v: list(map(op.fn, v)), (arg,), ("numbers",), op.pivots)


def _keep(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, pred = choices.pick(LIST_NAMES), PREDS[parts[0]].bind(choices)
    patterns = (
        "Return every number in {a} that is {p}.",
        "Keep only each number of {a} that is {p}.",
        "Build a list of each number in {a} that is {p}.",
    )
    text = say(choices, patterns, a=arg, p=pred.words)
    body = f"return [x for x in {arg} if {pred.code('x')}]"
    return Form(text, (body,), lambda v: list(filter(pred.fn, v)), (arg,), ("numbers",), pred.pivots)


def _then(parts: tuple[str, ...], choices: Choices) -> Form:
    arg = choices.pick(NUMBER_NAMES)
    first, second = (OPS[part].bind(choices) for part in parts)
    patterns = ("Return {a} {p} and then {q}.", "Return {a} first {p}, then {q}.", "Give back {a} {p}, then {q}.")
    text = say(choices, patterns, a=arg, p=first.words, q=second.words)
    inner = first.code(arg, bracket=parts[1] != "abs")
    pivots = first.pivots + second.pivots
    return Form(text, (f"return {second.code(inner)}",), lambda n: second.fn(first.fn(n)), (arg,), ("number",), pivots)


def _quantity(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, pred = choices.pick(LIST_NAMES), PREDS[parts[1]].bind(choices)
    patterns = {
        "all": ("Return True if every number in {a} is {p}.", "Check if each number in {a} is {p}."),
        "any": ("Return True if some number in {a} is {p}.", "Check if any number in {a} is {p}."),
    }[parts[0]]
    text = say(choices, patterns, a=arg, p=pred.words)
    meaning: dict[str, Callable[[list[int]], bool]] = {
        "all": lambda v: not [x for x in v if not pred.fn(x)],
        "any": lambda v: bool([x for x in v if pred.fn(x)]),
    }
    body = f"return {parts[0]}({pred.code('x')} for x in {arg})"
    return Form(text, (body,), meaning[parts[0]], (arg,), ("numbers",), pred.pivots)


def _word_map(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, op = choices.pick(WORDS_NAMES), WORD_OPS[parts[0]].bind(choices)
    patterns = (
        "Return a list with each word in {a} {p}.",
        "Return the words in {a}, each {p}.",
        "Return {a} with each word {p}.",
        "Build a list of all words of {a}, each {p}.",
    )
    text = say(choices, patterns, a=arg, p=op.words)
    body = f"return [{op.code('w')} for w in {arg}]"
    return Form(text, (body,), lambda v: list(map(op.fn, v)), (arg,), ("words",))


def _word_keep(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, pred = choices.pick(WORDS_NAMES), WORD_PREDS[parts[0]].bind(choices)
    patterns = (
        "Return the words in {a} that {p}.",
        "Return a list of all words in {a} that {p}.",
        "Keep only the words of {a} that {p}.",
        "Build a list of the words in {a} that {p}.",
    )
    text = say(choices, patterns, a=arg, p=pred.words)
    body = f"return [w for w in {arg} if {pred.code('w')}]"
    return Form(text, (body,), lambda v: list(filter(pred.fn, v)), (arg,), ("words",), pred.pivots)


LETTER_OPS = {
    "count": Piece(
        "{x}.count('{k}')",
        lambda s, k: len([c for c in s if c == k]),
        ("how often {x} has the letter '{k}'", "the number of '{k}' in {x}"),
        letter=True,
    ),
    "drop": Piece(
        "{x}.replace('{k}', '')",
        lambda s, k: "".join(c for c in s if c != k),
        ("{x} without the letter '{k}'", "{x} with each '{k}' removed"),
        letter=True,
    ),
    "star": Piece(
        "{x}.replace('{k}', '*')",
        lambda s, k: "".join("*" if c == k else c for c in s),
        ("{x} with '*' for each '{k}'", "{x} with each '{k}' replaced by '*'"),
        letter=True,
    ),
    "double": Piece(
        "{x}.replace('{k}', '{k}{k}')",
        lambda s, k: "".join(c + c if c == k else c for c in s),
        ("{x} with '{k}{k}' for each '{k}'", "{x} with each '{k}' doubled"),
        letter=True,
    ),
}


def _letter(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, op = choices.pick(TEXT_NAMES), LETTER_OPS[parts[0]].bind(choices)
    text = say(choices, ("Return {e}.", "Compute {e}.", "Give back {e}.", "Find {e}."), e=op.words.replace("{x}", arg))
    return Form(text, (f"return {op.code(arg)}",), op.fn, (arg,), ("text",), op.pivots)


Axes = tuple[tuple[str, ...], ...]

EASY: dict[str, tuple[int, Axes, Builder]] = {
    "op": (1, (tuple(OPS),), _op),
    "pred": (1, (tuple(PREDS),), _pred),
    "two": (1, (tuple(TWO),), _two),
    "list": (1, (tuple(LIST),), _list),
    "text": (1, (tuple(WORD_OPS),), _text),
    "map": (2, (tuple(OPS),), _map),
    "keep": (2, (tuple(PREDS),), _keep),
    "then": (2, (tuple(OPS), tuple(OPS)), _then),
    "quantity": (2, (("all", "any"), tuple(PREDS)), _quantity),
    "wordmap": (2, (tuple(WORD_OPS),), _word_map),
    "wordkeep": (2, (tuple(WORD_PREDS),), _word_keep),
    "letter": (2, (tuple(LETTER_OPS),), _letter),
}
