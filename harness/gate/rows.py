"""What gate and `compare` need of a sample row, from JSONL rows or straight from the columns of a Parquet file.

A full `SampleRow` an item costs 20 microseconds to check; two runs of 45,000 rows are then over two seconds. Columns
are checked at once: the same refusals, a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from harness.errors import ConfigError, CorruptRecordError
from harness.records import SampleRow, Status
from harness.report.inputs import CellKey

if TYPE_CHECKING:
    import pyarrow as pa

_TEXT = ("variant", "engine", "suite", "suite_hash", "preset", "item_id", "item_hash", "cluster", "prompt_hash")
_COLUMNS = ("schema_version", *_TEXT, "seed", "outputs", "status", "error", "scores")
_ZERO = ("error", "refused", "truncated_input")
"""Statuses that count as a score of 0, as `SampleRow.counts_as_zero` says."""


class GateRow(NamedTuple):
    """One measured item; `score` is the mean of the row's primary metric, 0 where the item could not be answered."""

    seed: int
    item_id: str
    item_hash: str
    suite_hash: str
    preset: str
    prompt_hash: str
    cluster: str
    engine: str
    status: str
    outputs: Sequence[str]
    score: float


def gate_rows(rows: Sequence[SampleRow], metric: str) -> list[GateRow]:
    """Rows of one cell, scored by `metric`.

    Raises:
        CorruptRecordError: A row has no such score.
    """
    from harness.report.cells import primary_score

    return [
        GateRow(
            seed=row.seed,
            item_id=row.item_id,
            item_hash=row.item_hash,
            suite_hash=row.suite_hash,
            preset=row.preset,
            prompt_hash=row.prompt_hash,
            cluster=row.cluster,
            engine=row.engine,
            status=row.status,
            outputs=row.outputs,
            score=primary_score(row, metric),
        )
        for row in rows
    ]


class SampleTable:
    """The rows of a Parquet file by cell, in the order in which they are stored; a cell is built when asked for."""

    def __init__(self, columns: Mapping[str, list[Any]], scores: _Scores, where: Path) -> None:
        """Take checked columns, [n] each."""
        self._columns, self._scores, self._where = columns, scores, where
        self._places: dict[CellKey, list[int]] = {}
        for place, key in enumerate(zip(columns["variant"], columns["suite"], strict=True)):
            self._places.setdefault(key, []).append(place)

    def __iter__(self) -> Iterator[CellKey]:
        """Cells that have rows."""
        return iter(self._places)

    def cell(self, variant: str, suite: str, metric: str) -> list[GateRow]:
        """Rows of a cell; none where the file holds none.

        Raises:
            CorruptRecordError: A row has no such score.
        """
        places = self._places.get((variant, suite), [])
        means, status = self._scores.of(metric), self._columns["status"]
        score: list[float] = []
        for place in places:
            if status[place] in _ZERO:
                score.append(0.0)
            elif place in means:
                score.append(means[place])
            else:
                item = self._columns["item_id"][place]
                raise CorruptRecordError(
                    f"{variant}.{suite}, item {item} has no score {metric!r} in {self._where}: score the suite again "
                    "with `sparsebench run`"
                )
        picked = [[self._columns[name][place] for place in places] for name in GateRow._fields[:-1]]
        return [GateRow(*values) for values in zip(*picked, score, strict=True)]


class _Scores:
    """Means of the score lists of all rows, by metric and row."""

    def __init__(self, rows: Sequence[int], names: Sequence[str], means: Sequence[float]) -> None:
        self._by_metric: dict[str, dict[int, float]] = {}
        for row, name, mean in zip(rows, names, means, strict=True):
            self._by_metric.setdefault(name, {})[row] = mean

    def of(self, metric: str) -> Mapping[int, float]:
        return self._by_metric.get(metric, {})


def read_parquet(path: Path) -> SampleTable:
    """Read what `harness.records.samples_to_parquet` wrote.

    Raises:
        ConfigError: pyarrow is not installed.
        CorruptRecordError: The file is damaged, or a row is none that a run could have left.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError(f"reading {path} needs pyarrow: pip install pyarrow") from None
    try:
        # Not `read_table`, which imports pyarrow's data sets: half a second for nothing.
        table = pq.ParquetFile(path).read(columns=list(_COLUMNS), use_threads=False).combine_chunks()
        columns = {name: table.column(name).to_pylist() for name in _COLUMNS if name != "scores"}
        _check_columns(columns)
        return SampleTable(columns, _scores(table.column("scores"), columns["status"]), path)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise CorruptRecordError(f"{path} is damaged ({reason}): fetch it again") from None


def _check_columns(columns: Mapping[str, list[Any]]) -> None:
    """Refuse values that `SampleRow` refuses. Raises ValueError."""
    if set(columns["schema_version"]) - {1}:
        raise ValueError(f"rows of schema_version {sorted(set(columns['schema_version']) - {1}, key=str)}, not 1")
    for name in _TEXT:
        if not all(type(value) is str for value in columns[name]):
            raise ValueError(f"{name} is missing in a row")
    if not all(type(value) is int for value in columns["seed"]):
        raise ValueError("seed is missing in a row")
    if not all(type(value) is list and None not in value for value in columns["outputs"]):
        raise ValueError("outputs are missing in a row")
    strange = set(columns["status"]) - set(get_args(Status))
    if strange:
        raise ValueError(f"unknown status {min(strange, key=str)!r}")
    if any(status == "error" and not error for status, error in zip(columns["status"], columns["error"], strict=True)):
        raise ValueError("status 'error' without a message")


def _scores(column: pa.ChunkedArray, status: Sequence[str]) -> _Scores:
    """Means of the lists that the map column `scores` holds. Raises ValueError for a score outside 0..1."""
    import numpy as np
    import pyarrow as pa

    rows: list[int] = []
    names: list[str] = []
    means: list[float] = []
    start = 0
    for chunk in column.chunks:
        if not pa.types.is_map(chunk.type) or chunk.null_count:
            raise ValueError("scores are missing in a row")
        offsets = chunk.offsets.to_numpy(zero_copy_only=False)
        owner = np.repeat(np.arange(start, start + len(chunk)), np.diff(offsets))
        start += len(chunk)
        keys, lists = (part.slice(int(offsets[0]), owner.size) for part in (chunk.keys, chunk.items))
        values = lists.values.to_numpy(zero_copy_only=False)
        edges = lists.offsets.to_numpy(zero_copy_only=False)
        inside = values[edges[0] : edges[-1]]
        if lists.null_count or keys.null_count or not bool(np.all((inside >= 0) & (inside <= 1))):
            raise ValueError("a score lies outside 0..1 or is missing")
        sizes = np.diff(edges)
        mean = values[np.minimum(edges[:-1], values.size - 1)].tolist() if values.size else [0.0] * sizes.size
        # Summed as `primary_score` does, to the last bit: rows of JSONL and of Parquet are compared for equality.
        for i in np.flatnonzero(sizes > 1).tolist():
            mean[i] = sum(values[edges[i] : edges[i + 1]].tolist()) / int(sizes[i])
        kept = sizes > 0
        rows += owner[kept].tolist()
        names += [name for name, keep in zip(keys.to_pylist(), kept.tolist(), strict=True) if keep]
        means += [value for value, keep in zip(mean, kept.tolist(), strict=True) if keep]
    return _Scores(rows, names, means)
