"""Rows to boards: one protocol a column, and no two boards share one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.errors import ConfigError
from harness.leaderboard.model import ITEMS_UNKNOWN, LeftOut, Panel, Protocol, Row, Speed
from harness.leaderboard.rankings import Ranked, rank_column, rank_mean
from harness.stats import Estimate
from suites.registry import ALL_SUITES

SPEED_ONLY = "no skill"


@dataclass(frozen=True, eq=False)
class Board:
    """Rows that share protocols, best first.

    Attributes:
        columns: the protocols, in the order in which tables show them.
        rows: sorted by the rank and mean of all columns.
        panels: speed panels in which any of the rows was measured.
        ranked: ranks by column.
        overall: ranks of the mean over `averaged`.
        means: mean score by the row's id.
        averaged: the columns that the mean is over; empty where there is no mean.
        no_mean: why not.
        same_weights: names of other rows with the same weights, by the row's id.
    """

    columns: tuple[Protocol, ...]
    rows: tuple[Row, ...]
    panels: tuple[Panel, ...]
    ranked: Mapping[Protocol, Ranked]
    overall: Ranked
    means: Mapping[str, Estimate]
    averaged: tuple[Protocol, ...]
    no_mean: str | None
    same_weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def build_boards(
    rows: Sequence[Row], *, suites: Sequence[str] = (), strict: bool = False
) -> tuple[list[Board], list[LeftOut]]:
    """Boards of all rows, and what is in none; the board with most rows first, then that with most answers.

    Args:
        rows: Rows of all sources.
        suites: Only these suites; all where empty.
        strict: Refuse several protocols of one suite instead of giving each a column.

    Raises:
        ConfigError: `strict` and a suite was measured by several protocols; or a suite that no row has.
    """
    rows, left_out = _only(with_known_items(rows), suites)
    if strict:
        _refuse_several(rows)
    rows, folded = _fold_speed(rows)
    left_out += folded
    kept = []
    for row in rows:
        if row.cells or row.speeds:
            kept.append(row)
        else:
            reason = "neither a score nor a speed is in its record"
            left_out.append(LeftOut(row.source.label, f"{row.study}/{row.variant}", reason))
    names = _same_weights(kept)
    boards = [_board(members, names) for members in _connected(kept)]

    def size(board: Board) -> tuple[object, ...]:
        ids = [column.id for column in board.columns]
        answers = sum(cell.n for row in board.rows for cell in row.cells.values())
        return (not ids, -len(board.rows), -answers, ids, [row.id for row in board.rows])

    boards.sort(key=size)
    return boards, sorted(left_out)


def with_known_items(rows: Sequence[Row]) -> list[Row]:
    """Rows in which a score without sample rows counts as made on the items of its protocol, where those are unique.

    Same suite, version, preset and number of items, and all records that have rows agree on the items: then a record
    whose rows were not kept belongs to the same column, unpaired.
    """
    known: dict[Protocol, set[str]] = {}
    for row in rows:
        for protocol in row.cells:
            items = protocol.setting("items")
            if items not in (None, ITEMS_UNKNOWN):
                known.setdefault(protocol.changed(items=ITEMS_UNKNOWN), set()).add(str(items))

    def resolved(protocol: Protocol) -> Protocol:
        found = known.get(protocol, set())
        return protocol.changed(items=next(iter(found))) if len(found) == 1 else protocol

    return [replace(row, cells={resolved(protocol): cell for protocol, cell in row.cells.items()}) for row in rows]


def _only(rows: Sequence[Row], suites: Sequence[str]) -> tuple[list[Row], list[LeftOut]]:
    if not suites:
        return list(rows), []
    there = {protocol.suite for row in rows for protocol in row.cells}
    unknown = [suite for suite in suites if suite not in there]
    if unknown:
        raise ConfigError(f"no result has the suite {unknown[0]!r}; they have {', '.join(sorted(there)) or 'none'}")
    gone = sorted(there - set(suites))
    left_out = [LeftOut("all", ", ".join(gone), "left out by --suite")] if gone else []
    kept = [replace(row, cells={p: cell for p, cell in row.cells.items() if p.suite in suites}) for row in rows]
    return kept, left_out


def _refuse_several(rows: Sequence[Row]) -> None:
    by_suite: dict[str, dict[str, Protocol]] = {}
    for row in rows:
        for protocol in row.cells:
            by_suite.setdefault(protocol.suite, {})[protocol.id] = protocol
    for suite, found in sorted(by_suite.items()):
        if len(found) > 1:
            told = " | ".join(protocol.told() for _, protocol in sorted(found.items()))
            raise ConfigError(
                f"{suite} was measured by {len(found)} protocols ({told}): give results of one, or leave out --strict "
                "to have a column for each"
            )


def _fold_speed(rows: Sequence[Row]) -> tuple[list[Row], list[LeftOut]]:
    """Give every row with scores the speeds that other records measured of the same weights.

    A row of speed alone whose weights have scores elsewhere is then shown there.
    """
    by_weights: dict[str, dict[Panel, Speed]] = {}
    scored: dict[str, str] = {}
    for row in rows:
        if row.weights_sha256:
            for panel, speed in row.speeds.items():
                by_weights.setdefault(row.weights_sha256, {}).setdefault(panel, speed)
            if row.cells:
                scored.setdefault(row.weights_sha256, f"{row.study}/{row.variant}")
    kept, folded = [], []
    for row in rows:
        if not row.cells and row.speeds and row.weights_sha256 in scored:
            reason = f"its speed stands in the row of {scored[row.weights_sha256]}, which has the same weights"
            folded.append(LeftOut(row.source.label, f"{row.study}/{row.variant}", reason))
            continue
        others = by_weights.get(row.weights_sha256 or "", {}) if row.cells else {}
        kept.append(replace(row, speeds={**others, **row.speeds}))
    return kept, folded


def _same_weights(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    by_weights: dict[str, list[Row]] = {}
    for row in rows:
        if row.weights_sha256:
            by_weights.setdefault(row.weights_sha256, []).append(row)
    return {
        row.id: tuple(f"{other.study}/{other.variant}" for other in same if other is not row)
        for same in by_weights.values()
        if len(same) > 1
        for row in same
    }


def _connected(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that share a column, directly or over others, without two protocols of one suite; of speed alone by panel.

    The protocols that most rows have come first, so that one record by another protocol opens a board of its own and
    splits no other.
    """
    by_keys: dict[frozenset[object], list[Row]] = {}
    for row in rows:
        skills: frozenset[object] = frozenset(row.cells)
        keys = skills or frozenset(panel.group for panel in row.speeds)
        by_keys.setdefault(keys, []).append(row)
    groups: list[tuple[frozenset[object], list[Row]]] = []
    for keys, members in sorted(by_keys.items(), key=lambda item: (-len(item[1]), sorted(map(str, item[0])))):
        merged, apart = (keys, list(members)), []
        for other in groups:
            if merged[0] & other[0] and not _conflict(merged[0] | other[0]):
                merged = (merged[0] | other[0], [*other[1], *merged[1]])
            else:
                apart.append(other)
        groups = [*apart, merged]
    return [sorted(members, key=lambda row: row.order) for _, members in groups]


def _conflict(keys: frozenset[object]) -> bool:
    """Whether one suite occurs by two protocols."""
    suites = [key.suite for key in keys if isinstance(key, Protocol)]
    return len(set(suites)) < len(suites)


def _place(protocol: Protocol) -> tuple[int, str, str]:
    known = ALL_SUITES.index(protocol.suite) if protocol.suite in ALL_SUITES else len(ALL_SUITES)
    return known, protocol.suite, protocol.id


def _board(rows: Sequence[Row], names: Mapping[str, tuple[str, ...]]) -> Board:
    columns = tuple(sorted({protocol for row in rows for protocol in row.cells}, key=_place))
    averaged, no_mean = _averaged(rows, columns)
    overall, means = rank_mean(rows, averaged) if averaged else (Ranked({}, {}, {}), {})
    ranked = {column: rank_column(rows, column) for column in columns}
    only = columns[0] if len(columns) == 1 else None

    def place(row: Row) -> tuple[object, ...]:
        ranks = ranked[only] if only is not None else overall
        cell = row.cells.get(only) if only is not None else None
        value = cell.value if cell is not None else means[row.id].value if row.id in means else None
        up = 1.0 if only is None or only.higher_is_better else -1.0
        known = (0, ranks.ranks[row.id]) if row.id in ranks.ranks else (1, 0)
        return (*known, -(up * value) if value is not None else float("inf"), *row.order)

    return Board(
        columns=columns,
        rows=tuple(sorted(rows, key=place)),
        panels=tuple(sorted({panel for row in rows for panel in row.speeds})),
        ranked=ranked,
        overall=overall,
        means=means,
        averaged=averaged,
        no_mean=no_mean,
        same_weights={row.id: names[row.id] for row in rows if row.id in names},
    )


def _averaged(rows: Sequence[Row], columns: Sequence[Protocol]) -> tuple[tuple[Protocol, ...], str | None]:
    """The columns that a mean may be over, or why there is no mean."""
    if len(columns) < 2:
        return (), None if columns else SPEED_ONLY
    down = [column.suite for column in columns if not column.higher_is_better]
    if down:
        return (), f"no mean score: lower is better in {', '.join(down)}"
    cells = {column: [row.cells[column].value for row in rows if column in row.cells] for column in columns}
    scales = [column.suite for column in columns if any(v is not None and not 0 <= v <= 1 for v in cells[column])]
    if scales:
        return (), f"no mean score: {', '.join(scales)} is not on the scale 0 to 1"
    return tuple(columns), None
