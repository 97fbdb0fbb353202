"""What the page shows of a row's record: fingerprints, environment, command, and where each number is written."""

from __future__ import annotations

from typing import Any

from harness.leaderboard import wording
from harness.leaderboard.assemble import Leaderboard
from harness.leaderboard.boards import Board
from harness.leaderboard.model import Row
from harness.leaderboard.tidy import pairing
from harness.report.markdown import percent, with_interval

HEADS = ("number", "value [95 %]", "n", "rank", "record", "place", "how", "protocol")


def details_of(found: Leaderboard) -> dict[str, Any]:
    """Plain values for the page's data block: heads of the table of numbers, and rows by id."""
    rows = {}
    for board in found.boards:
        for row in board.rows:
            rows[row.id] = {
                "name": f"{row.study} / {row.variant}",
                "facts": _facts(board, row),
                "numbers": [*_scores(board, row), *_others(board, row), *_speeds(row)],
                "command": row.command,
                "environment": [list(pair) for pair in row.environment],
                "notes": list(row.notes),
            }
    return {"heads": list(HEADS), "rows": rows}


def _facts(board: Board, row: Row) -> list[list[str]]:
    rank, letters, why = wording.rank_of(board, row)
    facts = {
        "rank": f"{rank}, group {letters}" if rank else why,
        "base model": row.base,
        "recipe": row.recipe,
        "recipe hash": row.recipe_hash,
        "sparse, linears": None if row.sparsity is None else f"{percent(row.sparsity)} %",
        "bits": row.weight_bits,
        "bytes": None if row.bytes is None else f"{row.bytes:,}",
        "parameters": None if row.parameters is None else f"{row.parameters:,}",
        "dtype": row.dtype,
        "weights sha256": row.weights_sha256 or "not recorded",
        "revision": row.revision,
        "same weights as": ", ".join(board.same_weights.get(row.id, ())),
        "study hash": row.study_hash,
        "record": f"{row.source.label}/{row.source.file}{'#' + row.where if row.where else ''}",
        "record sha256": row.source.sha256,
    }
    return [[name, str(value)] for name, value in facts.items() if value not in (None, "")]


def _scores(board: Board, row: Row) -> list[list[str]]:
    lines = []
    for column in board.columns:
        cell = row.cells.get(column)
        if cell is None:
            continue
        share = wording.is_share(board, column)
        ranked = board.ranked[column]
        shown = "—" if cell.value is None else _interval(cell.value, cell.ci95, share=share)
        rank, letters = ranked.ranks.get(row.id), ranked.letters.get(row.id, "")
        how = "; ".join(
            filter(None, (cell.method, pairing(cell), cell.note, cell.answers, ranked.unranked.get(row.id)))
        )
        n = str(cell.n) if cell.n == cell.n_total else f"{cell.n} of {cell.n_total}"
        told = f"#{rank} {letters}" if rank else "—"
        place = [row.source.file, cell.where]
        lines.append([column.suite, shown, n, told.strip(), *place, how, column.told()])
        for name, value, se, where in cell.others:
            one = "—" if value is None else f"{value:.4f}" + (f" (se {se:.4f})" if se is not None else "")
            lines.append([f"{column.suite} {name}", one, n, "", row.source.file, where, "", ""])
    return lines


def _interval(value: float, ci95: tuple[float, float] | None, *, share: bool) -> str:
    if share:
        return with_interval(value, ci95)
    return f"{value:.4f}" + (f" [{ci95[0]:.4f}, {ci95[1]:.4f}]" if ci95 else "")


def _others(board: Board, row: Row) -> list[list[str]]:
    lines = []
    mean = board.means.get(row.id)
    if mean is not None and mean.value is not None:
        rank, letters, _ = wording.rank_of(board, row)
        over = f"over {', '.join(column.suite for column in board.averaged)}"
        shown = with_interval(mean.value, mean.ci95)
        lines.append(["mean", shown, str(mean.n), f"#{rank} {letters}", "of the scores", "", mean.method, over])
    if row.recovery is not None:
        found = row.recovery
        shown = "—" if found.value is None else with_interval(found.value, found.ci95)
        told = f"against {found.baseline}" + (f"; {found.note}" if found.note else "")
        place = [row.source.file, found.where]
        lines.append(["recovery %", shown, str(found.n), "", *place, told, "mean over the suites"])
    return lines


def _speeds(row: Row) -> list[list[str]]:
    lines = []
    for panel, speed in sorted(row.speeds.items()):
        shown = "—" if speed.ratio is None else f"{speed.ratio:.3f}×"
        shown += f" [{speed.ci95[0]:.3f}, {speed.ci95[1]:.3f}]" if speed.ci95 else ""
        parts = [speed.verdict, speed.note]
        parts += [f"{speed.tokens_per_s:,.1f} tokens/s on that machine"] if speed.tokens_per_s else []
        parts += [f"noise floor {percent(speed.noise_floor)} %"] if speed.noise_floor is not None else []
        how = "; ".join(part for part in parts if part)
        file = f"{speed.source.label}/{speed.source.file}"
        lines.append([f"{panel.workload} {panel.engine}", shown, "", "", file, speed.where, how, panel.told()])
    return lines
