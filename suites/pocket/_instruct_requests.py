"""The requests of the pocket instruct skill: what an item asks for, and the sentences that answer it.

Sentences are small templates. `{slot}` is filled from the request or from a synonym group, `~` stands for a comma that
`no_comma` drops, and `^...^` encloses the words that a highlight would mark. No sentence contains a word of one letter:
langdetect sees nothing in a text of capitals but such words, and would guess a language from them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from suites.pocket.lexicon import (
    ADJECTIVES,
    ANIMALS,
    COLORS,
    DAYS,
    FOODS,
    JOBS,
    MONTHS,
    NAMES,
    PLACES,
    SITES,
    THINGS,
    TOPICS,
)

# The first word of a group is what an answer uses; the others stand in where it is forbidden.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "very": ("very", "so", "really"),
    "nice": ("nice", "good", "fine"),
    "many": ("many", "most", "some"),
    "like": ("like", "love", "enjoy"),
}

_SINGULAR = tuple(one for one, _ in THINGS)
# Past forms of the lexicon's verbs that fit any thing.
_HANDLED = ("found", "bought", "sold", "painted", "opened", "carried", "cleaned", "repaired", "moved")
_OPENERS = (
    "Write about {about}.",
    "Tell me about {about}.",
    "Write a short text about {about}.",
    "Say something about {about}.",
    "Please write about {about}.",
    "I want to read about {about}.",
    "Can you tell me about {about}?",
)


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


@dataclass(frozen=True)
class Request:
    """One kind of request.

    Attributes:
        pick: Draws the slot values, in the order in which they identify the item.
        about: Noun phrases that name the subject; each fits every opener.
        whole: Requests worded as a whole, in place of an opener.
        topic: The title of an answer.
        sentences: Five sentences; an answer uses a prefix of them.
    """

    pick: Callable[[random.Random], dict[str, str]]
    about: tuple[str, ...]
    whole: tuple[str, ...]
    topic: str
    sentences: tuple[str, str, str, str, str]

    def word(self, rng: random.Random, slots: Mapping[str, str]) -> str:
        """The request in one of its wordings."""
        extra = {f"a_{name}": article(value) for name, value in slots.items()}
        openers = _OPENERS + self.whole
        text = rng.choice(openers)
        about = rng.choice(self.about)
        return text.format(about=about.format(**slots, **extra), **slots, **extra)


def _fields(**pools: tuple[str, ...]) -> Callable[[random.Random], dict[str, str]]:
    def pick(rng: random.Random) -> dict[str, str]:
        return {name: rng.choice(pool) for name, pool in pools.items()}

    return pick


def _pair(first: str, second: str, pool: tuple[str, ...], **rest: tuple[str, ...]) -> Callable[..., dict[str, str]]:
    def pick(rng: random.Random) -> dict[str, str]:
        one, two = rng.sample(pool, 2)
        return {first: one, second: two} | {name: rng.choice(values) for name, values in rest.items()}

    return pick


REQUESTS: Mapping[str, Request] = {
    "object": Request(
        pick=_fields(color=COLORS, thing=_SINGULAR, site=SITES),
        about=("a {color} {thing} at the {site}", "the {color} {thing} from the {site}"),
        whole=("There is a {color} {thing} at the {site}. Describe it.",),
        topic="the {color} {thing}",
        sentences=(
            "At the {site}~ we have the ^{color} {thing}^.",
            "It is {very} {nice}~ and {many} people {like} the ^{thing}^.",
            "The ^{color} {thing}^ is there all day~ and that is {nice}.",
            "When you look for the ^{thing}^~ go to the {site}.",
            "We all {like} the ^{color} {thing}^.",
        ),
    ),
    "worker": Request(
        pick=_fields(job=JOBS, past=_HANDLED, thing=_SINGULAR),
        about=("{a_job} who {past} {a_thing}", "how the {job} {past} the {thing}"),
        whole=("One day the {job} {past} {a_thing}. Tell the story.",),
        topic="the {job} and the {thing}",
        sentences=(
            "Last week~ the ^{job}^ {past} the {thing}.",
            "It was {very} {nice}~ and {many} people {like} the ^{thing}^.",
            "Now the ^{thing}^ is at home~ and the {job} is there too.",
            "When you see the ^{job}^~ ask for the {thing}.",
            "We all {like} the ^{job}^.",
        ),
    ),
    "place": Request(
        pick=_fields(adjective=ADJECTIVES, site=SITES, place=PLACES),
        about=("the {adjective} {site} in {place}", "{a_adjective} {site} in {place}"),
        whole=("Describe the {adjective} {site} in {place}.",),
        topic="the {adjective} {site}",
        sentences=(
            "In {place}~ you can find the ^{adjective} {site}^.",
            "It is {very} {nice}~ and {many} people {like} the ^{site}^.",
            "The ^{adjective} {site}^ is there all year~ and that is {nice}.",
            "When you are in ^{place}^~ go to the {site}.",
            "We all {like} ^{place}^.",
        ),
    ),
    "pet": Request(
        pick=_fields(name=NAMES, adjective=ADJECTIVES, animal=ANIMALS),
        about=("{name} and the {adjective} {animal}", "the {adjective} {animal} of {name}"),
        whole=("{name} has {a_adjective} {animal}. Describe them.",),
        topic="{name} and the {animal}",
        sentences=(
            "Every day~ ^{name}^ is with the {adjective} {animal}.",
            "It is {very} {nice}~ and {many} people {like} the ^{animal}^.",
            "When ^{name}^ is at home~ the {adjective} {animal} is there too.",
            "At night~ the ^{animal}^ sleeps in the house.",
            "We all {like} ^{name}^.",
        ),
    ),
    "meal": Request(
        pick=_fields(name=NAMES, food=FOODS, day=DAYS),
        about=("{name} and the {food} on {day}", "the {food} that {name} has on {day}"),
        whole=("{name} brings {food} on {day}. Tell me more.",),
        topic="{food} on {day}",
        sentences=(
            "On {day}~ ^{name}^ brings the {food}.",
            "It is {very} {nice}~ and {many} people {like} the ^{food}^.",
            "When ^{name}^ has the {food}~ we sit and talk.",
            "After the ^{food}^~ we all go home.",
            "We all {like} ^{day}^.",
        ),
    ),
    "trip": Request(
        pick=_pair("origin", "target", PLACES, month=MONTHS),
        about=("a trip from {origin} to {target} in {month}", "the way from {origin} to {target} in {month}"),
        whole=("In {month} we go from {origin} to {target}. Write about it.",),
        topic="from {origin} to {target}",
        sentences=(
            "In {month}~ we go from {origin} to ^{target}^.",
            "It is {very} {nice}~ and {many} people {like} ^{target}^.",
            "When we leave ^{origin}^~ the sun is up.",
            "After the week in ^{target}^~ we go home to {origin}.",
            "We all {like} ^{month}^.",
        ),
    ),
    "meeting": Request(
        pick=_pair("first", "second", NAMES, site=SITES),
        about=("{first} and {second} at the {site}", "how {first} met {second} at the {site}"),
        whole=("{first} met {second} at the {site}. Tell the story.",),
        topic="{first} and {second}",
        sentences=(
            "At the {site}~ ^{first}^ met {second}.",
            "It was {very} {nice}~ and {many} people {like} ^{second}^.",
            "When they are at the ^{site}^~ they talk all day.",
            "After that~ ^{first}^ and {second} go home.",
            "We all {like} ^{first}^.",
        ),
    ),
    "hobby": Request(
        pick=_fields(name=NAMES, topic=TOPICS, day=DAYS),
        about=("{name} and {topic} on {day}", "{topic} with {name} on {day}"),
        whole=("{name} has time for {topic} on {day}. Tell me more.",),
        topic="{topic} on {day}",
        sentences=(
            "On {day}~ there is time for {topic} with ^{name}^.",
            "It is {very} {nice}~ and {many} people {like} ^{topic}^.",
            "When ^{name}^ talks of {topic}~ we listen.",
            "After the ^{topic}^~ we all go home.",
            "We all {like} ^{day}^.",
        ),
    ),
}


@dataclass(frozen=True)
class Question:
    """A fact and a yes/no question about it: yes where it agrees, no where it differs, maybe where it is unknown."""

    pool: tuple[str, ...]
    texts: tuple[str, ...]


QUESTIONS: Mapping[str, Question] = {
    "color_question": Question(
        pool=COLORS,
        texts=(
            "{name} has a {fact} hat. Does {who} have a {asked} hat?",
            "The hat of {name} is {fact}. Is the hat of {who} {asked}?",
            "{name} has a hat that is {fact}. Is the hat of {who} {asked}?",
        ),
    ),
    "place_question": Question(
        pool=PLACES,
        texts=(
            "{name} lives in {fact}. Does {who} live in {asked}?",
            "The home of {name} is {fact}. Is the home of {who} {asked}?",
            "{name} has a house in {fact}. Does {who} have a house in {asked}?",
        ),
    ),
    "animal_question": Question(
        pool=ANIMALS,
        texts=(
            "{name} has one animal: the {fact}. Does {who} have the {asked}?",
            "The pet of {name} is the {fact}. Is the pet of {who} the {asked}?",
            "{name} saw the {fact} today. Did {who} see the {asked} today?",
        ),
    ),
}


def pick_question(rng: random.Random, question: Question) -> tuple[dict[str, str], str]:
    """Slot values of a question and its true answer."""
    name, other = rng.sample(NAMES, 2)
    fact, wrong = rng.sample(question.pool, 2)
    answer = rng.choice(("yes", "no", "maybe"))
    slots = {
        "name": name,
        "fact": fact,
        "who": other if answer == "maybe" else name,
        "asked": wrong if answer == "no" else fact,
    }
    return slots, answer
