"""One drawn item of a pocket skill, and the keys by which items are compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Draw:
    """One item of a pocket skill.

    Attributes:
        template: Id of the template or of the combination of instructions.
        slots: The values that fill the template, in a fixed order; with `template` they identify the item.
        difficulty: 1 (easiest) to 4.
        doc: The item in the exact field format of the real benchmark.
        response: The ideal answer, used as a training target only; two texts for a two-turn chat.
    """

    template: str
    slots: tuple[str, ...]
    difficulty: int
    doc: Mapping[str, Any]
    response: str | tuple[str, ...]

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """The (template, slot values) tuple that train and test must not share."""
        return (self.template, self.slots)


def normalise(prompt: str) -> str:
    """Lower-case a prompt and collapse its white space, so that trivially equal prompts compare equal."""
    return _SPACE.sub(" ", prompt).strip().lower()


def doc_hash(doc: Mapping[str, Any]) -> str:
    """SHA-256 of a document's canonical JSON, as 64 hex digits."""
    text = json.dumps(doc, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
