"""Brings the rows of a file together with the items that they answer; nothing is dropped, doubled or guessed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import ConfigError
from harness.score.given import GivenFile, Row
from suites.data import Item

Doc = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """What one row says: outputs, and the item that they belong to.

    Attributes:
        names: How the row calls the item, as `field=value`, best first; a later one counts where an earlier one is the
            name of several items.
        outputs: One text, or several samples.
    """

    names: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Format:
    """A format of answers.

    Attributes:
        name: For messages and the summary.
        example: A row, abridged.
        accepts: Whether a row is of this format, by its fields.
        read: What a row says; raises ValueError, naming the field, where it cannot be read.
        names: All names of an item, from its place and its document, as `Said.names` has them.
        several: Several rows may answer one item: they are its samples.
        keep: Whether a row is read at all, given the first of the file (a tool may write an answer more than once).
        program: Code only: the program that an output stands for; None leaves it to the preset's extraction.
    """

    name: str
    example: str
    accepts: Callable[[Doc], bool]
    read: Callable[[Doc], Said]
    names: Callable[[int, Doc], Iterable[str]]
    several: bool = False
    keep: Callable[[Doc, Doc], bool] = lambda row, first: True
    program: Callable[[Doc, str], str | None] | None = None


@dataclass(frozen=True)
class Answer:
    """One output for one item.

    Attributes:
        item: The item.
        sample: 0-based among the item's answers.
        output: The text.
        line: Number of the row in the file.
    """

    item: Item
    sample: int
    output: str
    line: int


def find_format(given: GivenFile, formats: Sequence[Format], suite: str, name: str | None = None) -> Format:
    """The format of a file: the one that is named, else the first that its first row fits.

    Raises:
        ConfigError: There is none.
    """
    known = "; ".join(f"{form.name}: {form.example}" for form in formats)
    if name is not None:
        chosen = next((form for form in formats if form.name == name), None)
        if chosen is None:
            raise ConfigError(f"suite {suite} has no format {name!r}; choose one of {known}")
        return chosen
    first = given.rows[0]
    found = next((form for form in formats if form.accepts(first.content)), None)
    if found is None:
        fields = ", ".join(sorted(map(str, first.content))[:8]) or "none"
        raise ConfigError(f"{given.path} {first.where}: fields {fields} are of no format of suite {suite}; use {known}")
    return found


def match(given: GivenFile, form: Format, items: Sequence[Item]) -> list[Answer]:
    """The answers of a file, in its order.

    Raises:
        ConfigError: A row is not of the format, names no item or one that already has its answer.
    """
    by_name = _index(form, items)
    found: dict[str, list[tuple[Row, str]]] = defaultdict(list)
    answers = []
    for row in given.rows:
        said = _said(given, form, row)
        if said is None:
            continue
        item = _item(given, row, said, by_name)
        before = found[item.item_id]
        if before and not form.several:
            raise ConfigError(
                f"{given.path} {row.where}: {_short(said.names[0])} has its answer in {before[0][0].where} already; "
                "remove one of them"
            )
        for output in said.outputs:
            answers.append(Answer(item, len(before), output, row.number))
            before.append((row, output))
    return answers


def _said(given: GivenFile, form: Format, row: Row) -> Said | None:
    if not form.accepts(row.content):
        raise ConfigError(
            f"{given.path} {row.where}: not a row of {form.name}, which are like {form.example}; correct or remove it"
        )
    if not form.keep(row.content, given.rows[0].content):
        return None
    try:
        return form.read(row.content)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{given.path} {row.where}: {error}; correct or remove the row") from None


def _index(form: Format, items: Sequence[Item]) -> dict[str, list[Item]]:
    by_name: dict[str, list[Item]] = defaultdict(list)
    for index, item in enumerate(items):
        for name in dict.fromkeys(form.names(index, item.doc)):
            by_name[name].append(item)
    return by_name


def _item(given: GivenFile, row: Row, said: Said, by_name: Mapping[str, list[Item]]) -> Item:
    for name in said.names:
        candidates = by_name.get(name, ())
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            example = _short(next(iter(by_name), "none"))
            raise ConfigError(
                f"{given.path} {row.where}: unknown item {_short(name)}; items are like {example}: choose the suite, "
                "preset or data file that it is from (--suite, --preset, --problems)"
            )
    raise ConfigError(
        f"{given.path} {row.where}: {_short(said.names[0])} names several items; give their index instead"
    )


def _short(name: str) -> str:
    shown = " ".join(name.split())
    return repr(shown if len(shown) <= 60 else f"{shown[:57]}...")
