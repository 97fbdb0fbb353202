"""How numbers and remarks read, the same in Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence

from harness.leaderboard.boards import Board
from harness.leaderboard.model import Cell, Panel, Protocol, Row, Source, Speed
from harness.report.markdown import percent, with_half_width
from harness.stats import Estimate

FEW_CLUSTERS = 100
"""Below it the ranks err more often than 5 % where losses are rare and large, by simulation (results/leaderboard)."""


def headline(boards: Sequence[Board], sources: Sequence[Source]) -> str:
    """What the whole page holds, in a sentence."""
    rows = sum(len(board.rows) for board in boards)
    told = f"{counted(rows, 'entry', 'entries')} from {counted(len(sources), 'record', 'records')}"
    return told + (f" on {len(boards)} boards; scores of different boards are not comparable." if boards[1:] else ".")


def is_share(board: Board, column: Protocol) -> bool:
    """Whether a column's scores are shares, which read best as per cent."""
    cells = [row.cells[column] for row in board.rows if column in row.cells]
    return all(cell.value is None or 0 <= cell.value <= 1 for cell in cells) and "perplexity" not in column.metric


def score(cell: Cell | Estimate, *, share: bool) -> str:
    """A score with half the width of its interval; empty where there is none."""
    if cell.value is None:
        return ""
    if share:
        return with_half_width(cell.value, cell.ci95)
    return f"{cell.value:.3f}" + (f" ± {(cell.ci95[1] - cell.ci95[0]) / 2:.3f}" if cell.ci95 else "")


def rank_of(board: Board, row: Row) -> tuple[int | None, str, str | None]:
    """A row's rank on the board, its letters, and why it has none: of the mean, else of the only column."""
    ranks = board.overall if board.averaged else board.ranked[board.columns[0]] if len(board.columns) == 1 else None
    if ranks is None:
        return None, "", board.no_mean
    why = ranks.unranked.get(row.id)
    return ranks.ranks.get(row.id), ranks.letters.get(row.id, ""), why


def title(board: Board) -> str:
    """What a board compares."""
    if not board.columns:
        return "speed without skill: " + ", ".join(sorted({panel.study for panel in board.panels}))
    suites = ", ".join(column.suite for column in board.columns)
    told = {_protocol_name(column) for column in board.columns}
    return f"{suites} ({next(iter(told))})" if len(told) == 1 else suites


def _protocol_name(column: Protocol) -> str:
    n = column.setting("n")
    if column.origin == "sparsebench":
        return f"preset {column.setting('preset')}, n = {n}"
    return f"lm-eval, {column.setting('shots')}-shot, n = {n}, chat template: {column.setting('chat_template')}"


def column_remarks(board: Board) -> list[str]:
    """A line for each column: its protocol, and how its entries were compared."""
    lines = []
    for column in board.columns:
        ranked = board.ranked[column]
        scored = [row for row in board.rows if column in row.cells]
        without = sum(row.cells[column].scores is None for row in scored)
        how = f"{counted(len(scored), 'entry', 'entries')}, {counted(ranked.n_pairs, 'pair', 'pairs')} tested"
        if without:
            who = counted(without, "entry", "entries")
            how += f", {ranked.n_unpaired} of them unpaired ({who} without sample rows)"
        if ranked.n_clusters is not None:
            how += f", items in {ranked.n_clusters} clusters"
            how += ": few, so that a rare large loss may show in none" if ranked.n_clusters < FEW_CLUSTERS else ""
        lines.append(f"{column.suite} = {column.told()}. {how}.")
    return lines


def mean_remark(board: Board) -> str | None:
    """What the mean column is, or why there is none."""
    if board.averaged:
        names = ", ".join(column.suite for column in board.averaged)
        return f"mean: plain mean of {names}; interval by MOVER from the suites' own. Only rows that have all of them."
    return board.no_mean[0].upper() + board.no_mean[1:] + "." if board.no_mean and board.columns else None


def speed(found: Speed) -> str:
    """A ratio with half the width of its interval; empty where there is none."""
    if found.ratio is None:
        return ""
    half = "" if found.ci95 is None else f" ± {(found.ci95[1] - found.ci95[0]) / 2:.2f}"
    return f"{found.ratio:.2f}×{half}"


def panel_groups(board: Board) -> list[list[Panel]]:
    """The board's panels; columns of one group may be compared with each other, and with no other."""
    groups: dict[tuple[str, ...], list[Panel]] = {}
    for panel in board.panels:
        groups.setdefault(panel.group, []).append(panel)
    return [sorted(panels) for _, panels in sorted(groups.items())]


def panel_title(panels: Sequence[Panel]) -> str:
    """What a group of panels measured, on what."""
    first = panels[0]
    return (
        f"{first.workload}, context {first.context}, batch {first.batch}, threads {first.threads}: "
        f"× {first.baseline} (study {first.study} {first.study_hash[:8]}, panel {first.panel}; {first.host})"
    )


def panel_column(panel: Panel, panels: Sequence[Panel]) -> str:
    """A column's title: the engine, with its dtype where the group has several."""
    several = sum(other.engine == panel.engine for other in panels) > 1
    return f"{panel.engine} {panel.dtype}" if several else panel.engine


def megabytes(size: int | None) -> str:
    """MB (10^6 bytes), empty where not known."""
    return "" if size is None else f"{size / 1e6:.1f}"


def share(value: float | None) -> str:
    """A share in per cent, empty where not known."""
    return "" if value is None else percent(value)


def counted(n: int, one: str, several: str) -> str:
    """A number with its noun."""
    return f"{n} {one if n == 1 else several}"


def score_name(board: Board) -> str | None:
    """What rows are ranked by: the mean, the only column, or nothing."""
    if board.averaged:
        return "mean"
    return board.columns[0].suite if len(board.columns) == 1 else None


def row_value(board: Board, row: Row) -> float | None:
    """The score that a row is ranked by."""
    if board.averaged:
        return board.means[row.id].value if row.id in board.means else None
    cell = row.cells.get(board.columns[0]) if len(board.columns) == 1 else None
    return cell.value if cell is not None else None


def row_score(board: Board, row: Row) -> str:
    """That score as text."""
    if row.id in board.means:
        return score(board.means[row.id], share=True)
    if len(board.columns) == 1 and board.columns[0] in row.cells:
        return score(row.cells[board.columns[0]], share=is_share(board, board.columns[0]))
    return ""
