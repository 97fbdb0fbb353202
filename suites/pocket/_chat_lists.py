"""Conversations about lists (repeat, pick, edit, reverse), about things with a color and a place, and about lessons."""

from __future__ import annotations

import random
from collections.abc import Sequence

from suites.pocket import lexicon
from suites.pocket._chat_talk import Maker, Talk, follow_up, opener, question

_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("shopping", lexicon.FOODS + tuple(plural for _, plural in lexicon.THINGS)),
    ("guest", lexicon.NAMES),
    ("farm", lexicon.ANIMALS + lexicon.FOODS),
    ("travel", lexicon.PLACES + lexicon.SITES),
)
_SAID = ("My {k} list is {l}.", "Here is my {k} list: {l}.", "On my {k} list are {l}.", "I wrote a {k} list: {l}.")
_NEXT = ("", "", "Thanks. ", "Good. ", "Right. ")
_ORDINALS = ("first", "second", "third")


def _list_answer(items: Sequence[str]) -> str:
    return f"The list is {', '.join(items)}."


def _apply(rng: random.Random, step: str, items: list[str], spare: list[str]) -> tuple[tuple[str, ...], str, list[str]]:
    """Wordings of one step, its answer, and the list after it; `spare` holds words that are not on the list."""
    if step == "repeat":
        return ("What is on the list?", "Please say the list.", "Repeat the list."), _list_answer(items), items
    if step == "count":
        return (
            ("How many items are on the list?", "How long is the list?", "Count the items."),
            f"The list has {len(items)} items.",
            items,
        )
    if step in (*_ORDINALS, "last"):
        item = items[-1] if step == "last" else items[_ORDINALS.index(step)]
        wordings = (f"Which item is {step}?", f"What is the {step} item?", f"Name the {step} item.")
        return wordings, f"The {step} item is {item}.", items
    if step == "add":
        new = spare.pop()
        after = [*items, new]
        return (f"Add {new}.", f"Add {new} to the list.", f"Please put {new} on the list."), _list_answer(after), after
    if step == "remove":
        old = rng.choice(items)
        after = [item for item in items if item != old]
        return (f"Remove {old}.", f"Take {old} off the list.", f"Please delete {old}."), _list_answer(after), after
    if step == "replace":
        old, new = rng.choice(items), spare.pop()
        after = [new if item == old else item for item in items]
        return (
            (f"Replace {old} by {new}.", f"Put {new} in the place of {old}.", f"Change {old} to {new}."),
            _list_answer(after),
            after,
        )
    if step == "shorten":
        after = items[:-1]
        return (
            ("Say that again without the last item.", "Drop the last item.", "Leave out the last item."),
            _list_answer(after),
            after,
        )
    if step == "reverse":
        after = items[::-1]
        wordings = ("Reverse the list.", "Say the list backwards.", "Put the list in reverse order.")
        return wordings, _list_answer(after), after
    one, _, middle = _apply(rng, "remove", items, spare)
    two, answer, after = _apply(rng, "add", middle, spare)
    first, second = rng.choice(one), rng.choice(two)
    return (f"{first} {second}", f"{first} Then: {second}"), answer, after


def lists(rng: random.Random, *, size: int, first: str, then: str) -> Talk:
    """A list of `size` words, and a step in each turn; the second works on the list that the first left behind.

    Args:
        rng: The only source of chance.
        size: Words on the list.
        first: `repeat`, `count`, `first`, `second`, `third`, `last`, `add`, `remove`, `replace`, `reverse`, `shorten`
            or `edit` (remove one, add one).
        then: The same for the second turn.
    """
    kind, words = rng.choice(_KINDS)
    drawn = rng.sample(words, size + 2)
    items, spare = drawn[:size], drawn[size:]
    said = opener(rng) + rng.choice(_SAID).format(k=kind, l=", ".join(items)) + " "
    wordings1, answer1, middle = _apply(rng, first, items, spare)
    wordings2, answer2, _ = _apply(rng, then, middle, spare)
    turns = (said + rng.choice(wordings1), rng.choice(_NEXT) + rng.choice(wordings2))
    return Talk(turns, (answer1, answer2), (kind, *items, answer1, answer2))


def things(rng: random.Random, *, count: int, first: str, then: str) -> Talk:
    """Things with a color and a place; each turn asks the `color` or the `place` of one, or `which` thing it is."""
    nouns = rng.sample([thing for thing, _ in lexicon.THINGS], count)
    colors, sites = rng.sample(lexicon.COLORS, count), rng.sample(lexicon.SITES, count)
    said = " ".join(
        rng.choice(
            (f"The {n} is {c} and lies at the {s}.", f"The {c} {n} is at the {s}.", f"At the {s} is the {c} {n}.")
        )
        for n, c, s in zip(nouns, colors, sites, strict=True)
    )
    order = rng.sample(range(count), count)
    asked = (order[0], order[-1])
    wordings: list[tuple[str, ...]] = []
    answers: list[str] = []
    for which, kind in zip(asked, (first, then), strict=True):
        noun, color, site = nouns[which], colors[which], sites[which]
        if kind == "color":
            wordings.append((f"Which color is the {noun}?", f"What color does the {noun} have?"))
            answers.append(f"The {noun} is {color}.")
        elif kind == "place":
            wordings.append((f"Where is the {noun}?", f"Where can I find the {noun}?"))
            answers.append(f"The {noun} is at the {site}.")
        else:
            wordings.append((f"What is at the {site}?", f"Which thing is at the {site}?"))
            answers.append(f"The {noun} is at the {site}.")
    turns = (opener(rng) + said + " " + question(rng, wordings[0]), follow_up(rng, wordings[1]))
    return Talk(turns, (answers[0], answers[1]), (*nouns, *colors, *sites, nouns[asked[0]], nouns[asked[1]]))


def lesson(rng: random.Random, *, first: str, then: str) -> Talk:
    """A lesson with teacher, topic, day and place; each turn asks one of `who`, `what`, `day`, `place`.

    `moved` as second turn moves the lesson to another day and asks for day and place in one answer.
    """
    name, topic = rng.choice(lexicon.NAMES), rng.choice(lexicon.TOPICS)
    day, site = rng.choice(lexicon.DAYS), rng.choice(lexicon.SITES)
    said = rng.choice(
        (
            f"{name} teaches {topic} on {day} at the {site}.",
            f"On {day}, {name} teaches {topic} at the {site}.",
            f"There is a {topic} lesson with {name} on {day} at the {site}.",
        )
    )
    asks: dict[str, tuple[tuple[str, ...], str]] = {
        "who": (("Who teaches?", "Who is the teacher?"), f"{name} teaches {topic}."),
        "what": ((f"What does {name} teach?", "What is the lesson about?"), f"{name} teaches {topic}."),
        "day": (("When is the lesson?", "On which day is the lesson?"), f"The lesson is on {day}."),
        "place": (("Where is the lesson?", "Where do I have to go?"), f"The lesson is at the {site}."),
    }
    slots = [name, topic, day, site]
    turn1 = opener(rng) + said + " " + question(rng, asks[first][0])
    if then == "moved":
        new = rng.choice([other for other in lexicon.DAYS if other != day])
        change = rng.choice((f"The lesson was moved to {new}.", f"Actually, it is on {new}."))
        turn2 = f"{change} {rng.choice(('When and where is it?', 'Tell me the day and the place.'))}"
        return Talk((turn1, turn2), (asks[first][1], f"The lesson is on {new} at the {site}."), (*slots, new))
    return Talk((turn1, follow_up(rng, asks[then][0])), (asks[first][1], asks[then][1]), tuple(slots))


TEMPLATES: dict[str, tuple[int, Maker]] = {
    "list3.repeat.first": (1, lambda rng: lists(rng, size=3, first="repeat", then="first")),
    "list3.repeat.last": (1, lambda rng: lists(rng, size=3, first="repeat", then="last")),
    "thing1.color.place": (1, lambda rng: things(rng, count=1, first="color", then="place")),
    "thing1.place.color": (1, lambda rng: things(rng, count=1, first="place", then="color")),
    "lesson.day.place": (1, lambda rng: lesson(rng, first="day", then="place")),
    "lesson.who.day": (1, lambda rng: lesson(rng, first="who", then="day")),
    "list3.first.last": (2, lambda rng: lists(rng, size=3, first="first", then="last")),
    "list3.repeat.add": (2, lambda rng: lists(rng, size=3, first="repeat", then="add")),
    "list4.repeat.third": (2, lambda rng: lists(rng, size=4, first="repeat", then="third")),
    "list3.count.repeat": (2, lambda rng: lists(rng, size=rng.randint(3, 5), first="count", then="repeat")),
    "thing2.color.place": (2, lambda rng: things(rng, count=2, first="color", then="place")),
    "lesson.what.moved": (2, lambda rng: lesson(rng, first="what", then="moved")),
    "list4.repeat.remove": (3, lambda rng: lists(rng, size=4, first="repeat", then="remove")),
    "list4.repeat.replace": (3, lambda rng: lists(rng, size=4, first="repeat", then="replace")),
    "list3.add.second": (3, lambda rng: lists(rng, size=3, first="add", then="second")),
    "list4.repeat.reverse": (3, lambda rng: lists(rng, size=4, first="repeat", then="reverse")),
    "list4.second.replace": (3, lambda rng: lists(rng, size=4, first="second", then="replace")),
    "thing3.which.color": (3, lambda rng: things(rng, count=3, first="which", then="color")),
    "list4.add.remove": (4, lambda rng: lists(rng, size=4, first="add", then="remove")),
    "list5.replace.shorten": (4, lambda rng: lists(rng, size=5, first="replace", then="shorten")),
    "list4.replace.reverse": (4, lambda rng: lists(rng, size=4, first="replace", then="reverse")),
    "list4.repeat.edit": (4, lambda rng: lists(rng, size=4, first="repeat", then="edit")),
    "list4.edit.last": (4, lambda rng: lists(rng, size=4, first="edit", then="last")),
    "list5.remove.replace": (4, lambda rng: lists(rng, size=5, first="remove", then="replace")),
}
UNSEEN = frozenset({"lesson.who.day", "list3.first.last", "list4.second.replace", "list5.remove.replace"})
