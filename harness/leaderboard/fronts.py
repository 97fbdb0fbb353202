"""Accuracy against size and against speed, with the Pareto front of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.leaderboard import wording
from harness.leaderboard.boards import Board
from harness.leaderboard.model import Panel, Row
from harness.report.page import Axis, Plot, Point, Series
from harness.report.pareto import pareto_front

_MOST_LABELS = 12
_WIDE = 20
"""Largest over smallest size beyond which the axis is logarithmic."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One model in a plot: what is better to the right or left, and the accuracy."""

    row: Row
    x: float
    x_range: tuple[float, float] | None
    y: float
    y_range: tuple[float, float] | None
    told: str


def fronts_of(board: Board) -> list[Plot]:
    """Plots of a board: against size, and one for each speed panel; none where there is nothing to plot against."""
    accuracy = _accuracy(board)
    if accuracy is None:
        return []
    values, name = accuracy
    plots = []
    sized = [_spot(row, row.bytes / 1e6, None, values) for row in board.rows if row.bytes and row.id in values]
    sizes = [spot.x for spot in sized]
    if len(set(sizes)) > 1:
        axis = Axis("MB of weights", log=max(sizes) > _WIDE * min(sizes))
        plots.append(_plot(f"{name} against size", sized, axis, name, smaller=True))
    for panels in wording.panel_groups(board):
        for panel in panels:
            fast = _speeds(board, panel, values)
            if len(fast) > 1 and _decided(board, panel):
                told = f"{name} against {panel.workload} speed on {panel.engine}"
                if len({other.study for other in board.panels}) > 1:
                    told += f" (study {panel.study})"
                axis = Axis(f"speed, × {panel.baseline}")
                plots.append(_plot(told, fast, axis, name, smaller=False))
    return plots


def _accuracy(board: Board) -> tuple[dict[str, tuple[float, tuple[float, float] | None]], str] | None:
    if board.averaged:
        means = {row_id: (mean.value, mean.ci95) for row_id, mean in board.means.items() if mean.value is not None}
        return means, "mean score"
    if len(board.columns) == 1 and wording.is_share(board, board.columns[0]) and board.columns[0].higher_is_better:
        column = board.columns[0]
        cells = {row.id: row.cells[column] for row in board.rows if column in row.cells}
        return {k: (cell.value, cell.ci95) for k, cell in cells.items() if cell.value is not None}, column.suite
    return None


def _decided(board: Board, panel: Panel) -> bool:
    """Whether the panel shows any difference in speed; a front over noise would be a false order."""
    verdicts = [row.speeds[panel].verdict for row in board.rows if panel in row.speeds]
    return any(verdict in (None, "faster", "slower") for verdict in verdicts)


def _speeds(board: Board, panel: Panel, values: dict[str, tuple[float, tuple[float, float] | None]]) -> list[Spot]:
    spots = []
    for row in board.rows:
        speed = row.speeds.get(panel)
        if speed is not None and speed.ratio is not None and row.id in values:
            spots.append(_spot(row, speed.ratio, speed.ci95, values))
    return spots


def _spot(
    row: Row,
    x: float,
    x_range: tuple[float, float] | None,
    values: dict[str, tuple[float, tuple[float, float] | None]],
) -> Spot:
    value, limits = values[row.id]
    y_range = (100 * limits[0], 100 * limits[1]) if limits else None
    return Spot(row, x, x_range, 100 * value, y_range, f"{row.study} / {row.variant}: {100 * value:.1f} %, {x:.3g}")


def _plot(title: str, spots: Sequence[Spot], x: Axis, name: str, *, smaller: bool) -> Plot:
    sign = -1.0 if smaller else 1.0
    on = set(pareto_front([(sign * spot.x, spot.y) for spot in spots]))
    front = sorted((spots[i] for i in on), key=lambda spot: (spot.x, spot.y, spot.row.order))
    rest = [spot for i, spot in enumerate(spots) if i not in on]
    names = ", ".join(f"{spot.row.variant} ({spot.y:.1f} %, {spot.x:.3g})" for spot in front)
    label = len(front) <= _MOST_LABELS
    series = [
        Series("Pareto front: nothing else is better in both", [_point(s, label=label) for s in front], line=True),
        Series("others", [_point(s, label=False) for s in rest], solid=False),
    ]
    direction = "left and up" if smaller else "right and up"
    description = f"{len(spots)} entries; better is {direction}. On the front: {names}."
    return Plot(title, description, x, Axis(f"{name}, %"), [each for each in series if each.points])


def _point(spot: Spot, *, label: bool) -> Point:
    return Point(spot.x, spot.y, spot.told, spot.row.variant if label else "", spot.x_range, spot.y_range)
