"""Pocket arithmetic: short word problems in the field format of GSM8K, with calculator marks and `#### n`.

A template is a situation; difficulty is the number of reasoning steps (1, 2, 3, then 4 or 5) and the size of the
numbers. From difficulty 3 on every story multiplies a number of up to three digits by one digit, and difficulty 4 may
add a number that is not needed.
"""

from __future__ import annotations

import random
from collections.abc import Collection

from suites.pocket import lexicon
from suites.pocket._gsm8k_heads import HEADS
from suites.pocket._gsm8k_story import Story
from suites.pocket._gsm8k_tails import finish
from suites.pocket.draw import Draw

SKILL = "gsm8k"
DIFFICULTY_MIX = (0.4, 0.3, 0.2, 0.1)
TEMPLATES = tuple(HEADS)
# One of each structure: a product of things, a product of dollars, and a plain number that rises and falls.
UNSEEN = frozenset({"garden", "rope", "wage"})

_DISTRACTORS = (
    "The {site} is {z} km away.",
    "{other} is {z} years old.",
    "It takes {z} minutes to walk to the {site}.",
    "{other} has {z} {color} hats.",
)


def templates_for(difficulty: int) -> tuple[str, ...]:
    """The situations that serve a difficulty: each of them serves all four."""
    return TEMPLATES if difficulty in (1, 2, 3, 4) else ()


def _distract(story: Story, rng: random.Random) -> None:
    other, site, color = story.name(), story.pick(lexicon.SITES), story.pick(lexicon.COLORS)
    number = story.number(2, 60)
    sentence = story.pick(_DISTRACTORS).format(other=other, site=site, color=color, z=number)
    place = rng.choice((0, len(story.sentences)))
    story.slots.append(str(place))
    story.sentences.insert(place, sentence)


def draw(rng: random.Random, *, difficulty: int, templates: Collection[str]) -> Draw:
    """One word problem.

    Args:
        rng: The only source of chance.
        difficulty: 1 to 4.
        templates: Ids to choose from.
    """
    template = rng.choice([t for t in TEMPLATES if t in templates])
    steps, distract = difficulty, False
    if difficulty == 4:
        steps, distract = rng.choice(((4, True), (4, True), (4, False), (5, False)))
    story = Story(rng, difficulty, steps)
    HEADS[template](story)
    finish(story)
    if distract:
        _distract(story, rng)
    question = story.pick(story.ask).format(**story.fields)
    text = " ".join(story.sentences)
    if story.pick(("last", "last", "last", "first")) == "first":
        question = f"{question} {text}"
    else:
        question = f"{text} {question}"
    answer = "\n".join([*story.lines, f"#### {story.value}"])
    doc = {"question": question, "answer": answer}
    return Draw(template, tuple(story.slots), difficulty, doc, answer)
