"""What flipped: baseline and variant answers side by side, as data that the page's script shows on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.html.questions import Question, read_questions
from harness.report.html.rows import CODES, Grid, changed_items, read_grid, same_answers
from harness.report.html.source import Source
from harness.report.html.words import name_of, note, paragraph, plural, section
from harness.report.page import Html, element, joined, packed_block, visible
from harness.report.page.blocks import block_of, packed

BUDGET = 11_000_000
"""Bytes that all texts may take in the page."""
_RAW = 60_000_000
"""Characters of text from which compressing all of it is not even tried."""


@dataclass(frozen=True, slots=True)
class Level:
    """How much text goes into the page: of all items or of changed ones only, and how many characters of each."""

    changed_only: bool
    longest: int

    def keeps(self, place: int, changed: set[int]) -> bool:
        """Whether the texts of an item are kept."""
        return bool(self.longest) and (place in changed or not self.changed_only)

    @property
    def said(self) -> str:
        """What a level leaves out, for the reader; empty for the first."""
        if not self.longest:
            return "To keep this file small it holds no answers; they are in the records."
        if self.changed_only:
            return (
                "To keep this file small it holds the answers of items whose score changed, "
                f"{self.longest:,} characters of each at most; all others are in the records."
            )
        return ""


LEVELS = (Level(False, 20_000), Level(True, 4_000), Level(True, 600), Level(True, 0))


def samples(source: Source) -> Html:
    """Controls, an empty table for the script, and the data."""
    title = "What flipped"
    grid = read_grid(source)
    if not grid.cells:
        reason = next(iter(grid.absent.values()), "the study has no skills")
        return section("samples", title, note(f"Not here: {reason}."))
    questions, unknown = read_questions(source, grid)
    text, level = _texts(source, grid, questions)
    index = _index(source, grid, questions, text)
    remarks = [note(level.said)] if level.said else []
    remarks += [note("Questions of ", name_of(suite), f" are not shown: {why}.") for suite, why in unknown.items()]
    remarks += _absent(source, grid)
    return section(
        "samples",
        title,
        paragraph(
            f"{plural(grid.rows(), 'answer')} of {plural(len(source.summary.variants), 'variant')}, paired by item "
            "with the baseline's. Open an item to read question and both answers side by side; words that the "
            "other lacks are marked. Characters that cannot be seen are written out, such as ⟨U+202E⟩."
        ),
        *remarks,
        element("div", element("noscript", "This section needs scripts."), attributes={"id": "samples-view"}),
        element("h3", "By template or document"),
        element("div", attributes={"id": "groups-view"}),
        packed_block("samples_index", index),
        joined([block_of(name, coded) for name, coded in text.items()], "\n"),
    )


def _absent(source: Source, grid: Grid) -> list[Html]:
    """One line a reason for cells without rows."""
    reasons: dict[str, list[str]] = {}
    for (variant, suite), reason in grid.absent.items():
        said = source.summary.variant(variant)
        result = said.suites.get(suite) if said is not None else None
        why = reason if result is None or result.value is not None else str(result.reason)
        reasons.setdefault(why, []).append(f"{variant} on {suite}")
    return [
        note(f"Without rows here ({reason}): ", joined([name_of(cell) for cell in cells], ", "), ".", warning=True)
        for reason, cells in reasons.items()
    ]


def _texts(
    source: Source, grid: Grid, questions: Mapping[str, Sequence[Question | None]]
) -> tuple[dict[str, str], Level]:
    """Packed texts by block: answers a cell, questions a suite; and the level at which they fit the page."""
    changed = changed_items(grid, source)
    characters = sum(len(out) for cell in grid.cells.values() for row in cell if row for out in row.outputs)
    for level in LEVELS:
        if characters > _RAW and not level.changed_only:
            continue
        coded = _coded(grid, questions, changed, level)
        if sum(map(len, coded.values())) <= BUDGET:
            return coded, level
    return {}, LEVELS[-1]


def _coded(
    grid: Grid,
    questions: Mapping[str, Sequence[Question | None]],
    changed: Mapping[tuple[str, str], set[int]],
    level: Level,
) -> dict[str, str]:
    coded: dict[str, str] = {}
    for number, (key, cell) in enumerate(grid.cells.items()):
        coded[f"answers{number}"] = packed(
            [
                _outputs(row.outputs, level.longest) if row and level.keeps(place, changed[key]) else None
                for place, row in enumerate(cell)
            ]
        )
    for number, suite in enumerate(grid.items):
        some = set().union(*(places for (_, other), places in changed.items() if other == suite))
        coded[f"questions{number}"] = packed(
            [_asked(q, level) if q and level.keeps(i, some) else None for i, q in enumerate(questions.get(suite, []))]
        )
    return coded


def _outputs(outputs: Sequence[str], longest: int) -> list[Any]:
    """Answers, each as its text, or as [its beginning, its length] where it is too long."""
    return [visible(text) if len(text) <= longest else [visible(text[:longest]), len(text)] for text in outputs]


def _asked(question: Question, level: Level) -> list[Any]:
    return [_outputs(question.asked, level.longest), _outputs([question.expected], level.longest)[0]]


def _index(
    source: Source,
    grid: Grid,
    questions: Mapping[str, Sequence[Question | None]],
    text: Mapping[str, str],
) -> dict[str, Any]:
    """What the table of items shows and filters by; everything but the texts."""
    names = [variant.name for variant in source.summary.variants]
    suites = list(grid.items)
    cells = []
    for number, ((name, suite), rows) in enumerate(grid.cells.items()):
        variant = source.summary.variant(name)
        baseline = source.baseline(variant) if variant is not None else None
        theirs = grid.cells.get((baseline.name, suite)) if baseline is not None else None
        cells.append(
            {
                "variant": names.index(name),
                "suite": suites.index(suite),
                "score": [None if row is None else round(row.score, 4) for row in rows],
                "status": "".join("-" if row is None else CODES.get(row.status, "e") for row in rows),
                "length": [None if row is None else sum(map(len, row.outputs)) for row in rows],
                "same": None if theirs is None else same_answers(rows, theirs),
                "text": f"answers{number}" if f"answers{number}" in text else None,
            }
        )
    return {
        "variants": [
            {"name": visible(v.name), "baseline": None if (b := source.baseline(v)) is None else names.index(b.name)}
            for v in source.summary.variants
        ],
        "suites": [
            _suite(grid, suite, questions.get(suite, []), f"questions{i}" in text, i) for i, suite in enumerate(suites)
        ],
        "cells": cells,
    }


def _suite(grid: Grid, suite: str, asked: Sequence[Question | None], known: bool, number: int) -> dict[str, Any]:
    rows = [grid.first[suite][key] for key in grid.items[suite]]
    several = len({row.seed for row in rows}) > 1
    groups = list(dict.fromkeys(row.cluster for row in rows))
    places = {group: i for i, group in enumerate(groups)}
    return {
        "name": visible(suite),
        "items": [visible(f"{row.item_id} (seed {row.seed})" if several else row.item_id) for row in rows],
        # Where every item is a group of its own there is nothing to group by.
        "groups": [visible(group) for group in groups] if len(groups) < len(rows) else None,
        "group": [places[row.cluster] for row in rows] if len(groups) < len(rows) else None,
        "difficulty": [None if q is None else q.difficulty for q in asked] or None,
        "text": f"questions{number}" if known and any(asked) else None,
    }
