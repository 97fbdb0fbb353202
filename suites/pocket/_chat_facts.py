"""Conversations about facts of people: recall, who it was, a change of one fact, a swap, a count."""

from __future__ import annotations

import random
from collections.abc import Sequence

from suites.pocket import lexicon
from suites.pocket._chat_attributes import ATTRIBUTES, Attribute
from suites.pocket._chat_talk import Maker, Talk, follow_up, news, opener, question

_SWAPPED = frozenset({"job", "pet", "lunch", "thing"})
_NAME_SAID = ("My name is {v}.", "I am {v}.", "You can call me {v}.")
_NAME_ASKED = ("What is my name?", "Who am I?")
_NAME_ANSWER = "Your name is {v}."


def _values(rng: random.Random, attribute: Attribute, count: int) -> list[str]:
    return rng.sample(attribute.values, count)


def _said(rng: random.Random, facts: Sequence[tuple[Attribute, str]]) -> str:
    return " ".join(rng.choice(attribute.mine).format(v=value) for attribute, value in facts)


def _slots(facts: Sequence[tuple[Attribute, str]], *more: str) -> tuple[str, ...]:
    return tuple(part for attribute, value in facts for part in (attribute.key, value)) + more


def _asked(rng: random.Random, wordings: Sequence[str], *, second: bool = False, **values: str) -> str:
    pick = follow_up if second else question
    return pick(rng, wordings).format(**values)


def me_named(rng: random.Random, *, name_first: bool) -> Talk:
    """The user gives a name and one fact, and asks for both, one in each turn."""
    attribute = rng.choice(ATTRIBUTES)
    name, value = rng.choice(lexicon.NAMES), rng.choice(attribute.values)
    said = [rng.choice(_NAME_SAID).format(v=name), rng.choice(attribute.mine).format(v=value)]
    rng.shuffle(said)
    asks = [(attribute.ask_me, attribute.you.format(v=value)), (_NAME_ASKED, _NAME_ANSWER.format(v=name))]
    if name_first:
        asks.reverse()
    turns = (opener(rng) + " ".join(said) + " " + question(rng, asks[0][0]), follow_up(rng, asks[1][0]))
    return Talk(turns, (asks[0][1], asks[1][1]), (name, attribute.key, value))


def me(rng: random.Random, *, facts: int, then: str) -> Talk:
    """The user gives some facts; turn 1 recalls one of them, turn 2 another one, a changed one, or both.

    Args:
        rng: The only source of chance.
        facts: How many facts are given.
        then: Second turn: `recall` another, `change` and ask what changed, `unchanged` (change one, ask another),
            `both` (change one, ask both), `count` (turn 1 counts the facts, turn 2 recalls one).
    """
    told = [(attribute, rng.choice(attribute.values)) for attribute in rng.sample(ATTRIBUTES, facts)]
    start = opener(rng) + _said(rng, told) + " "
    first, other = rng.sample(told, 2)
    turn1 = start + question(rng, first[0].ask_me)
    answer1 = first[0].you.format(v=first[1])
    extra: tuple[str, ...] = ()
    if then == "count":
        turn1 = start + question(rng, ("How many facts did I tell you?", "How many things did I say about me?"))
        answer1 = f"You told me {facts} facts."
    if then in ("recall", "count"):
        turn2, answer2 = follow_up(rng, other[0].ask_me), other[0].you.format(v=other[1])
    else:
        changed = first if then == "change" and rng.random() < 0.5 else other
        attribute = changed[0]
        new = rng.choice([value for value in attribute.values if value != changed[1]])
        asked = attribute if then != "unchanged" else first[0]
        turn2 = news(rng) + rng.choice(attribute.change_me).format(v=new) + " "
        turn2 += _asked(rng, asked.ask_me, second=True)
        answer2 = asked.you.format(v=new if then != "unchanged" else first[1])
        if then == "both":
            turn2 += " " + rng.choice(("And again: ", "Also: ", "And ")) + rng.choice(first[0].ask_me)
            answer2 += " " + first[0].you.format(v=first[1])
        extra = (attribute.key, new)
    return Talk((turn1, turn2), (answer1, answer2), _slots(told, first[0].key, other[0].key, *extra))


def person(rng: random.Random, *, facts: int, first: str, then: str) -> Talk:
    """The same about one named third person; `first` and `then` are `recall`, `who` or (`then` only) `change`."""
    name = rng.choice(lexicon.NAMES)
    told = [(attribute, rng.choice(attribute.values)) for attribute in rng.sample(ATTRIBUTES, facts)]
    said = " ".join(rng.choice(a.theirs).format(n=name, v=v) for a, v in told)
    asked = rng.sample(told, 2) if facts > 1 else [told[0], told[0]]
    turns, answers = [opener(rng) + said + " ", ""], ["", ""]
    extra: tuple[str, ...] = ()
    for turn, kind in enumerate((first, then)):
        attribute, value = asked[turn]
        if kind == "change":
            value = rng.choice([v for v in attribute.values if v != value])
            turns[turn] += news(rng) + rng.choice(attribute.change_them).format(n=name, v=value) + " "
            extra = (value,)
        wordings = (attribute.who,) if kind == "who" else attribute.ask_them
        turns[turn] += _asked(rng, wordings, second=turn == 1, n=name, v=value)
        answers[turn] = attribute.theirs[0].format(n=name, v=value)
    slots = _slots(told, name, first, asked[0][0].key, asked[1][0].key, *extra)
    return Talk((turns[0], turns[1]), (answers[0], answers[1]), slots)


def people(rng: random.Random, *, count: int, facts: int, first: str, then: str) -> Talk:
    """Several people who differ in the same kinds of facts, so that a value alone does not tell whose it is.

    Args:
        rng: The only source of chance.
        count: How many people.
        facts: How many facts each.
        first: `recall`, `who` or `change` (change one fact, ask it).
        then: `recall`, `who`, `change`, `swap` (two people exchange a value), `both` (ask two people at once).
    """
    names = rng.sample(lexicon.NAMES, count)
    kinds = rng.sample([kind for kind in ATTRIBUTES if then != "swap" or kind.key in _SWAPPED], facts)
    world = {kind.key: dict(zip(names, _values(rng, kind, count), strict=True)) for kind in kinds}
    slots = [*names, *(value for kind in kinds for value in (kind.key, *world[kind.key].values()))]
    by_person = rng.random() < 0.5
    pairs = [(n, k) for n in names for k in kinds] if by_person else [(n, k) for k in kinds for n in names]
    said = " ".join(rng.choice(kind.theirs).format(n=name, v=world[kind.key][name]) for name, kind in pairs)
    asked = rng.sample(pairs, 2)
    turns, answers = [opener(rng) + said + " ", ""], ["", ""]
    for turn, how in enumerate((first, then)):
        name, kind = asked[turn]
        values = world[kind.key]
        wordings: tuple[str, ...] = kind.ask_them
        if how == "change":
            values[name] = rng.choice([v for v in kind.values if v not in values.values()])
            turns[turn] += news(rng) + rng.choice(kind.change_them).format(n=name, v=values[name]) + " "
        elif how == "swap":
            other = rng.choice([n for n in names if n != name])
            values[name], values[other] = values[other], values[name]
            text = rng.choice(("{a} and {b} swap the {k}.", "Let {a} and {b} swap the {k}."))
            turns[turn] += text.format(a=name, b=other, k=kind.key) + " "
            slots.append(other)
        elif how == "who":
            wordings = (kind.who,)
        turns[turn] += _asked(rng, wordings, second=turn == 1, n=name, v=values[name])
        answers[turn] = kind.theirs[0].format(n=name, v=values[name])
        if how == "both":
            other = rng.choice([n for n in names if n != name])
            turns[turn] += " " + rng.choice(("And ", "Also: ")) + rng.choice(kind.ask_them).format(n=other)
            answers[turn] += " " + kind.theirs[0].format(n=other, v=values[other])
            slots.append(other)
        slots += [name, kind.key, values[name]]
    return Talk((turns[0], turns[1]), (answers[0], answers[1]), tuple(slots))


TEMPLATES: dict[str, tuple[int, Maker]] = {
    "me1.recall.name": (1, lambda rng: me_named(rng, name_first=False)),
    "me1.name.recall": (1, lambda rng: me_named(rng, name_first=True)),
    "person1.recall.who": (1, lambda rng: person(rng, facts=1, first="recall", then="who")),
    "person1.who.recall": (1, lambda rng: person(rng, facts=1, first="who", then="recall")),
    "me2.recall.recall": (1, lambda rng: me(rng, facts=2, then="recall")),
    "person2.recall.recall": (1, lambda rng: person(rng, facts=2, first="recall", then="recall")),
    "me3.recall.recall": (2, lambda rng: me(rng, facts=3, then="recall")),
    "me2.recall.change": (2, lambda rng: me(rng, facts=2, then="change")),
    "me3.recall.change": (2, lambda rng: me(rng, facts=3, then="change")),
    "person3.recall.recall": (2, lambda rng: person(rng, facts=3, first="recall", then="recall")),
    "person2.recall.change": (2, lambda rng: person(rng, facts=2, first="recall", then="change")),
    "people2x1.recall.recall": (2, lambda rng: people(rng, count=2, facts=1, first="recall", then="recall")),
    "people2x1.recall.who": (2, lambda rng: people(rng, count=2, facts=1, first="recall", then="who")),
    "me4.recall.recall": (3, lambda rng: me(rng, facts=4, then="recall")),
    "me4.recall.unchanged": (3, lambda rng: me(rng, facts=4, then="unchanged")),
    "people2x2.recall.recall": (3, lambda rng: people(rng, count=2, facts=2, first="recall", then="recall")),
    "people2x2.who.recall": (3, lambda rng: people(rng, count=2, facts=2, first="who", then="recall")),
    "people2x2.recall.change": (3, lambda rng: people(rng, count=2, facts=2, first="recall", then="change")),
    "people3x1.who.recall": (3, lambda rng: people(rng, count=3, facts=1, first="who", then="recall")),
    "people3x1.recall.who": (3, lambda rng: people(rng, count=3, facts=1, first="recall", then="who")),
    "me4.recall.both": (4, lambda rng: me(rng, facts=4, then="both")),
    "me4.count.recall": (4, lambda rng: me(rng, facts=rng.randint(3, 5), then="count")),
    "people2x2.recall.swap": (4, lambda rng: people(rng, count=2, facts=2, first="recall", then="swap")),
    "people2x2.change.both": (4, lambda rng: people(rng, count=2, facts=2, first="change", then="both")),
    "people3x1.change.both": (4, lambda rng: people(rng, count=3, facts=1, first="change", then="both")),
    "people3x2.who.change": (4, lambda rng: people(rng, count=3, facts=2, first="who", then="change")),
}
UNSEEN = frozenset({"person1.who.recall", "person2.recall.change", "people3x1.recall.who", "people3x1.change.both"})
