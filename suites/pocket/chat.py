"""Pocket chat: two-turn conversations in MT-Bench's form, with exact references.

Turn 1 states some facts and asks something short; turn 2 recalls or revises what was said. Every answer follows from
the conversation alone, in one fixed sentence form for each kind of question, so no judge is needed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection

from suites.pocket import _chat_facts, _chat_lists
from suites.pocket._chat_talk import Maker
from suites.pocket.draw import Draw

SKILL = "chat"
DIFFICULTY_MIX = (0.62, 0.28, 0.06, 0.04)
_MAKERS: dict[str, tuple[int, Maker]] = {**_chat_facts.TEMPLATES, **_chat_lists.TEMPLATES}
TEMPLATES = tuple(_MAKERS)
UNSEEN = _chat_facts.UNSEEN | _chat_lists.UNSEEN


def templates_for(difficulty: int) -> tuple[str, ...]:
    """The templates of one difficulty, in a fixed order."""
    return tuple(name for name, (level, _) in _MAKERS.items() if level == difficulty)


def draw(rng: random.Random, *, difficulty: int, templates: Collection[str]) -> Draw:
    """One conversation.

    Args:
        rng: The only source of chance.
        difficulty: 1 (one fact) to 4 (several edits, or a changed and an unchanged fact together).
        templates: The template names to choose from; those of another difficulty are passed over.

    Returns:
        The item; `response` is the tuple of the two ideal answers, equal to `doc["reference"]`.
    """
    template = rng.choice([name for name in templates_for(difficulty) if name in templates])
    talk = _MAKERS[template][1](rng)
    digest = hashlib.sha256("\n".join(talk.turns).encode()).hexdigest()
    doc = {
        "question_id": f"pocket-{digest[:16]}",
        "category": f"pocket/{template}",
        "turns": list(talk.turns),
        "reference": list(talk.answers),
    }
    return Draw(template, talk.slots, difficulty, doc, talk.answers)
