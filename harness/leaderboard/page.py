"""`leaderboard.html`: one file, sortable and filterable, with Pareto fronts and the record behind every number."""

from __future__ import annotations

from importlib.resources import files

from harness.leaderboard import wording
from harness.leaderboard.assemble import Leaderboard
from harness.leaderboard.boards import Board
from harness.leaderboard.details import details_of
from harness.leaderboard.fronts import fronts_of
from harness.leaderboard.markdown import READ
from harness.leaderboard.model import Panel, Protocol, Row
from harness.report.markdown import with_half_width
from harness.report.page import Cell, Column, Html, document, element, figure, joined, json_block, sortable_table

_FEW = 3
"""Rows that need no search."""


def leaderboard_page(found: Leaderboard) -> str:
    """Return the whole HTML document."""
    parts: list[Html | str] = [
        element("h1", "Leaderboard"),
        element("p", wording.headline(found.boards, found.sources)),
    ]
    titles = [f"Board {number}: {wording.title(board)}" for number, board in enumerate(found.boards, start=1)]
    if len(titles) > 1:
        parts.append(_contents(titles))
    for number, (board, title) in enumerate(zip(found.boards, titles, strict=True), start=1):
        parts.append(_board(board, number, title))
    if found.left_out:
        parts.append(_left_out(found))
    parts.append(element("h2", "How to read it", attributes={"id": "reading"}))
    parts.append(element("ul", *(element("li", text) for text in READ)))
    parts += [_dialog(), json_block("records", details_of(found))]
    return document(
        "Leaderboard", joined(parts, "\n"), style=_asset("leaderboard.css"), script=_asset("leaderboard.js")
    )


def _asset(name: str) -> str:
    return files("harness.leaderboard").joinpath("assets", name).read_text(encoding="utf-8")


def _contents(titles: list[str]) -> Html:
    links = [
        element("li", element("a", title, attributes={"href": f"#board{number}"}))
        for number, title in enumerate(titles, start=1)
    ]
    return element("nav", element("ul", *links), attributes={"aria-label": "Boards"})


def _dialog() -> Html:
    close = element("button", "Close", attributes={"type": "button", "class": "close"})
    head = element("header", element("h2", "Record", attributes={"id": "record-title"}), close)
    content = element("div", attributes={"class": "content"})
    return element(
        "dialog", head, content, attributes={"id": "record", "class": "record", "aria-labelledby": "record-title"}
    )


def _board(board: Board, number: int, title: str) -> Html:
    parts: list[Html] = [element("h2", title, attributes={"id": f"board{number}"})]
    if board.columns:
        parts.append(_scores(board, number))
    plots = fronts_of(board)
    if plots:
        drawn = [figure(f"front-{number}-{place}", plot) for place, plot in enumerate(plots)]
        parts.append(element("div", *drawn, attributes={"class": "figures"}))
    for place, panels in enumerate(wording.panel_groups(board)):
        parts.append(_speeds(board, panels, f"speed-{number}-{place}"))
    remarks = [*wording.column_remarks(board), wording.mean_remark(board)]
    told = [element("li", text) for text in remarks if text]
    if told:
        parts.append(element("details", element("summary", "Protocols and comparisons"), element("ul", *told)))
    return joined(parts, "\n")


def _scores(board: Board, number: int) -> Html:
    several = len({row.source.label for row in board.rows}) > 1
    columns = [
        Column("variant", tip="Opens the record"),
        Column("rank", "number", tip="1 + the entries that are shown to be better"),
        Column("group", tip="Entries that share a letter are not shown to differ"),
        Column("study", filter=len({row.study for row in board.rows}) > 1),
        Column("record", filter=several),
    ]
    columns += [Column("mean", "number")] if board.averaged else []
    columns += [Column(column.suite, "number", tip=column.told()) for column in board.columns]
    columns += [Column("recovery %", "number", tip="Against the baseline of the row's own study")]
    columns += [Column("sparse %", "number"), Column("bits", "number"), Column("MB", "number")]
    rows = [_row(board, row) for row in board.rows]
    # A column without any entry (recovery of imported results), or the same study in each, says nothing.
    kept = [
        i for i in range(len(columns)) if (columns[i].filter if i in (3, 4) else any(_has_value(r[i]) for r in rows))
    ]
    return sortable_table(
        f"scores-{number}",
        f"Scores in %, ± half the 95 % interval, #rank in the column; {len(rows)} entries",
        [columns[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        search=len(rows) > _FEW,
        shown=100,
    )


def _has_value(cell: Cell | str) -> bool:
    return bool(cell.shown if isinstance(cell, Cell) else cell)


def _row(board: Board, row: Row) -> list[Cell | str]:
    rank, letters, why = wording.rank_of(board, row)
    button = element("button", row.variant, attributes={"type": "button", "class": "row", "id": f"row-{row.id}"})
    cells: list[Cell | str] = [
        Cell(button),
        Cell(str(rank), float(rank)) if rank else Cell(_missing(why)),
        letters,
        row.study,
        row.source.label,
    ]
    if board.averaged:
        mean = board.means.get(row.id)
        cells.append(Cell(wording.score(mean, share=True), mean.value) if mean else Cell(""))
    cells += [_score(board, row, column) for column in board.columns]
    found = row.recovery
    if found is None or found.value is None:
        cells.append(Cell(_missing(found.note) if found else ""))
    else:
        cells.append(Cell(with_half_width(found.value, found.ci95), found.value))
    cells += [
        Cell(wording.share(row.sparsity), row.sparsity),
        Cell("" if row.weight_bits is None else str(row.weight_bits), row.weight_bits),
        Cell(wording.megabytes(row.bytes), row.bytes),
    ]
    return cells


def _missing(why: str | None) -> Html:
    return element("span", "—", attributes={"title": why or "not recorded", "class": "soft"})


def _score(board: Board, row: Row, column: Protocol) -> Cell:
    cell = row.cells.get(column)
    if cell is None:
        return Cell("")
    if cell.value is None:
        return Cell(_missing(cell.note))
    rank = board.ranked[column].ranks.get(row.id)
    text = wording.score(cell, share=wording.is_share(board, column))
    remarks = "; ".join(filter(None, (cell.note, f"unpaired: {cell.unpaired}" if cell.scores is None else "")))
    marks = [element("span", f" #{rank}", attributes={"class": "rank"})] if rank else []
    marks += [element("span", " *", attributes={"title": remarks})] if remarks else []
    return Cell(joined([text, *marks]), cell.value, "best" if rank == 1 else "")


def _speeds(board: Board, panels: list[Panel], identifier: str) -> Html:
    rows = [row for row in board.rows if any(panel in row.speeds for panel in panels)]
    name = wording.score_name(board)
    several = len({row.study for row in rows}) > 1
    columns = [Column("variant"), *([Column("study", filter=True)] if several else [])]
    columns += [Column(name, "number")] if name else []
    columns += [Column("MB", "number")]
    columns += [Column(wording.panel_column(panel, panels), "number", tip=panel.told()) for panel in panels]
    body: list[list[Cell | str]] = []
    for row in rows:
        skill = [Cell(wording.row_score(board, row), wording.row_value(board, row))] if name else []
        size = Cell(wording.megabytes(row.bytes), row.bytes)
        body.append(
            [row.variant, *([row.study] if several else []), *skill, size, *(_speed(row, panel) for panel in panels)]
        )
    caption = f"Speed: {wording.panel_title(panels)}"
    return sortable_table(identifier, caption, columns, body, search=False, shown=100)


def _speed(row: Row, panel: Panel) -> Cell:
    found = row.speeds.get(panel)
    if found is None:
        return Cell("")
    if found.ratio is None:
        return Cell(_missing(found.note))
    undecided = found.verdict in ("not decided", "unconfirmed")
    shown = joined(
        [wording.speed(found), element("span", " *", attributes={"title": found.verdict}) if undecided else ""]
    )
    return Cell(shown, found.ratio)


def _left_out(found: Leaderboard) -> Html:
    rows = [[each.source, each.what, each.reason] for each in found.left_out]
    table = sortable_table(
        "left-out",
        "What was given and is in no table",
        [Column("record"), Column("what"), Column("why")],
        rows,
        search=False,
    )
    return joined([element("h2", "Left out", attributes={"id": "left-out-title"}), table])
