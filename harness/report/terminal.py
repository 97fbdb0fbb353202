"""The leaderboard for the terminal, as a rich table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.records import Summary
from harness.report.leaderboard import Leaderboard, build

if TYPE_CHECKING:
    from rich.table import Table

MIDDLE = 100
"""Columns from which a table without half-widths shows bits and MB."""
_GAP = 2
_SHORT = {"sparse %": "spars", "mean recovery %": "recov", "summarization": "summ", "instruct": "instr"}


def leaderboard_table(summary: Summary, *, width: int = 80) -> Table:
    """Return the leaderboard as a rich table for a terminal `width` columns wide.

    Where the terminal is too narrow for all of it, values come without half-widths and remarks, and in fewer columns;
    `leaderboard.md` has everything.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    board = build(summary)
    columns = list(zip(board.header, *board.rows, strict=True))
    wide = sum(max(map(len, column)) + _GAP for column in columns) + 2 <= width
    # What engine torch gives is mostly 1.00 by definition; beside another engine's column it can be spared.
    plain = {title for title in board.header if title.endswith(" torch")}
    hidden = set() if wide else plain | ({"baseline"} if width >= MIDDLE else {"baseline", "bits", "MB"})
    shown = [i for i, title in enumerate(board.header) if title not in hidden]
    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1 if wide else 0, 0, 0),
        caption=Text("\n".join(_caption(board, wide=wide))),
        caption_justify="left",
    )
    for i in shown:
        title = board.header[i] if wide else _SHORT.get(board.header[i], board.header[i])
        # Names wrap only when they are very long; without a floor rich would squeeze the column to nothing.
        floor = min(max(map(len, columns[i])), 24) if i == 0 else None
        result.add_column(
            Text(title), justify="left" if i < 2 else "right", no_wrap=i > 0, overflow="fold", min_width=floor
        )
    for row in board.rows:
        # Text, not str: a variant called [bold] must not become markup.
        cells = row if wide else [row[0], *(_bare(cell) for cell in row[1:])]
        result.add_row(*(Text(cells[i]) for i in shown))
    return result


def _caption(board: Leaderboard, *, wide: bool) -> list[str]:
    if not wide:
        return ["Scores and recovery in %; intervals, n and remarks are in leaderboard.md."]
    remarks = [f"({number}) {text}" for number, text in enumerate(board.notes.texts, start=1)]
    return ["Scores and recovery in %, ± half the 95 % interval; n and methods are in leaderboard.md.", *remarks]


def _bare(cell: str) -> str:
    """Drop half-widths and note marks: `87.5 ± 2.1 (1)` -> `87.5`."""
    return ", ".join(part.split(" ± ")[0].split(" (")[0] for part in cell.split(", "))
