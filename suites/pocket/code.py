"""Pocket programs: short functions to complete, in the field format of HumanEval.

A template is a form (map, keep, loop, branch, pipe, ...) with the operations it composes. Difficulty is the number of
combined operations: 1 one expression, 2 one comprehension or two operations, 3 a loop with a condition or two combined
operations, 4 three or more. Expected results come from the meaning of the operations, never from the solution text.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
from collections.abc import Collection
from typing import Any

from suites.pocket import lexicon
from suites.pocket._code_easy import EASY, Builder, Form
from suites.pocket._code_hard import HARD
from suites.pocket._code_ops import LETTERS, Choices
from suites.pocket.draw import Draw

SKILL = "code"
DIFFICULTY_MIX = (0.2, 0.25, 0.3, 0.25)

_FORMS = {**EASY, **HARD}
# Forms with one operation have few templates: these are held out by hand, each operation being taught by other forms.
_HELD_OUT = (
    "op:div pred:le pred:odd two:mul list:min list:reverse text:last map:mod map:neg keep:le keep:odd "
    "wordmap:last wordmap:repeat wordkeep:close letter:star"
).split()
_HELD_OUT_SHARE = 8
_VERBS = "solve compute get make find apply run build give take check work pick form show tell".split()
_OBJECTS = "value result answer list item data number text output thing case task part line step it".split()
_WORDS = tuple(
    dict.fromkeys(
        word
        for group in (*lexicon.THINGS, lexicon.ANIMALS, lexicon.COLORS, lexicon.FOODS, lexicon.ADJECTIVES)
        for word in group
    )
)
# Per letter: the words that start with it, that end with it, and that contain it.
_WITH_LETTER = {
    letter: tuple(
        found
        for test in (str.startswith, str.endswith, str.__contains__)
        if (found := tuple(word for word in _WORDS if test(word, letter)))
    )
    for letter in LETTERS
}
_WITH_LENGTH = {
    length: tuple(word for word in _WORDS if len(word) == length) for length in sorted({len(word) for word in _WORDS})
}
_TRIES = 60


def _is_held_out(template: str) -> bool:
    family = template.partition(":")[0]
    if len(_FORMS[family][1]) == 1:
        return template in _HELD_OUT
    return hashlib.sha256(template.encode()).digest()[0] % _HELD_OUT_SHARE == 0


def _sensible(family: str, parts: tuple[str, ...]) -> bool:
    """Leave out compositions that undo, repeat or contradict themselves."""
    if family in ("then", "branch", "fork", "wordboth", "three", "difference"):
        first, second = parts[-2:] if family in ("then", "branch", "fork", "difference") else parts[:2]
        if first == second or {first, second} == {"neg", "abs"}:
            return False
    return not (family == "pipe" and parts[0] in ("abs", "square", "mod") and parts[1] == "neg")


def _all_templates() -> dict[int, tuple[str, ...]]:
    found: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    for family, (difficulty, axes, _) in _FORMS.items():
        for parts in itertools.product(*axes):
            if _sensible(family, parts):
                found[difficulty].append(f"{family}:{'-'.join(parts)}")
    return {difficulty: tuple(ids) for difficulty, ids in found.items()}


_BY_DIFFICULTY = _all_templates()
TEMPLATES = tuple(itertools.chain.from_iterable(_BY_DIFFICULTY.values()))
UNSEEN = frozenset(t for t in TEMPLATES if _is_held_out(t))


def templates_for(difficulty: int) -> tuple[str, ...]:
    """The compositions of a difficulty; each composition serves one."""
    return _BY_DIFFICULTY.get(difficulty, ())


@functools.lru_cache(maxsize=32)
def _families(difficulty: int, allowed: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """The allowed templates of a difficulty, one tuple per form, in a fixed order."""
    groups: dict[str, list[str]] = {}
    for template in templates_for(difficulty):
        if template in allowed:
            groups.setdefault(template.partition(":")[0], []).append(template)
    return tuple(tuple(group) for group in groups.values())


@functools.lru_cache(maxsize=32)
def _frozen(templates: tuple[str, ...]) -> frozenset[str]:
    return frozenset(templates)


def _number(rng: random.Random, pivots: tuple[Any, ...]) -> int:
    """A number that is often near a place where the result changes."""
    kind = rng.random()
    if pivots and kind < 0.35:
        return int(rng.choice(pivots)) + rng.choice((-1, 0, 0, 1))
    if pivots and kind < 0.5:
        return int(rng.choice(pivots)) * rng.choice((-1, 2, 3))
    return rng.randint(-9, 30) if kind < 0.9 else rng.randint(-30, -1)


def _word(rng: random.Random, pivots: tuple[Any, ...]) -> str:
    """A word that often has one of the letters in a place that matters."""
    letters = [pivot for pivot in pivots if isinstance(pivot, str)]
    if letters and rng.random() < 0.6:
        return rng.choice(rng.choice(_WITH_LETTER[rng.choice(letters)]))
    return rng.choice(_WORDS)


def _argument(rng: random.Random, kind: str, pivots: tuple[Any, ...]) -> Any:
    if kind == "number":
        return _number(rng, pivots)
    if kind == "numbers":
        return [_number(rng, pivots) for _ in range(rng.randint(1, 6))]
    if kind == "text":
        return " ".join(_word(rng, pivots) for _ in range(rng.randint(1, 2)))
    return [_word(rng, pivots) for _ in range(rng.randint(2, 6))]


def _with_edge(rng: random.Random, kind: str, argument: Any, edge: int, *, alone: bool) -> Any:
    """The argument with the edge value, or a word of that length, in it, or with nothing else in it."""
    if kind == "number":
        return edge
    if kind == "numbers":
        return [edge] if alone else [*argument, edge]
    if kind == "words" and edge in _WITH_LENGTH:
        word = rng.choice(_WITH_LENGTH[edge])
        return [word] if alone else [*argument, word]
    return argument


def _cases(form: Form, rng: random.Random, count: int) -> list[tuple[str, Any]] | None:
    """`count` different calls as (arguments, result), or None where they do not tell the program from a constant."""
    cases: dict[str, Any] = {}
    edges = [pivot for pivot in form.pivots if isinstance(pivot, int)] * 2
    for attempt in range(_TRIES):
        arguments = [_argument(rng, kind, form.pivots) for kind in form.kinds]
        if attempt < len(edges):  # the first calls contain the very value at which `>` and `>=` differ
            alone = attempt >= len(edges) // 2
            arguments[0] = _with_edge(rng, form.kinds[0], arguments[0], edges[attempt], alone=alone)
        try:
            result = form.fn(*arguments)
        except IndexError:  # the largest of no numbers: not defined by the docstring
            continue
        # The last two must not agree with all before them, or a constant could pass.
        if len(cases) >= count - 2 and len({repr(other) for other in (*cases.values(), result)}) < 2:
            continue
        cases[", ".join(map(repr, arguments))] = result
        if len(cases) == count:
            return list(cases.items())
    return None


def _spare(cases: list[tuple[str, Any]]) -> tuple[str, Any]:
    """A short case, preferably a late one, without which the others still have two different results."""
    spare = [case for case in cases if len({repr(other[1]) for other in cases if other is not case}) > 1]
    return min(spare[-3:], key=lambda case: len(case[0]))


def _choose(rng: random.Random, difficulty: int, templates: Collection[str]) -> tuple[str, tuple[str, ...], Builder]:
    allowed = _frozen(templates) if isinstance(templates, tuple) else frozenset(templates)
    template = rng.choice(rng.choice(_families(difficulty, allowed)))
    family, _, rest = template.partition(":")
    return template, tuple(rest.split("-")), _FORMS[family][2]


def draw(rng: random.Random, *, difficulty: int, templates: Collection[str]) -> Draw:
    """One programming task.

    Args:
        rng: The only source of chance.
        difficulty: 1 to 4.
        templates: Ids to choose from; forms are equally likely, whatever their number of compositions.
    """
    cases = None
    while cases is None:
        template, parts, build = _choose(rng, difficulty, templates)
        choices = Choices(rng)
        name = f"{choices.pick(_VERBS)}_{choices.pick(_OBJECTS)}"
        form = build(parts, choices)
        cases = _cases(form, rng, rng.randint(5, 7))
    doc_lines = [form.sentence]
    shown, result = _spare(cases)
    if choices.pick(("plain", "plain", "example")) == "example" and len(shown) <= 40:
        doc_lines += [f">>> {name}({shown})", repr(result)]
        choices.slots.append(shown)
    # What may be shown is never asked.
    cases = [case for case in cases if case[0] != shown]
    doc = "\n    ".join(doc_lines)
    prompt = f'def {name}({", ".join(form.args)}):\n    """{doc}\n    """\n'
    solution = "".join(f"    {line}\n" for line in form.lines)
    asserts = "".join(f"    assert candidate({arguments}) == {result!r}\n" for arguments, result in cases)
    document = {
        "task_id": f"Pocket/{hashlib.sha256(prompt.encode()).hexdigest()[:8]}",
        "prompt": prompt,
        "entry_point": name,
        "canonical_solution": solution,
        "test": f"\n\nMETADATA = {{}}\n\n\ndef check(candidate):\n{asserts}",
    }
    return Draw(template, tuple(choices.slots), difficulty, document, solution)
