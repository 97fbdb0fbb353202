"""The situations that arithmetic stories start from; each tells one to three steps."""

from __future__ import annotations

from collections.abc import Callable

from suites.pocket import lexicon
from suites.pocket._gsm8k_products import PRODUCTS, tell_site, tell_things
from suites.pocket._gsm8k_story import LIMIT, Story
from suites.pocket._gsm8k_tails import change


def _collect(story: Story) -> None:
    tell_things(story)
    story.value = story.start()
    story.say(("{n} has {a} {u}.", "{n} owns {a} {u}.", "There are {a} {u} in the bag of {n}."), a=story.value)
    change(story)


def _compare(story: Story) -> None:
    tell_things(story)
    value = story.value = story.start()
    sign = story.pick("+-") if value > 6 else "+"
    number = story.addend() if sign == "+" else story.part(value)
    word = "more" if sign == "+" else "less"
    story.say(
        (
            "{n} has {a} {u}. {m} has {b} {u} {word} than {n}.",
            "{m} has {b} {u} {word} than {n}. {n} has {a} {u}.",
            "{m} has {b} {word} {u} than {n}, who has {a}.",
        ),
        a=value,
        b=number,
        word=word,
    )
    first = story.fields["n"]
    story.fields["n"] = story.fields["m"]
    story.fields["m"] = story.name()
    result = story.step("{n} has", value, sign, number)
    story.ask = ("How many {u} does {n} have?", "How many does {n} have?")
    if story.left and value + result <= LIMIT[story.difficulty - 1] // 2 and story.chance(0.5):
        story.say(
            (f"{first} and {{n}} put their {{u}} together, and {{n}} keeps them.", f"{first} gives all to {{n}}.")
        )
        story.step("{n} has", value, "+", result)


def _ages(story: Story) -> None:
    story.domain = "age"
    value = story.value = story.number(*((2, 15), (5, 40), (10, 40), (20, 60))[story.difficulty - 1])
    story.say(("{n} is {a} years old.", "{n} is now {a}.", "The age of {n} is {a} years."), a=value)
    if story.chance(0.4):
        years = story.addend()
        story.say(("Now {b} years go by.", "Think of {n} {b} years later."), b=years)
        story.step("{n} is", value, "+", years, "years")
    else:
        change(story)


def _heat(story: Story) -> None:
    story.domain = "heat"
    story.fields["place"] = story.pick(lexicon.PLACES)
    story.fields["day"] = story.pick(lexicon.DAYS)
    story.value = story.start()
    story.say(
        (
            "On {day} morning it is {a} degrees in {place}.",
            "In {place} it is {a} degrees on {day}.",
            "The temperature in {place} on {day} is {a} degrees.",
        ),
        a=story.value,
    )
    change(story)


def _bus(story: Story) -> None:
    story.domain = "place"
    kind = story.pick(("bus", "train", "ship"))
    story.fields.update(u="people", come="get on", go="get off", place=story.pick(lexicon.PLACES))
    tell_site(story, kind)
    story.value = story.start()
    story.say(
        (
            "There are {a} people on a {site} to {place}.",
            "A {site} leaves {place} with {a} people.",
            "A {site} to {place} carries {a} people.",
        ),
        a=story.value,
    )
    change(story)


def _rope(story: Story) -> None:
    story.domain = "length"
    story.fields["color"] = story.pick(lexicon.COLORS)
    story.value = story.start()
    story.say(
        ("{n} has a {color} rope of {a} meters.", "The {color} rope of {n} is {a} meters long."),
        a=story.value,
    )
    change(story)


def _teams(story: Story) -> None:
    story.domain = "place"
    story.fields.update(u="teams", come="join", go="leave")
    tell_site(story, story.pick(lexicon.SITES))
    size, count = story.factors()
    story.say(
        (
            "At the {site} {b} children make teams of {a}.",
            "{b} children at the {site} are put into teams of {a}.",
            "There are {b} children at the {site}. Each team has {a} children.",
        ),
        a=count,
        b=size * count,
    )
    story.step("There are", size * count, "/", count)
    story.ask = ("How many teams are there?", "How many teams do they make?")


def _share(story: Story) -> None:
    tell_things(story)
    size, count = story.factors()
    story.say(
        (
            "{n} and friends, {a} people in all, share {b} {u} equally.",
            "{b} {u} are shared equally among {a} friends. One of them is {n}.",
            "A group of {a} friends has {b} {u} to share equally. {n} is one of the friends.",
        ),
        a=count,
        b=size * count,
    )
    story.step("{n} has", size * count, "/", count)
    story.ask = ("How many {u} does {n} get?", "How many {u} does each of them get?")


HEADS: dict[str, Callable[[Story], None]] = {
    "ages": _ages,
    "bus": _bus,
    "collect": _collect,
    "compare": _compare,
    "heat": _heat,
    "rope": _rope,
    "share": _share,
    "teams": _teams,
    **PRODUCTS,
}
