"""The events that pocket articles tell: who did what, to what, where and when, and the ways of telling it."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from suites.pocket import lexicon

_PAST = dict(lexicon.VERBS)
_THING_VERBS = tuple(_PAST[v] for v in "find buy sell paint carry clean repair draw move".split())
_ANIMAL_VERBS = tuple(_PAST[v] for v in "find watch follow draw paint call".split())
_FOOD_VERBS = tuple(_PAST[v] for v in "buy sell cook carry find".split())
_PERSON_VERBS = tuple(_PAST[v] for v in "meet help call teach follow watch".split())
_ANIMAL_ADJECTIVES = (
    "big",
    "small",
    "old",
    "quiet",
    "loud",
    "brown",
    "black",
    "white",
    "gray",
    "happy",
    "brave",
    "calm",
)
_LOOKS = lexicon.COLORS + ("big", "small", "old", "new", "heavy", "light", "clean", "long", "short")
STYLES = ("plain", "split", "quote")


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        name: Who did it.
        job: The person's job.
        verb: What was done, in the past tense.
        obj: To what, with its article or number.
        noun: The bare noun of `obj`.
        site: At which building or spot.
        place: In which city.
        day: On which day of the week.
    """

    name: str
    job: str
    verb: str
    obj: str
    noun: str
    site: str
    place: str
    day: str

    @property
    def highlight(self) -> str:
        """The summary sentence: who did what to what, and where; job, city and day are left out."""
        return f"{self.name} {self.verb} {self.obj} at the {self.site}."

    @property
    def slots(self) -> tuple[str, ...]:
        """All values, in a fixed order."""
        return (self.name, self.job, self.verb, self.obj, self.site, self.place, self.day)


def _with_article(adjective: str, noun: str) -> str:
    return f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {noun}"


def draw_object(rng: random.Random) -> tuple[str, str, str]:
    """A verb in the past tense, its object, and the object's bare noun."""
    kind = rng.random()
    if kind < 0.35:
        noun, _ = rng.choice(lexicon.THINGS)
        return rng.choice(_THING_VERBS), _with_article(rng.choice(_LOOKS), noun), noun
    if kind < 0.6:
        _, noun = rng.choice(lexicon.THINGS)
        return rng.choice(_THING_VERBS), f"{rng.randint(2, 99)} {noun}", noun
    if kind < 0.75:
        noun = rng.choice(lexicon.ANIMALS)
        return rng.choice(_ANIMAL_VERBS), _with_article(rng.choice(_ANIMAL_ADJECTIVES), noun), noun
    if kind < 0.88:
        noun = rng.choice(lexicon.FOODS)
        return rng.choice(_FOOD_VERBS), f"the {noun}", noun
    noun = rng.choice(lexicon.JOBS)
    return rng.choice(_PERSON_VERBS), f"the {noun}", noun


def draw_events(rng: random.Random, count: int) -> list[Event]:
    """Events without a shared name, job, object noun, site or city; days repeat."""
    names, jobs = rng.sample(lexicon.NAMES, count), rng.sample(lexicon.JOBS, count)
    sites, places = rng.sample(lexicon.SITES, count), rng.sample(lexicon.PLACES, count)
    events: list[Event] = []
    nouns = set(jobs)
    for name, job, site, place in zip(names, jobs, sites, places, strict=True):
        verb, obj, noun = draw_object(rng)
        while noun in nouns or noun.rstrip("s") in nouns:
            verb, obj, noun = draw_object(rng)
        nouns.update((noun, noun.rstrip("s")))
        events.append(Event(name, job, verb, obj, noun, site, place, rng.choice(lexicon.DAYS)))
    return events


def clause(rng: random.Random, event: Event, need: Collection[str]) -> str:
    """The event as one clause that starts with the name; `need` names the details that must be told."""
    job = f" the {event.job}" if "job" in need or rng.random() < 0.35 else ""
    place = f" in {event.place}" if "place" in need or rng.random() < 0.35 else ""
    day = f" on {event.day}" if "day" in need or rng.random() < 0.35 else ""
    return f"{event.name}{job} {event.verb} {event.obj} at the {event.site}{place}{day}"


def _plain(rng: random.Random, event: Event, need: Collection[str]) -> list[str]:
    form = rng.randrange(3)
    if form == 0:
        return [f"{clause(rng, event, need)}."]
    job = f" the {event.job}" if "job" in need or rng.random() < 0.35 else ""
    place = f" in {event.place}" if "place" in need or rng.random() < 0.35 else ""
    if form == 1:
        day = f" on {event.day}" if "day" in need or rng.random() < 0.35 else ""
        return [f"At the {event.site}{place}, {event.name}{job} {event.verb} {event.obj}{day}."]
    return [f"On {event.day}, {event.name}{job} {event.verb} {event.obj} at the {event.site}{place}."]


def _split(rng: random.Random, event: Event, need: Collection[str]) -> list[str]:
    by_job = "job" in need or rng.random() < 0.5
    job = f" the {event.job}" if by_job else ""
    place = f" in {event.place}" if "place" in need or rng.random() < 0.35 else ""
    day = f"On {event.day}, " if "day" in need or rng.random() < 0.35 else ""
    went = rng.choice(("went", "came", "walked"))
    again = f"the {event.job}" if by_job and rng.random() < 0.5 else event.name
    return [
        f"{day}{event.name}{job} {went} to the {event.site}{place}.",
        f"There {again} {event.verb} {event.obj}.",
    ]


def _quote(rng: random.Random, event: Event, need: Collection[str]) -> list[str]:
    job = f" the {event.job}" if "job" in need or rng.random() < 0.35 else ""
    place = f" in {event.place}" if "place" in need or rng.random() < 0.35 else ""
    day = f" on {event.day}" if "day" in need or rng.random() < 0.35 else ""
    said = f"said {event.name}{job}" if rng.random() < 0.6 else f"{event.name}{job} said"
    return [f'"I {event.verb} {event.obj} at the {event.site}{place}{day}," {said}.']


_TELLERS = {"plain": _plain, "split": _split, "quote": _quote}


def tell(rng: random.Random, event: Event, style: str, need: Collection[str]) -> list[str]:
    """The event in one or two sentences.

    Args:
        rng: The only source of chance.
        event: What to tell.
        style: `plain`, `split` (in two sentences, the second without the site) or `quote` (in the first person).
        need: The details among `job`, `place`, `day` that must not be left out.
    """
    return _TELLERS[style](rng, event, need)


def filler(rng: random.Random) -> str:
    """A sentence that is never worth a highlight but uses the same kinds of words."""
    kind = rng.randrange(7)
    if kind == 0:
        return f"The weather in {rng.choice(lexicon.PLACES)} was {rng.choice(('cold', 'warm', 'bright', 'dark'))}."
    if kind == 1:
        return f"It was a {rng.choice(('quiet', 'long', 'calm', 'happy', 'slow'))} day."
    if kind == 2:
        return f"{rng.choice(lexicon.NAMES)} had {rng.choice(lexicon.FOODS)} for lunch."
    if kind == 3:
        return f"{rng.choice(lexicon.NAMES)} lives in {rng.choice(lexicon.PLACES)}."
    if kind == 4:
        return f"Many people talk about {rng.choice(lexicon.TOPICS)}."
    if kind == 5:
        return f"A {rng.choice(('ticket', 'book', 'cup', 'shirt', 'lamp'))} costs {rng.randint(2, 99)} dollars."
    return f"There were {rng.randint(2, 99)} people in the {rng.choice(lexicon.SITES)}."
