"""What the formats share: fields of a row, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text(row: Mapping[str, Any], name: str) -> str:
    """The text in a field; it may be empty.

    Raises:
        ValueError: The field is absent or holds no text.
    """
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"field {name} is {'missing' if name not in row else f'{type(value).__name__}, not text'}")
    return value


def identifier(row: Mapping[str, Any], name: str) -> str:
    """The identifier in a field, a text or a whole number, as text.

    Raises:
        ValueError: The field is absent or holds something else.
    """
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"field {name} is neither a text nor a whole number")
    return str(value)


def has(*names: str) -> Any:
    """Whether a row has all of these fields, as a function of the row."""
    return lambda row: all(name in row for name in names)
