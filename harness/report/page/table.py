"""A table that readers sort and filter: by mouse or keyboard, and still a plain table on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.report.page.element import Attributes, Child, Html, element, joined
from harness.report.page.visible import visible


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a sortable table.

    Attributes:
        title: Its heading.
        kind: `number` columns are aligned right and sort by `Cell.value`; `text` columns sort by what they show.
        filter: Offer a choice of its values above the table.
        tip: What the heading means, shown on hover and read to screen readers.
    """

    title: str
    kind: Literal["text", "number"] = "text"
    filter: bool = False
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell shows, what it is sorted by (None sorts last in a number column), and a class of the style sheet."""

    shown: Child
    value: float | None = None
    kind: str = ""


def number_cell(shown: str, value: float | None, *, kind: str = "") -> Cell:
    """A cell of a number column."""
    return Cell(shown, value, kind)


def sortable_table(
    identifier: str,
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell | str]],
    *,
    search: bool = True,
    shown: int | None = None,
) -> Html:
    """A table with sort buttons in its headings and, where asked for, filters above it.

    The first cell of a row is its heading. Rows are all in the page, in the order given; scripts only reorder and
    hide them.

    Args:
        identifier: Unique id in the page.
        caption: What the table holds; its accessible name.
        columns: Left to right.
        rows: A cell a column.
        search: Offer a text filter over whole rows.
        shown: Show so many rows at first, the others on demand (all where no script runs, and in print).
    """
    head = [_heading(column) for column in columns]
    body = [_row(columns, row) for row in rows]
    own: Attributes = {"id": identifier, "class": "sortable", "data-shown": shown}
    table = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", joined(body, "\n")),
        attributes=own,
    )
    parts: list[Html] = []
    if search or any(column.filter for column in columns):
        parts.append(_filters(identifier, caption, columns, rows, search=search))
    scroller: Attributes = {"class": "scroll", "tabindex": 0, "role": "region", "aria-label": caption}
    parts.append(element("div", table, attributes=scroller))
    return element("div", *parts, attributes={"class": "table"})


def plain(cell: Cell | str) -> str:
    """What a cell shows, as text on one line; what filters compare."""
    shown = (cell.shown if isinstance(cell, Cell) else cell) or ""
    return " ".join((shown.striptags() if isinstance(shown, Html) else visible(shown)).split())


def _heading(column: Column) -> Html:
    button = element(
        "button", column.title, attributes={"type": "button", "class": "sort", "title": column.tip or None}
    )
    kind: Attributes = {"scope": "col", "data-kind": column.kind, "class": "n" if column.kind == "number" else None}
    return element("th", button, attributes=kind)


def _row(columns: Sequence[Column], row: Sequence[Cell | str]) -> Html:
    cells = []
    for index, (column, cell) in enumerate(zip(columns, row, strict=True)):
        found = cell if isinstance(cell, Cell) else Cell(cell)
        classes = " ".join(part for part in ("n" if column.kind == "number" else "", found.kind) if part)
        attributes: Attributes = {
            "scope": "row" if index == 0 else None,
            "class": classes or None,
            "data-v": None if found.value is None else repr(float(found.value)),
        }
        cells.append(element("th" if index == 0 else "td", found.shown, attributes=attributes))
    return element("tr", *cells)


def _filters(
    identifier: str, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], *, search: bool
) -> Html:
    parts: list[Html] = []
    for index, column in enumerate(columns):
        if column.filter:
            values = list(dict.fromkeys(plain(row[index]) for row in rows))
            options = [element("option", value, attributes={"value": value}) for value in values]
            choice = element(
                "select",
                element("option", "all", attributes={"value": ""}),
                *options,
                attributes={"data-column": index},
            )
            parts.append(element("label", f"{column.title} ", choice))
    if search:
        field = element("input", attributes={"type": "search", "autocomplete": "off", "spellcheck": "false"})
        parts.append(element("label", "Search ", field))
    parts.append(element("output", attributes={"class": "count", "role": "status"}))
    wanted: Attributes = {
        "class": "filters",
        "data-for": identifier,
        "role": "group",
        "aria-label": f"Filter: {caption}",
    }
    return element("div", *parts, attributes=wanted)
