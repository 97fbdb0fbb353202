"""Scores of two-turn conversations by exact references.

A turn is right when its text equals the reference after normalisation: case folded, white space collapsed, one leading
filler ("Sure, ", "Okay. ") and all trailing punctuation removed. Nothing is searched for inside the text, so an answer
that lists every fact of the conversation, or that goes on after the right sentence, is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

NEEDS_JUDGE = "needs a judge (MT-Bench has no exact references)"
_EXACT = "pocket/"
_SPACE = re.compile(r"\s+")
_FILLER = re.compile(r"^(?:sure|ok|okay|yes|right|well|certainly|of course)[,.!:] ")
_TRAILING = ".!?,;: "


def normalise(text: str) -> str:
    """The form in which an answer and its reference are compared; the text of a filler alone is kept."""
    text = _SPACE.sub(" ", text).strip().casefold().rstrip(_TRAILING)
    return _FILLER.sub("", text, count=1)


def scorable(doc: Mapping[str, Any]) -> str | None:
    """Why the primary metric cannot be computed for this document; None if it can.

    Documents whose `category` starts with `pocket/` have exact references. The references of MT-Bench are a judge's
    aid: one possible answer, not the answer.
    """
    return None if str(doc.get("category", "")).startswith(_EXACT) else NEEDS_JUDGE


def score(doc: Mapping[str, Any], output: str | Sequence[str]) -> dict[str, float | list[float]]:
    """Score one conversation.

    Args:
        doc: Has `turns`; where `scorable`, also `reference`, one text for each turn.
        output: The model's text of each turn; missing turns count as empty.

    Returns:
        `answered` (no turn is empty) for every document; for those with exact references also `turn1`, `turn2`,
        `both_turns` (each 0 or 1) and `turns`, the list of both turns, to be averaged over all turns.
    """
    texts = [output] if isinstance(output, str) else list(output)
    count = len(doc["turns"])
    texts = (texts + [""] * count)[:count]
    scores: dict[str, float | list[float]] = {"answered": float(all(text.strip() for text in texts))}
    if scorable(doc) is not None:
        return scores
    references = [str(text) for text in doc["reference"]]
    right = [float(normalise(text) == normalise(reference)) for text, reference in zip(texts, references, strict=True)]
    scores.update({f"turn{number}": value for number, value in enumerate(right, 1)})
    scores["both_turns"] = float(all(right))
    scores["turns"] = right
    return scores
