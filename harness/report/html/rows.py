"""Sample rows laid out for the page: per suite one list of items, per cell what lines up with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import ConfigError
from harness.gate.pairs import same_answer
from harness.gate.result import MissingError
from harness.gate.rows import GateRow
from harness.report.html.source import Source

ItemKey = tuple[int, str, int]
"""(seed, item hash, count), as the gate pairs items."""
CODES = {"ok": "o", "truncated_output": "t", "truncated_input": "i", "refused": "r", "error": "e"}


@dataclass
class Grid:
    """All rows of a run.

    Attributes:
        items: by suite, the items of all its cells, in the order of the first cell.
        first: by suite and item, a row of it, for what belongs to the item.
        cells: by (variant, suite), the row of each item; None where the cell has none.
        absent: by (variant, suite), why there are no rows.
    """

    items: dict[str, list[ItemKey]] = field(default_factory=dict)
    first: dict[str, dict[ItemKey, GateRow]] = field(default_factory=dict)
    cells: dict[tuple[str, str], list[GateRow | None]] = field(default_factory=dict)
    absent: dict[tuple[str, str], str] = field(default_factory=dict)

    def rows(self) -> int:
        """How many rows there are."""
        return sum(row is not None for cell in self.cells.values() for row in cell)


def read_grid(source: Source) -> Grid:
    """All rows of the run, each cell checked against the summary.

    Raises:
        CorruptRecordError: Rows are damaged, or are not those that the summary was made from.
    """
    grid = Grid()
    found: dict[tuple[str, str], Mapping[ItemKey, GateRow]] = {}
    for variant in source.summary.variants:
        for suite in source.summary.study.suites:
            try:
                cell = source.records.cell(variant.name, suite).rows
            except (MissingError, ConfigError) as problem:
                grid.absent[variant.name, suite] = str(problem)
                continue
            found[variant.name, suite] = cell
            first = grid.first.setdefault(suite, {})
            for key, row in cell.items():
                first.setdefault(key, row)
    grid.items = {suite: list(first) for suite, first in grid.first.items()}
    for (name, suite), cell in found.items():
        grid.cells[name, suite] = [cell.get(key) for key in grid.items[suite]]
    return grid


def same_answers(mine: Sequence[GateRow | None], theirs: Sequence[GateRow | None]) -> str:
    """By item: `1` the same answer, `0` another one, `-` no pair."""
    pairs = zip(mine, theirs, strict=True)
    return "".join("-" if a is None or b is None else str(int(same_answer(a, b))) for a, b in pairs)


def changed_items(grid: Grid, source: Source) -> dict[tuple[str, str], set[int]]:
    """By cell, the places of items whose score differs from the baseline's; of a baseline, from any variant's."""
    changed: dict[tuple[str, str], set[int]] = {key: set() for key in grid.cells}
    for (name, suite), cell in grid.cells.items():
        variant = source.summary.variant(name)
        baseline = source.baseline(variant) if variant is not None else None
        if baseline is None or (baseline.name, suite) not in grid.cells:
            continue
        pairs = zip(cell, grid.cells[baseline.name, suite], strict=True)
        places = {place for place, (mine, theirs) in enumerate(pairs) if mine and theirs and mine.score != theirs.score}
        changed[name, suite] |= places
        changed[baseline.name, suite] |= places
    return changed
