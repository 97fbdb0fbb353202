"""Pocket summarization: articles and highlights in CNN/DailyMail's form.

An article tells several events of the same kind; which of them are its highlights is marked in one of twelve ways (a
cue before the sentence, a consequence after it, a pointer by name, city, day, thing, ...). A highlight is the event
without its details, put together from two sentences or from direct speech where the article tells it so. Almost all
words of a highlight are values, so that knowing the templates alone earns little ROUGE.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from dataclasses import replace

from suites.pocket import lexicon
from suites.pocket._summ_events import STYLES, Event, clause, draw_events, filler, tell
from suites.pocket.draw import Draw

SKILL = "summarization"
DIFFICULTY_MIX = (0.4, 0.3, 0.2, 0.1)
_SENTENCES = {1: (2, 3), 2: (4, 6), 3: (8, 12), 4: (14, 20)}
_HIGHLIGHTS = {1: (1, 1), 2: (1, 2), 3: (2, 2), 4: (3, 3)}
_SHARED = {"hero": "name", "place": "place", "day": "day", "site": "site"}
_POINTERS = {
    "names": ("This is a story about {v}.", "Today we write about {v}.", "What did {v} do?"),
    "hero": ("This is the story of {v}.", "The hero of the week is {v}.", "Everyone wants to know about {v}."),
    "place": ("News from {v}.", "This report comes from {v}.", "What happened in {v}?"),
    "day": ("This is what happened on {v}.", "The news of {v}.", "What happened on {v}?"),
    "job": ("This report is about the {v}.", "Today we write about the {v}.", "What did the {v} do?"),
    "thing": ("This is a story about the {v}.", "People asked about the {v}.", "What happened to the {v}?"),
    "site": ("News from the {v}.", "Something happened at the {v}.", "What happened at the {v}?"),
}
_SCHEMES = ("main", "twice", "result", "true", "correct", *_POINTERS)
_PLAIN_ONLY = frozenset({"true", "correct"})
TEMPLATES = tuple(
    f"{scheme}.{style}" for scheme in _SCHEMES for style in STYLES if style == "plain" or scheme not in _PLAIN_ONLY
)
UNSEEN = frozenset({"main.split", "names.quote", "place.split", "thing.quote"})

_MAIN = ("The main news: ", "The top story: ", "Most important: ", "The big news: ")
_MINOR = ("Also: ", "Other news: ", "Less important: ", "", "", "")
_RESULTS = (
    "Because of this, the {s} is now famous.",
    "Because of this, many people were happy.",
    "As a result, everyone came to the {s}.",
    "This was a big surprise.",
)
_NO_RESULTS = ("Nobody saw it.", "Nothing came of it.", "This was not important.")
_AGAIN = (
    "Everyone talked about {n} and the {o}.",
    "People will remember {n} and the {o}.",
    "The paper wrote about {n} and the {o}.",
)


def templates_for(difficulty: int) -> tuple[str, ...]:
    """All templates: each serves every difficulty, which sets the length and the number of highlights."""
    return TEMPLATES if difficulty in _SENTENCES else ()


def _joined(values: Collection[str], link: str = " and ") -> str:
    return link.join(dict.fromkeys(values))


def _events(rng: random.Random, scheme: str, keys: int, others: int) -> tuple[list[Event], list[Event]]:
    """Key events and others; under a pointer scheme the keys share the field pointed at, and no other has it."""
    drawn = draw_events(rng, keys + others)
    chosen, rest = drawn[:keys], drawn[keys:]
    field = _SHARED.get(scheme)
    if field:
        chosen = [replace(event, **{field: getattr(chosen[0], field)}) for event in chosen]
        if field == "name":
            chosen = [replace(event, job=chosen[0].job) for event in chosen]
    if field == "day":
        days = [day for day in lexicon.DAYS if day != chosen[0].day]
        rest = [replace(event, day=rng.choice(days)) for event in rest]
    return chosen, rest


def _pointer(rng: random.Random, scheme: str, keys: list[Event]) -> str:
    field = {"names": "name", "hero": "name", "thing": "noun"}.get(scheme, scheme)
    link = " and the " if scheme in ("job", "thing") else " and "
    return rng.choice(_POINTERS[scheme]).format(v=_joined([getattr(event, field) for event in keys], link))


def _key_block(rng: random.Random, scheme: str, style: str, event: Event, wrong: str) -> list[str]:
    if scheme == "true":
        told = clause(rng, event, ())
        return [rng.choice((f"It is true that {told}.", f"We know that {told}.", f"{told}."))]
    if scheme == "correct":
        told = clause(rng, replace(event, name=wrong), ())
        first = rng.choice((f"First people said that {told}.", f"The paper wrote that {told}."))
        return [first, rng.choice((f"In fact it was {event.name}.", f"This was wrong, it was {event.name}."))]
    need = {scheme} if scheme in ("job", "place", "day") else set()
    block = tell(rng, event, style, need)
    if scheme == "main":
        block[0] = rng.choice(_MAIN) + block[0]
    if scheme == "result":
        block.append(rng.choice(_RESULTS).format(s=event.site))
    return block


def _other_block(rng: random.Random, scheme: str, style: str, event: Event) -> list[str]:
    if scheme == "true":
        told = clause(rng, event, ())
        return [rng.choice((f"It is not true that {told}.", f"Some said that {told}, but this was wrong."))]
    need = {scheme} if scheme in ("job", "place", "day") else set()
    block = tell(rng, event, style if rng.random() < 0.5 else "plain", need)
    if scheme == "main":
        block[0] = rng.choice(_MINOR) + block[0]
    if scheme == "result" and rng.random() < 0.5:
        block.append(rng.choice(_NO_RESULTS))
    return block


def draw(rng: random.Random, *, difficulty: int, templates: Collection[str]) -> Draw:
    """One article with its highlights.

    Args:
        rng: The only source of chance.
        difficulty: 1 (two or three sentences, one highlight) to 4 (up to about 20 sentences, three highlights).
        templates: The template names to choose from, each `scheme.style`.

    Returns:
        The item; `slots` holds the values of the key events only, so that no highlights are shared between training
        and test text even where the rest of the article differs. `response` equals `doc["highlights"]`.
    """
    template = rng.choice([name for name in templates_for(difficulty) if name in templates])
    scheme, style = template.split(".")
    count = rng.randint(*_HIGHLIGHTS[difficulty])
    target = rng.randint(*_SENTENCES[difficulty])
    keys, others = _events(rng, scheme, count, min(12, target - count) if difficulty > 1 else 1)
    names = {event.name for event in keys + others}
    wrong = rng.sample([name for name in lexicon.NAMES if name not in names], count)
    blocks = [(_key_block(rng, scheme, style, key, wrong[i]), key.highlight) for i, key in enumerate(keys)]
    head = [_pointer(rng, scheme, keys)] if scheme in _POINTERS else []
    tail = [rng.choice(_AGAIN).format(n=key.name, o=key.noun) for key in keys] if scheme == "twice" else []
    length = len(head) + len(tail) + sum(len(sentences) for sentences, _ in blocks)
    for event in others:
        if length >= target and length > len(keys) + 1:
            break
        block = [filler(rng)] if rng.random() < 0.25 else _other_block(rng, scheme, style, event)
        length += len(block)
        blocks.append((block, ""))
    rng.shuffle(blocks)
    rng.shuffle(tail)
    if head and rng.random() < 0.25:
        head, tail = [], head
    article = " ".join([*head, *(sentence for block, _ in blocks for sentence in block), *tail])
    highlights = "\n".join(highlight for _, highlight in blocks if highlight)
    doc = {
        "article": article,
        "highlights": highlights,
        "id": hashlib.sha1(article.encode(), usedforsecurity=False).hexdigest(),
    }
    slots = tuple(value for key in keys for value in key.slots)
    return Draw(template, slots, difficulty, doc, highlights)
