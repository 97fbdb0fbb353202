"""Tables of keys, made from the JSON Schema of pydantic models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from harness.docs.markdown import anchor, cell, paragraphs, table

_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


@dataclass(frozen=True)
class Section:
    """One model as a section of a page.

    Attributes:
        title: Its heading.
        model: The model.
        where: Where it stands in the file, shown under the heading; empty where the heading says it.
    """

    title: str
    model: type[BaseModel]
    where: str = ""


def sections_text(
    sections: Sequence[Section], *, mode: Literal["validation", "serialization"], known: Sequence[Section] = ()
) -> str:
    """The sections, each with what the model's docstring says and a table of its keys.

    Args:
        sections: In the order of the page.
        mode: Of a file that a user writes, or of one that we write.
        known: Further sections of the page, which these may link to.

    Raises:
        KeyError: A model names another that has no section: the page would leave keys out.
    """
    links = {section.model.__name__: f"[{section.title}](#{anchor(section.title)})" for section in (*known, *sections)}
    return "\n\n".join(_section(section, links, mode) for section in sections)


def _section(section: Section, links: Mapping[str, str], mode: Literal["validation", "serialization"]) -> str:
    schema = section.model.model_json_schema(by_alias=True, mode=mode)
    about = section.model.__doc__ if section.model.__doc__ != BaseModel.__doc__ else ""
    required = set(schema.get("required", ())) if mode == "validation" else set()
    head = ("key", "value", "default", "meaning") if mode == "validation" else ("field", "value", "meaning")
    rows = []
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else _default(field)
        value = _type(field, links)
        if default == "not given":
            value = value.removesuffix(" or null")
        row = [f"`{name}`", value, default, cell(field.get("description", ""))]
        rows.append(row if mode == "validation" else [row[0], row[1], row[3]])
    parts = [f"## {section.title}", section.where, paragraphs(about), table(head, rows)]
    return "\n\n".join(part for part in parts if part)


def _default(field: Mapping[str, Any]) -> str:
    if "default" not in field:
        return "" if "const" in field else "empty"
    value = field["default"]
    return "not given" if value is None else f"`{json.dumps(value)}`" if value not in ([], {}, "") else "empty"


def _type(field: Mapping[str, Any], links: Mapping[str, str]) -> str:
    """What a value may be, in words; a model of ours as a link to its section."""
    if "$ref" in field:
        return links[field["$ref"].rpartition("/")[2]]
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    for word in ("anyOf", "oneOf"):
        if word in field:
            return " or ".join(dict.fromkeys(_type(part, links) for part in field[word]))
    kind = field.get("type")
    if kind == "array":
        if "prefixItems" in field:
            return "[" + ", ".join(_type(part, links) for part in field["prefixItems"]) + "]"
        return f"list of {_type(field.get('items', {}), links)}"
    if kind == "object":
        inside = field.get("additionalProperties")
        return f"mapping of names to {_type(inside, links)}" if isinstance(inside, Mapping) else "mapping"
    limits = [f"{words} {field[key]:g}" for key, words in _LIMITS.items() if key in field]
    return ", ".join([_WORDS.get(str(kind), "any value"), *limits])
