"""`leaderboard.md`."""

from __future__ import annotations

from collections.abc import Sequence

from harness.leaderboard import wording
from harness.leaderboard.assemble import Leaderboard
from harness.leaderboard.boards import Board
from harness.leaderboard.model import Panel, Protocol, Row
from harness.leaderboard.rankings import METHOD
from harness.report.markdown import Notes, escape, escape_text, table, with_half_width

READ = (
    "Scores in %, ± half the width of the 95 % interval; #r is the rank in that column.",
    METHOD,
    "recovery %: mean recovery against the baseline of the row's own study, as that study's record has it; baselines "
    "of different studies differ.",
    "sparse %: zero weights among the block linears. bits: of a stored linear weight. MB: 10^6 bytes of safetensors.",
    "Speed is a ratio within one panel: one study, one machine, measured in turn. Ratios of different panels say "
    "nothing about each other. Speed stands beside skill only where the weights are the same (same hash, or same "
    "variant of the same record).",
)


def leaderboard_markdown(found: Leaderboard) -> str:
    """Return the page: a table a board, a table a speed panel, what is left out and why, and the records."""
    lines = ["# Leaderboard", "", wording.headline(found.boards, found.sources), ""]
    for number, board in enumerate(found.boards, start=1):
        lines += _board(board, number)
    if found.left_out:
        header, rows = ["record", "what", "why"], [[each.source, each.what, each.reason] for each in found.left_out]
        lines += ["## Left out", "", *table(header, [[escape(cell) for cell in row] for row in rows], left=3), ""]
    lines += ["## Records", "", *_records(found), "", "## How to read it", "", *(f"- {text}" for text in READ), ""]
    return "\n".join(lines)


def _board(board: Board, number: int) -> list[str]:
    notes = Notes()
    several = len({row.source.label for row in board.rows}) > 1
    lines = [f"## Board {number}: {escape_text(wording.title(board))}", ""]
    if board.columns:
        lines += [*_scores(board, notes, several=several), ""]
    for panels in wording.panel_groups(board):
        lines += [f"Speed: {escape_text(wording.panel_title(panels))}", "", *_speeds(board, panels, notes), ""]
    lines += [f"- {escape_text(text)}" for text in wording.column_remarks(board)]
    about = wording.mean_remark(board)
    lines += [f"- {escape_text(about)}"] if about else []
    if notes.texts:
        lines += ["", "No value, or a value with a remark:", "", *notes.lines()]
    return [*lines, ""]


def _speeds(board: Board, panels: Sequence[Panel], notes: Notes) -> list[str]:
    name = wording.score_name(board)
    header = ["variant", "study", *([name] if name else []), "MB"]
    header += [wording.panel_column(panel, panels) for panel in panels]
    rows = []
    for row in board.rows:
        if any(panel in row.speeds for panel in panels):
            skill = [wording.row_score(board, row)] if name else []
            speeds = [_speed(row, panel, notes) for panel in panels]
            rows.append([row.variant, row.study, *skill, wording.megabytes(row.bytes), *speeds])
    return table([escape(c) for c in header], [[escape(c) for c in row] for row in rows], left=2)


def _scores(board: Board, notes: Notes, *, several: bool) -> list[str]:
    header = ["rank", "group", "variant", "study", *(["record"] if several else [])]
    header += ["mean"] if board.averaged else []
    header += [*(column.suite for column in board.columns), "recovery %", "sparse %", "bits", "MB"]
    shares = {column: wording.is_share(board, column) for column in board.columns}
    rows = []
    for row in board.rows:
        rank, letters, why = wording.rank_of(board, row)
        name = row.variant
        if row.id in board.same_weights:
            name += f" {notes.mark('same weights as ' + ', '.join(board.same_weights[row.id]))}"
        cells = [str(rank) if rank else notes.missing(why), letters, name, row.study]
        cells += [row.source.label] if several else []
        if board.averaged:
            cells.append(wording.score(board.means[row.id], share=True) if row.id in board.means else "")
        for column in board.columns:
            cells.append(_score(board, row, column, notes, share=shares[column]))
        bits = "" if row.weight_bits is None else str(row.weight_bits)
        cells += [_recovery(row, notes), wording.share(row.sparsity), bits, wording.megabytes(row.bytes)]
        rows.append(cells)
    # A column without any entry (recovery of imported results) says nothing.
    kept = [place for place in range(len(header)) if place < 4 or any(row[place] for row in rows)]
    shown = [[escape(row[place]) for place in kept] for row in rows]
    return table([escape(header[place]) for place in kept], shown, left=4 + several)


def _score(board: Board, row: Row, column: Protocol, notes: Notes, *, share: bool) -> str:
    cell = row.cells.get(column)
    if cell is None:
        return ""
    if cell.value is None:
        return notes.missing(cell.note)
    rank = board.ranked[column].ranks.get(row.id)
    parts = [wording.score(cell, share=share), f"#{rank}" if rank else ""]
    remarks = [cell.note] if cell.note else []
    remarks += [f"unpaired: {cell.unpaired}"] if cell.scores is None else []
    parts += [notes.mark("; ".join(remarks))] if remarks else []
    return " ".join(part for part in parts if part)


def _recovery(row: Row, notes: Notes) -> str:
    found = row.recovery
    if found is None:
        return ""
    if found.value is None:
        return notes.missing(found.note)
    shown = with_half_width(found.value, found.ci95)
    return f"{shown} {notes.mark(found.note)}" if found.note else shown


def _speed(row: Row, panel: Panel, notes: Notes) -> str:
    found = row.speeds.get(panel)
    if found is None:
        return ""
    if found.ratio is None:
        return notes.missing(found.note)
    shown = wording.speed(found)
    return f"{shown} {notes.mark(found.verdict)}" if found.verdict in ("not decided", "unconfirmed") else shown


def _records(found: Leaderboard) -> list[str]:
    header = ["record", "file", "sha256", "study", "study hash", "made on", "command"]
    rows: dict[str, list[str]] = {}
    for board in found.boards:
        for row in board.rows:
            if row.source.sha256 in rows:
                continue
            where = dict(row.environment)
            made = ", ".join(
                where[name] for name in ("cpu_model", "accelerator", "platform", "dtype") if where.get(name)
            )
            rows[row.source.sha256] = [
                row.source.label,
                row.source.file,
                row.source.sha256[:12],
                row.study,
                (row.study_hash or "")[:12],
                made,
                row.command,
            ]
    kept = [[escape(cell) for cell in rows[source.sha256]] for source in found.sources if source.sha256 in rows]
    return table(header, kept, left=len(header))
