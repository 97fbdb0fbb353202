"""Text of records on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text of records may hold anything; a terminal gets one line without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)
