"""Plain training text of the pocket model: quoting, repeating, looking up and small sums.

Copying is what a small model learns last, and every skill leans on it, so this text is mixed into pretraining. It is no
skill and is never tested.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from suites.pocket.lexicon import ADJECTIVES, ANIMALS, COLORS, FOODS, JOBS, NAMES, PLACES, SITES, THINGS, TOPICS, VERBS

_WORDS = (
    *(name for name in NAMES),
    *PLACES,
    *SITES,
    *(many for _, many in THINGS),
    *ANIMALS,
    *FOODS,
    *COLORS,
    *JOBS,
    *ADJECTIVES,
    *TOPICS,
    *(past for _, past in VERBS),
)
_KINDS = (("name", NAMES), ("city", PLACES), ("color", COLORS), ("job", JOBS), ("food", FOODS), ("pet", ANIMALS))


def _repeat(rng: random.Random) -> tuple[str, str]:
    words = " ".join(rng.choices(_WORDS, k=rng.randint(3, 14)))
    return (rng.choice(("Repeat:", "Copy:", "Say again:")) + f" {words}\n", words)


def _quote(rng: random.Random) -> tuple[str, str]:
    speakers = rng.sample(NAMES, k=rng.randint(2, 4))
    said = {name: " ".join(rng.choices(_WORDS, k=rng.randint(2, 6))) for name in speakers}
    asked = rng.choice(speakers)
    lines = "\n".join(f'{name} said "{words}".' for name, words in said.items())
    return f"{lines}\nWhat did {asked} say?\n", f'{asked} said "{said[asked]}".'


def _lookup(rng: random.Random) -> tuple[str, str]:
    kind, values = rng.choice(_KINDS[1:])
    people = rng.sample(NAMES, k=rng.randint(2, 6))
    table = {name: rng.choice(values) for name in people}
    asked = rng.sample(people, k=min(len(people), rng.randint(1, 3)))
    shown = "\n".join(f"{name}: {value}" for name, value in table.items())
    return f"{kind}\n{shown}\n? {', '.join(asked)}\n", "\n".join(f"{name}: {table[name]}" for name in asked)


def _profile(rng: random.Random) -> tuple[str, str]:
    fields = rng.sample(_KINDS, k=rng.randint(2, 5))
    facts = {kind: rng.choice(values) for kind, values in fields}
    asked = rng.choice(fields)[0]
    return " ".join(
        f"The {k} is {v}." for k, v in facts.items()
    ) + f" What is the {asked}?\n", f"The {asked} is {facts[asked]}."


def _order(rng: random.Random) -> tuple[str, str]:
    words = rng.sample(_WORDS, k=rng.randint(3, 6))
    operation: dict[str, Callable[[list[str]], list[str]]] = {
        "Reverse": lambda w: w[::-1],
        "Without the first": lambda w: w[1:],
        "Without the last": lambda w: w[:-1],
        "Only the first": lambda w: w[:1],
        "Only the last": lambda w: w[-1:],
        "Upper case": lambda w: [x.upper() for x in w],
        "Lower case": lambda w: [x.lower() for x in w],
    }
    name = rng.choice(sorted(operation))
    return f"{name}: {', '.join(words)}\n", ", ".join(operation[name](words))


def _sums(rng: random.Random) -> tuple[str, str]:
    lines = []
    for _ in range(rng.randint(3, 8)):
        kind = rng.choice("++--**/")
        a, b = rng.randint(1, rng.choice((9, 20, 99, 400))), rng.randint(1, rng.choice((9, 20, 99)))
        if kind == "+":
            lines.append(f"{a}+{b}=<<{a}+{b}={a + b}>>{a + b}")
        elif kind == "-":
            a, b = max(a, b), min(a, b)
            lines.append(f"{a}-{b}=<<{a}-{b}={a - b}>>{a - b}")
        elif kind == "*":
            a, b = rng.randint(2, rng.choice((9, 12, 60))), rng.randint(2, 9)
            lines.append(f"{a}*{b}=<<{a}*{b}={a * b}>>{a * b}")
        else:
            a, b = rng.randint(2, rng.choice((9, 12, 40))), rng.randint(2, 9)
            lines.append(f"{a * b}/{b}=<<{a * b}/{b}={a}>>{a}")
    return "", "\n".join(lines)


_MAKERS = (_repeat, _quote, _lookup, _profile, _order, _sums, _sums)


def plain_text(*, seed: int = 0) -> Iterator[tuple[str, str]]:
    """An endless, seeded stream of (shown, said) texts."""
    for index in itertools.count():
        rng = random.Random(f"sparsebench/text/{seed}/{index}")
        yield rng.choice(_MAKERS)(rng)
