"""The leaderboard as one line a number, each with its whole origin: what CSV and Parquet hold."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.leaderboard import wording
from harness.leaderboard.assemble import Leaderboard
from harness.leaderboard.boards import Board
from harness.leaderboard.model import Cell, Protocol, Row
from harness.records import table_to_parquet

_TEXT, _NUMBER, _COUNT = "text", "number", "count"
COLUMNS: dict[str, str] = {
    "board": _COUNT,
    "row": _TEXT,
    "kind": _TEXT,
    "variant": _TEXT,
    "study": _TEXT,
    "base": _TEXT,
    "baseline": _TEXT,
    "suite": _TEXT,
    "metric": _TEXT,
    "protocol_id": _TEXT,
    "protocol": _TEXT,
    "suite_hash": _TEXT,
    "value": _NUMBER,
    "low": _NUMBER,
    "high": _NUMBER,
    "se": _NUMBER,
    "n": _COUNT,
    "n_total": _COUNT,
    "method": _TEXT,
    "rank": _COUNT,
    "group": _TEXT,
    "pairing": _TEXT,
    "note": _TEXT,
    "engine": _TEXT,
    "panel": _TEXT,
    "host": _TEXT,
    "tokens_per_s": _NUMBER,
    "noise_floor": _NUMBER,
    "verdict": _TEXT,
    "sparsity": _NUMBER,
    "weight_bits": _COUNT,
    "bytes": _COUNT,
    "parameters": _COUNT,
    "dtype": _TEXT,
    "recipe": _TEXT,
    "recipe_hash": _TEXT,
    "weights_sha256": _TEXT,
    "revision": _TEXT,
    "study_hash": _TEXT,
    "environment": _TEXT,
    "command": _TEXT,
    "record": _TEXT,
    "record_file": _TEXT,
    "record_sha256": _TEXT,
    "record_pointer": _TEXT,
}
"""Name and kind of every column. `kind` is score, metric (beside the primary one), mean, recovery or speed; a row
without a value keeps its line, with the reason in `note`."""
Line = dict[str, Any]


def lines_of(found: Leaderboard) -> list[Line]:
    """All lines, board by board, row by row."""
    return [line for number, board in enumerate(found.boards, start=1) for line in _board(board, number)]


def as_csv(lines: list[Line]) -> str:
    """CSV (RFC 4180, lines end with a line feed); a text that a spreadsheet would run as a formula gets a quote."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        writer.writerow([_plain(line.get(name)) for name in COLUMNS])
    return stream.getvalue()


def write_parquet(lines: list[Line], path: Path) -> None:
    """Write the lines as one Parquet file (zstd), atomically.

    Raises:
        ConfigError: pyarrow is not installed.
        InfrastructureError: The file cannot be written.
    """
    columns = {name: ([line.get(name) for line in lines], kind) for name, kind in COLUMNS.items()}
    table_to_parquet(columns, path)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def origin(row: Row) -> Line:
    """What every number of a row shares: fingerprints, environment, command and record."""
    return {
        "row": row.id,
        "variant": row.variant,
        "study": row.study,
        "base": row.base,
        "baseline": row.recovery.baseline if row.recovery else None,
        "sparsity": row.sparsity,
        "weight_bits": row.weight_bits,
        "bytes": row.bytes,
        "parameters": row.parameters,
        "dtype": row.dtype,
        "recipe": row.recipe,
        "recipe_hash": row.recipe_hash,
        "weights_sha256": row.weights_sha256,
        "revision": row.revision,
        "study_hash": row.study_hash,
        "environment": json.dumps(dict(row.environment), sort_keys=True),
        "command": row.command,
        "record": row.source.label,
        "record_file": row.source.file,
        "record_sha256": row.source.sha256,
        "record_pointer": row.where,
    }


def _board(board: Board, number: int) -> Iterator[Line]:
    for row in board.rows:
        shared = {"board": number, **origin(row)}
        for column in board.columns:
            if column in row.cells:
                yield from _scores(board, row, column, shared)
        if row.id in board.means:
            mean = board.means[row.id]
            rank, letters, _ = wording.rank_of(board, row)
            names = ", ".join(column.suite for column in board.averaged)
            low, high = mean.ci95 or (None, None)
            told = {"kind": "mean", "suite": names, "value": mean.value, "low": low, "high": high, "se": mean.se}
            yield {**shared, **told, "n": mean.n, "method": mean.method, "rank": rank, "group": letters}
        if row.recovery is not None:
            found = row.recovery
            low, high = found.ci95 or (None, None)
            told = {"kind": "recovery", "value": found.value, "low": low, "high": high, "n": found.n}
            yield {**shared, **told, "note": found.note, "record_pointer": found.where}
        for panel, speed in sorted(row.speeds.items()):
            low, high = speed.ci95 or (None, None)
            yield {
                **shared,
                "kind": "speed",
                "value": speed.ratio,
                "low": low,
                "high": high,
                "note": speed.note,
                "baseline": panel.baseline,
                "engine": f"{panel.engine}/{panel.dtype}",
                "panel": panel.panel,
                "host": panel.host,
                "tokens_per_s": speed.tokens_per_s,
                "noise_floor": speed.noise_floor,
                "verdict": speed.verdict,
                "protocol": panel.told(),
                "study_hash": panel.study_hash,
                "record": speed.source.label,
                "record_file": speed.source.file,
                "record_sha256": speed.source.sha256,
                "record_pointer": speed.where,
            }


def _scores(board: Board, row: Row, column: Protocol, shared: Line) -> Iterator[Line]:
    cell = row.cells[column]
    ranked = board.ranked[column]
    low, high = cell.ci95 or (None, None)
    protocol = {
        "suite": column.suite,
        "protocol_id": column.id,
        "protocol": column.told(),
        "suite_hash": column.setting("suite_hash") or column.setting("task_hash"),
        "n": cell.n,
        "n_total": cell.n_total,
        "record_pointer": cell.where,
    }
    yield {
        **shared,
        **protocol,
        "kind": "score",
        "metric": column.metric,
        "value": cell.value,
        "low": low,
        "high": high,
        "se": cell.se,
        "method": cell.method,
        "rank": ranked.ranks.get(row.id),
        "group": ranked.letters.get(row.id),
        "pairing": pairing(cell),
        "note": "; ".join(filter(None, (cell.note, ranked.unranked.get(row.id), cell.answers))) or None,
    }
    for name, value, se, where in cell.others:
        told = {"kind": "metric", "metric": name, "value": value, "se": se, "record_pointer": where}
        yield {**shared, **protocol, **told}


def pairing(cell: Cell) -> str:
    """Whether a score can be compared item by item, else why not."""
    return "by item" if cell.scores is not None else f"unpaired: {cell.unpaired}"
