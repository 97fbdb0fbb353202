"""Program forms of difficulty 3 and 4: loops with accumulators, branches and chains of several operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suites.pocket._code_easy import (
    LETTER_OPS,
    LIST_NAMES,
    NUMBER_NAMES,
    TEXT_NAMES,
    WORDS_NAMES,
    Axes,
    Builder,
    Form,
    say,
)
from suites.pocket._code_ops import COMPARE, OPS, PARITY, PREDS, WORD_OPS, WORD_PREDS, Choices


@dataclass(frozen=True)
class Total:
    """A way to boil a list down to one value: accumulator name, start, update sign, wordings, meaning."""

    name: str
    start: int
    sign: str
    words: tuple[str, ...]
    fn: Callable[[list[Any]], Any]

    def loop(self, arg: str, condition: str, item: str, variable: str = "x") -> tuple[str, ...]:
        """The canonical accumulator loop; an empty condition takes every item."""
        update = f"{self.name} {self.sign}= {item}"
        body = (f"    if {condition}:", f"        {update}") if condition else (f"    {update}",)
        return (f"{self.name} = {self.start}", f"for {variable} in {arg}:", *body, f"return {self.name}")


TOTALS = {
    "sum": Total("total", 0, "+", ("Return the sum of", "Add up"), sum),
    "count": Total("count", 0, "+", ("Return the number of", "Count"), len),
    "product": Total("product", 1, "*", ("Return the product of", "Multiply together"), math.prod),
}
_BEST: dict[str, tuple[tuple[str, ...], Callable[[list[int]], int]]] = {
    "max": (("Return the largest of", "Find the maximum of"), lambda v: sorted(v)[-1]),
    "min": (("Return the smallest of", "Find the minimum of"), lambda v: sorted(v)[0]),
}
_ENDS: dict[str, tuple[tuple[str, ...], Callable[[list[int]], int]]] = {
    "sum": (("the sum of", "the total of"), sum),
    "max": (("the largest of", "the maximum of"), _BEST["max"][1]),
}
_ALL = ("the numbers in {a}", "all numbers in {a}", "the numbers of {a}")


def _plural(words: str) -> str:
    return words.replace("a multiple of", "multiples of")


def _loop_keep(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, total, pred = choices.pick(LIST_NAMES), TOTALS[parts[0]], PREDS[parts[1]].bind(choices)
    text = f"{choices.pick(total.words)} {say(choices, _ALL, a=arg)} that are {_plural(pred.words)}."
    item = "1" if parts[0] == "count" else "x"
    lines = total.loop(arg, pred.code("x"), item)
    return Form(text, lines, lambda v: total.fn(list(filter(pred.fn, v))), (arg,), ("numbers",), pred.pivots)


def _loop_map(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, total, op = choices.pick(LIST_NAMES), TOTALS[parts[0]], OPS[parts[1]].bind(choices)
    text = f"{choices.pick(total.words)} {say(choices, _ALL, a=arg)}, each {op.words}."
    lines = total.loop(arg, "", op.code("x"))
    return Form(text, lines, lambda v: total.fn(list(map(op.fn, v))), (arg,), ("numbers",), op.pivots)


def _keep_map(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, pred, op = choices.pick(LIST_NAMES), PREDS[parts[0]].bind(choices), OPS[parts[1]].bind(choices)
    patterns = (
        "Return the numbers in {a} that are {p}, each {q}.",
        "Return a list of all numbers in {a} that are {p}, each {q}.",
        "Keep the numbers of {a} that are {p} and return each {q}.",
    )
    text = say(choices, patterns, a=arg, p=_plural(pred.words), q=op.words)
    body = f"return [{op.code('x')} for x in {arg} if {pred.code('x')}]"
    pivots = pred.pivots + op.pivots
    return Form(text, (body,), lambda v: list(map(op.fn, filter(pred.fn, v))), (arg,), ("numbers",), pivots)


def _best(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, pred = choices.pick(LIST_NAMES), PREDS[parts[1]].bind(choices)
    words, fn = _BEST[parts[0]]
    text = f"{choices.pick(words)} {say(choices, _ALL, a=arg)} that are {_plural(pred.words)}."
    body = f"return {parts[0]}(x for x in {arg} if {pred.code('x')})"
    return Form(text, (body,), lambda v: fn(list(filter(pred.fn, v))), (arg,), ("numbers",), pred.pivots)


def _branch(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, pred = choices.pick(NUMBER_NAMES), PREDS[parts[0]].bind(choices)
    yes, no = OPS[parts[1]].bind(choices), OPS[parts[2]].bind(choices)
    patterns = ("Return {y} if {a} is {p}, else {z}.", "If {a} is {p}, return {y}, otherwise {z}.")
    text = say(choices, patterns, a=arg, p=pred.words, y=yes.noun(arg, choices), z=no.noun(arg, choices))
    lines = (f"if {pred.code(arg)}:", f"    return {yes.code(arg)}", f"return {no.code(arg)}")
    pivots = pred.pivots + yes.pivots + no.pivots
    return Form(text, lines, lambda n: (yes if pred.fn(n) else no).fn(n), (arg,), ("number",), pivots)


def _word_keep_map(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, pred, op = choices.pick(WORDS_NAMES), WORD_PREDS[parts[0]].bind(choices), WORD_OPS[parts[1]].bind(choices)
    patterns = (
        "Return the words in {a} that {p}, each {q}.",
        "Return a list of all words in {a} that {p}, each {q}.",
        "Keep the words of {a} that {p} and return each {q}.",
    )
    text = say(choices, patterns, a=arg, p=pred.words, q=op.words)
    body = f"return [{op.code('w')} for w in {arg} if {pred.code('w')}]"
    return Form(text, (body,), lambda v: list(map(op.fn, filter(pred.fn, v))), (arg,), ("words",), pred.pivots)


def _word_loop(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, total, pred = choices.pick(WORDS_NAMES), TOTALS[parts[0]], WORD_PREDS[parts[1]].bind(choices)
    words = ("Return the total length of", "Add up the lengths of") if parts[0] == "sum" else total.words
    text = f"{choices.pick(words)} {say(choices, ('the words in {a}', 'all words in {a}'), a=arg)} that {pred.words}."
    lines = total.loop(arg, pred.code("w"), "len(w)" if parts[0] == "sum" else "1", "w")
    return Form(text, lines, lambda v: total.fn([len(w) for w in v if pred.fn(w)]), (arg,), ("words",), pred.pivots)


def _letters_then(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, first, second = choices.pick(TEXT_NAMES), LETTER_OPS[parts[0]].bind(choices), WORD_OPS[parts[1]].bind(choices)
    patterns = ("Take {e} and return it {q}.", "Start from {e}, then return it {q}.")
    text = say(choices, patterns, e=first.words.replace("{x}", arg), q=second.words)
    body = f"return {second.code(first.code(arg))}"
    return Form(text, (body,), lambda s: second.fn(first.fn(s)), (arg,), ("text",), first.pivots)


def _both(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, total = choices.pick(LIST_NAMES), TOTALS[parts[3]]
    one, two = PARITY[parts[1]].bind(choices), COMPARE[parts[2]].bind(choices)
    if choices.pick(("first", "second")) == "second":
        one, two = two, one
    op = OPS[parts[4]].bind(choices) if parts[4] != "none" else None
    text = f"{choices.pick(total.words)} {say(choices, _ALL, a=arg)} that are {_plural(one.words)} {parts[0]} "
    text += _plural(two.words) + (f", each {op.words}." if op else ".")
    item = op.code("x") if op else "1" if parts[3] == "count" else "x"
    lines = total.loop(arg, f"{one.code('x')} {parts[0]} {two.code('x')}", item)
    join = all if parts[0] == "and" else any

    def meaning(v: list[int]) -> int:
        kept = [x for x in v if join((one.fn(x), two.fn(x)))]
        return int(total.fn([op.fn(x) if op else x for x in kept]))

    pivots = one.pivots + two.pivots + (op.pivots if op else ())
    return Form(text, lines, meaning, (arg,), ("numbers",), pivots)


def _fork(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, pred = choices.pick(LIST_NAMES), PREDS[parts[0]].bind(choices)
    yes, no = OPS[parts[1]].bind(choices), OPS[parts[2]].bind(choices)
    patterns = (
        "Add up {s}, each {y} if it is {p} and {z} otherwise.",
        "Return the sum of {s}, each {y} if it is {p}, else {z}.",
    )
    text = say(choices, patterns, s=say(choices, _ALL, a=arg), p=pred.words, y=yes.words, z=no.words)
    lines = (
        "total = 0",
        f"for x in {arg}:",
        f"    if {pred.code('x')}:",
        f"        total += {yes.code('x')}",
        "    else:",
        f"        total += {no.code('x')}",
        "return total",
    )
    pivots = pred.pivots + yes.pivots + no.pivots

    def meaning(v: list[int]) -> int:
        return sum((yes if pred.fn(x) else no).fn(x) for x in v)

    return Form(text, lines, meaning, (arg,), ("numbers",), pivots)


def _difference(parts: tuple[str, ...], choices: Choices) -> Form:
    arg = choices.pick(LIST_NAMES)
    one, two = PREDS[parts[1]].bind(choices), PREDS[parts[2]].bind(choices)
    words = {"sum": ("the sum of", "the total of"), "count": ("the number of", "the count of")}[parts[0]]
    patterns = (
        "Return {w} {s} that are {p} minus {w} those that are {q}.",
        "Take {w} {s} that are {p}, subtract {w} those that are {q} and return the result.",
    )
    subject = say(choices, _ALL, a=arg)
    text = say(choices, patterns, w=choices.pick(words), s=subject, p=_plural(one.words), q=_plural(two.words))
    item = "x" if parts[0] == "sum" else "1"
    lines = (
        "first = 0",
        "second = 0",
        f"for x in {arg}:",
        f"    if {one.code('x')}:",
        f"        first += {item}",
        f"    if {two.code('x')}:",
        f"        second += {item}",
        "return first - second",
    )
    total = TOTALS[parts[0]].fn

    def meaning(v: list[int]) -> int:
        return int(total(list(filter(one.fn, v)))) - int(total(list(filter(two.fn, v))))

    return Form(text, lines, meaning, (arg,), ("numbers",), one.pivots + two.pivots)


def _pipe(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, before = choices.pick(LIST_NAMES), OPS[parts[0]].bind(choices)
    pred, after = PREDS[parts[1]].bind(choices), OPS[parts[2]].bind(choices)
    words, fn = _ENDS[parts[3]]
    patterns = (
        "Take {s}, each {o}, keep those that are {p} and return {w} these, each {q}.",
        "First {s} are each {o}. Of these keep those that are {p}. Return {w} them, each {q}.",
    )
    text = say(
        choices,
        patterns,
        s=say(choices, _ALL, a=arg),
        o=before.words,
        p=_plural(pred.words),
        w=choices.pick(words),
        q=after.words,
    )
    lines = (
        f"ys = [{before.code('x')} for x in {arg}]",
        f"ys = [x for x in ys if {pred.code('x')}]",
        f"return {parts[3]}({after.code('x')} for x in ys)",
    )

    def meaning(v: list[int]) -> int:
        return int(fn([after.fn(y) for y in map(before.fn, v) if pred.fn(y)]))

    return Form(text, lines, meaning, (arg,), ("numbers",), before.pivots + pred.pivots + after.pivots)


def _three(parts: tuple[str, ...], choices: Choices) -> Form:
    arg = choices.pick(NUMBER_NAMES)
    one, two = PREDS[parts[0]].bind(choices), PREDS[parts[1]].bind(choices)
    ids = [parts[2], *choices.rng.sample([op for op in OPS if op != parts[2]], 2)]
    choices.slots += ids[1:]
    ops = [OPS[op].bind(choices) for op in ids]
    nouns = [op.noun(arg, choices) for op in ops]
    patterns = (
        "Return {u} if {a} is {p}, else {v} if it is {q}, else {w}.",
        "If {a} is {p}, return {u}. Otherwise, if it is {q}, return {v}. If not, return {w}.",
    )
    text = say(choices, patterns, a=arg, p=one.words, q=two.words, u=nouns[0], v=nouns[1], w=nouns[2])
    lines = (
        f"if {one.code(arg)}:",
        f"    return {ops[0].code(arg)}",
        f"if {two.code(arg)}:",
        f"    return {ops[1].code(arg)}",
        f"return {ops[2].code(arg)}",
    )

    def meaning(n: int) -> Any:
        return ops[0 if one.fn(n) else 1 if two.fn(n) else 2].fn(n)

    return Form(text, lines, meaning, (arg,), ("number",), one.pivots + two.pivots)


def _running(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, total, pred = choices.pick(LIST_NAMES), TOTALS[parts[0]], PREDS[parts[1]].bind(choices)
    patterns = ("Return the list of running {w}s of {s} that are {p}.", "List the running {w}s of {s} that are {p}.")
    text = say(choices, patterns, w=parts[0], s=say(choices, _ALL, a=arg), p=_plural(pred.words))
    lines = (
        "result = []",
        f"{total.name} = {total.start}",
        f"for x in {arg}:",
        f"    if {pred.code('x')}:",
        f"        {total.name} {total.sign}= x",
        f"        result.append({total.name})",
        "return result",
    )

    def meaning(v: list[int]) -> list[int]:
        kept = list(filter(pred.fn, v))
        return [total.fn(kept[: i + 1]) for i in range(len(kept))]

    return Form(text, lines, meaning, (arg,), ("numbers",), pred.pivots)


def _word_both(parts: tuple[str, ...], choices: Choices) -> Form:
    arg, op = choices.pick(WORDS_NAMES), WORD_OPS[parts[2]].bind(choices)
    one, two = WORD_PREDS[parts[0]].bind(choices), WORD_PREDS[parts[1]].bind(choices)
    sign, join = choices.pick(("-", "+", "/")), choices.pick(("and", "or"))
    patterns = (
        "Join by '{s}' the words in {a} that {p} {j} {q}, each {o}.",
        "Return all words in {a} that {p} {j} {q}, each {o}, joined by '{s}'.",
    )
    text = say(choices, patterns, s=sign, a=arg, p=one.words, j=join, q=two.words, o=op.words)
    condition = f"{one.code('w')} {join} {two.code('w')}"
    body = f"return '{sign}'.join({op.code('w')} for w in {arg} if {condition})"
    test = all if join == "and" else any

    def meaning(v: list[str]) -> str:
        return sign.join([op.fn(w) for w in v if test((one.fn(w), two.fn(w)))])

    return Form(text, (body,), meaning, (arg,), ("words",), one.pivots + two.pivots)


_OPS, _PREDS, _WORD_PREDS = tuple(OPS), tuple(PREDS), tuple(WORD_PREDS)
_TEXT_OPS = tuple(op for op in WORD_OPS if op != "length")

HARD: dict[str, tuple[int, Axes, Builder]] = {
    "loopkeep": (3, (tuple(TOTALS), _PREDS), _loop_keep),
    "loopmap": (3, (("sum", "product"), _OPS), _loop_map),
    "keepmap": (3, (_PREDS, _OPS), _keep_map),
    "best": (3, (tuple(_BEST), _PREDS), _best),
    "branch": (3, (_PREDS, _OPS, _OPS), _branch),
    "wordkeepmap": (3, (_WORD_PREDS, tuple(WORD_OPS)), _word_keep_map),
    "wordloop": (3, (("sum", "count"), _WORD_PREDS), _word_loop),
    "lettersthen": (3, (("drop", "star", "double"), ("upper", "reverse", "repeat", "length")), _letters_then),
    "both": (4, (("and", "or"), tuple(PARITY), tuple(COMPARE), tuple(TOTALS), ("none",)), _both),
    "bothmap": (4, (("and", "or"), tuple(PARITY), tuple(COMPARE), ("sum", "product"), _OPS), _both),
    "fork": (4, (_PREDS, _OPS, _OPS), _fork),
    "difference": (4, (("sum", "count"), _PREDS, _PREDS), _difference),
    "pipe": (4, (_OPS, _PREDS, _OPS, ("sum", "max")), _pipe),
    "three": (4, (_PREDS, _PREDS, _OPS), _three),
    "running": (4, (("sum", "product"), _PREDS), _running),
    "wordboth": (4, (_WORD_PREDS, _WORD_PREDS, _TEXT_OPS), _word_both),
}
