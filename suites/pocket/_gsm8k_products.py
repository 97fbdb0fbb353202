"""Arithmetic situations that begin with a number of equal groups, and what all situations share."""

from __future__ import annotations

from collections.abc import Callable

from suites.pocket import lexicon
from suites.pocket._gsm8k_story import Story

Patterns = tuple[str, ...]

_PLURALS = tuple(plural for _, plural in lexicon.THINGS)
_SINGULARS = tuple(one for one, _ in lexicon.THINGS)


def tell_things(story: Story) -> None:
    """Choose what the story counts."""
    story.fields["u"] = story.pick(_PLURALS)


def tell_site(story: Story, site: str) -> None:
    """Make a place the scene of the story."""
    plural = site[:-1] + "ies" if site.endswith("y") else site + ("es" if site.endswith(("s", "ch")) else "s")
    story.fields.update(site=site, sites=plural)


def _product(story: Story, tell: Patterns, label: str, *, second: tuple[Patterns, str, str] | None = None) -> None:
    """Tell `a` groups of `b`; a `second` (wordings, label, label of the sum) may add another product to it."""
    unit = "dollars" if story.domain in ("money", "cost") else "{u}"
    size, count = story.factors()
    story.say(tell, a=count, b=size)
    if second is None or story.left < 3 or story.chance(0.5):
        story.step(label, size, "*", count, unit)
        return
    other, number = story.factors()
    story.say(second[0], a=number, b=other)
    first = story.step(label, size, "*", count, unit)
    more = story.step(second[1], other, "*", number, unit)
    story.step(second[2], first, "+", more, unit)


def _boxes(story: Story) -> None:
    story.fields["box"] = story.pick(("boxes", "bags", "bottles", "cups"))
    tell_things(story)
    _product(
        story,
        (
            "{n} has {a} {box} with {b} {u} in each.",
            "{n} has {a} {box}. Each of the {box} holds {b} {u}.",
            "There are {b} {u} in each of the {a} {box} of {n}.",
        ),
        "{n} has",
        second=(("{n} also has {a} big {box} with {b} {u} in each.",), "The big {box} hold", "{n} has"),
    )


def _shop(story: Story) -> None:
    story.domain = "cost"
    story.fields["t"] = story.pick(_SINGULARS)
    story.fields["u"] = story.pick(_PLURALS)
    story.fields["v"] = story.pick(_PLURALS)
    _product(
        story,
        (
            "{n} buys {a} {u} for {b} dollars each.",
            "{n} buys {a} {u}. Each costs {b} dollars.",
            "At the market {u} cost {b} dollars each. {n} buys {a} of them.",
        ),
        "{n} pays",
        second=(
            ("{n} also buys {a} old {v} for {b} dollars each.", "Then {n} buys {a} new {v} at {b} dollars each."),
            "The {v} cost",
            "{n} pays",
        ),
    )


def _pages(story: Story) -> None:
    story.domain = "done"
    story.fields.update(u="pages", do="read", does="reads", has_done="reads")
    _product(
        story,
        (
            "{n} reads {b} pages a day for {a} days.",
            "For {a} days {n} reads {b} pages each day.",
            "{n} reads a book for {a} days, {b} pages a day.",
        ),
        "{n} reads",
        second=(
            ("In the next {a} days {n} reads {b} pages a day.", "Then {n} reads {b} pages a day for {a} days."),
            "Then",
            "{n} reads",
        ),
    )


def _saving(story: Story) -> None:
    story.domain = "money"
    story.fields["t"] = story.pick(_SINGULARS)
    _product(
        story,
        (
            "{n} saves {b} dollars a week for {a} weeks.",
            "For {a} weeks {n} saves {b} dollars each week.",
            "{n} puts {b} dollars into a box every week. This goes on for {a} weeks.",
        ),
        "{n} has",
        second=(("{m} adds {b} dollars a week for {a} weeks.",), "{m} adds", "{n} has"),
    )


def _baking(story: Story) -> None:
    story.domain = "done"
    story.fields.update(u="eggs", do="use", does="uses", has_done="uses")
    story.fields["food"] = story.pick(("cakes", "pizzas", "cookies"))
    _product(
        story,
        (
            "{n} bakes {a} {food}. Each needs {b} eggs.",
            "{n} uses {b} eggs for each of {a} {food}.",
            "It takes {b} eggs to bake one of the {food}. {n} bakes {a}.",
        ),
        "{n} uses",
        second=(("{n} also bakes {a} big {food} with {b} eggs each.",), "The big {food} need", "{n} uses"),
    )


def _drive(story: Story) -> None:
    story.domain = "done"
    move = story.pick((("drive", "drives"), ("travel", "travels"), ("run", "runs")))
    story.fields.update(u="km", do=move[0], does=move[1], has_done=move[1])
    story.fields["place"] = story.pick(lexicon.PLACES)
    _product(
        story,
        (
            "{n} {does} {b} km an hour for {a} hours.",
            "For {a} hours {n} {does} to {place} at {b} km an hour.",
            "{n} {does} {b} km every hour. The trip to {place} takes {a} hours.",
        ),
        "{n} {does}",
        second=(("Then {n} {does} {b} km an hour for {a} hours.",), "Then", "{n} {does}"),
    )


def _tickets(story: Story) -> None:
    story.domain = "cost"
    story.fields["t"] = story.pick(_SINGULARS)
    story.fields["site"] = story.pick(lexicon.SITES)
    _product(
        story,
        (
            "A ticket for the {site} costs {b} dollars. {n} buys {a} tickets.",
            "{n} buys {a} tickets for the {site} at {b} dollars each.",
            "{n} needs {a} tickets. The {site} sells them for {b} dollars each.",
        ),
        "{n} pays",
        second=(
            (
                "{n} also buys {a} small tickets for {b} dollars each.",
                "Then {n} gets {a} small tickets at {b} dollars.",
            ),
            "The small tickets cost",
            "{n} pays",
        ),
    )


def _farm(story: Story) -> None:
    story.fields["animal"] = story.pick(("ducks", "eagles", "owls", "frogs"))
    story.fields["u"] = "eggs"
    _product(
        story,
        (
            "{n} has {a} {animal}. Each lays {b} eggs.",
            "On the farm of {n} there are {a} {animal} with {b} eggs each.",
            "{n} takes {b} eggs from each of {a} {animal}.",
        ),
        "{n} has",
        second=(("Then {a} other {animal} lay {b} eggs each.",), "The others lay", "{n} has"),
    )


def _garden(story: Story) -> None:
    story.fields["u"] = story.pick(("flowers", "apples", "lemons", "oranges"))
    _product(
        story,
        (
            "In the garden of {n} are {a} rows with {b} {u} in each row.",
            "{n} plants {a} rows of {b} {u}.",
            "{n} has a garden with {a} rows. Each row has {b} {u}.",
        ),
        "{n} has",
        second=(("{n} also plants {a} long rows with {b} {u} in each.",), "The long rows have", "{n} has"),
    )


def _wage(story: Story) -> None:
    story.domain = "money"
    story.fields["t"] = story.pick(_SINGULARS)
    story.fields["job"] = story.pick(lexicon.JOBS)
    _product(
        story,
        (
            "{n} works as a {job} for {b} dollars an hour and works {a} hours.",
            "The {job} {n} earns {b} dollars an hour. {n} works {a} hours.",
            "{n} works {a} hours as a {job} and gets {b} dollars for each hour.",
        ),
        "{n} has",
        second=(("At night {n} works {a} hours for {b} dollars an hour.",), "The night pays", "{n} has"),
    )


def _seats(story: Story) -> None:
    story.domain = "place"
    tell_site(story, story.pick(("theater", "station", "school", "museum", "park")))
    story.fields.update(u="chairs", come="are brought", go="are taken away")
    _product(
        story,
        (
            "In the {site} are {a} rows of {b} chairs.",
            "The {site} has {a} rows with {b} chairs in each.",
            "There are {b} chairs in each of the {a} rows in the {site}.",
        ),
        "There are",
        second=(("There are also {a} short rows with {b} chairs.",), "The short rows have", "There are"),
    )


def _factory(story: Story) -> None:
    story.domain = "done"
    story.fields.update(do="make", does="makes", has_done="makes")
    tell_things(story)
    _product(
        story,
        (
            "In a factory {n} makes {b} {u} an hour. The work takes {a} hours.",
            "{n} makes {b} {u} every hour for {a} hours.",
            "For {a} hours {n} makes {b} {u} an hour.",
        ),
        "{n} makes",
        second=(("Then {n} makes {b} {u} an hour for {a} hours.",), "Then", "{n} makes"),
    )


def _week(story: Story) -> None:
    story.domain = "done"
    do = story.pick((("sell", "sells"), ("carry", "carries"), ("paint", "paints"), ("repair", "repairs")))
    story.fields.update(do=do[0], does=do[1], has_done=do[1])
    tell_things(story)
    size = story.number(*((2, 6), (2, 9), (11, 40), (11, 60))[story.difficulty - 1])
    story.say(
        ("{n} {does} {b} {u} every day of the week.", "For a week {n} {does} {b} {u} a day."),
        b=size,
    )
    story.step("{n} {does}", size, "*", 7)
    story.ask = ("How many {u} does {n} {do} in a week?", "How many {u} does {n} {do} in 7 days?")


PRODUCTS: dict[str, Callable[[Story], None]] = {
    "baking": _baking,
    "boxes": _boxes,
    "drive": _drive,
    "factory": _factory,
    "farm": _farm,
    "garden": _garden,
    "pages": _pages,
    "saving": _saving,
    "seats": _seats,
    "shop": _shop,
    "tickets": _tickets,
    "wage": _wage,
    "week": _week,
}
