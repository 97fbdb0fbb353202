"""A finished run as the gate and `compare` read it: its summary, and the rows of a cell when they are asked for.

Reads records only: no torch. Whatever is cut short, missing or contradicts itself is refused, never skipped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import CorruptRecordError, InfrastructureError
from harness.gate.result import MissingError
from harness.gate.rows import GateRow, SampleTable, gate_rows, read_parquet
from harness.layout import Layout, read_json
from harness.records import SuiteResult, Summary, read_samples, read_summary
from harness.report.inputs import CellKey, Samples

_AGAIN = "run `sparsebench run` with the same --out again, it makes what is missing"
TOLERANCE = 2e-6
"""The summary keeps six decimals."""


@dataclass(frozen=True, slots=True)
class RowCell:
    """The rows of one complete cell, each with its primary score.

    The key is (seed, item hash, count): a benchmark may hold the same item twice, which are then told apart by their
    order.
    """

    rows: Mapping[tuple[int, str, int], GateRow]


@dataclass
class RunRecords:
    """A run's summary and rows.

    Attributes:
        summary: `summary.json`.
        where: what messages call the run.
        layout: its folder; None for a run in memory.
        parquet: a `samples.parquet` that holds all rows, where the run has no folder of rows.
        samples: rows that are at hand already, of a run in memory.
    """

    summary: Summary
    where: str
    layout: Layout | None = None
    parquet: Path | None = None
    samples: Samples | None = None
    _cells: dict[CellKey, RowCell] = field(default_factory=dict)
    _table: SampleTable | None = None

    @classmethod
    def in_memory(cls, summary: Summary, samples: Samples, where: str = "the run") -> RunRecords:
        """A run whose rows are at hand already."""
        return cls(summary, where, samples=samples)

    def cell(self, variant: str, suite: str) -> RowCell:
        """One complete cell, its rows checked against the summary.

        Raises:
            MissingError: There are none, or the cell has no value or not all its items.
            CorruptRecordError: The rows are damaged or are not those that the summary was made from.
        """
        found = self._cells.get((variant, suite))
        if found is None:
            result = self.require(variant, suite)
            rows = self._read(variant, suite, result.metric)
            found = _checked(rows, result, f"{variant}.{suite} of {self.where}")
            if self.layout is not None:
                answers = sum(len(row.outputs) for row in rows)
                _check_journal(self.layout.journal(variant, suite), answers, exactly=True)
            self._cells[variant, suite] = found
        return found

    def require(self, variant: str, suite: str) -> SuiteResult:
        """The summary's cell; MissingError unless it exists, has a value and has all its items."""
        summary = self.summary.variant(variant)
        if summary is None:
            raise MissingError(f"variant {variant!r} is not in {self.where}")
        result = summary.suites.get(suite)
        if result is None:
            raise MissingError(f"suite {suite!r} is not in {self.where} for {variant}")
        if result.value is None:
            raise MissingError(f"{variant}.{suite} has no value: {result.reason}")
        if result.n > result.n_total:
            raise MissingError(f"{variant}.{suite} has {result.n} items, {result.n_total} were planned: {_AGAIN}")
        if result.n == 0 or result.n < result.n_total:
            raise MissingError(f"{variant}.{suite} is incomplete: {result.n} of {result.n_total} items; {_AGAIN}")
        return result

    def cell_key(self, variant: str, suite: str) -> dict[str, Any] | None:
        """What the cell's rows depend on (hashes of weights, tokenizer, chat template); None where not kept."""
        path = None if self.layout is None else self.layout.cell(variant, suite)
        if path is None or not path.is_file():
            return None
        key = read_json(path).get("key")
        return key if isinstance(key, dict) else None

    def _read(self, variant: str, suite: str, metric: str) -> Sequence[GateRow]:
        rows: Sequence[GateRow] = ()
        if self.samples is not None:
            rows = gate_rows(self.samples.get((variant, suite), ()), metric)
        elif self.layout is not None and self.layout.samples(variant, suite).is_file():
            rows = gate_rows(read_samples(self.layout.samples(variant, suite)), metric)
        elif self.parquet is not None:
            if self._table is None:
                self._table = read_parquet(self.parquet)
            rows = self._table.cell(variant, suite, metric)
        if not rows:
            raise MissingError(
                f"the rows of {variant}.{suite} are not in {self.where}: keep records/samples/ or samples.parquet "
                "beside summary.json"
            )
        return rows


def open_run(path: Path) -> RunRecords:
    """Open a run, given its folder or its `summary.json`, and check that its records are whole.

    Raises:
        ConfigError: There is no summary.
        CorruptRecordError: A record is cut short, missing, or of another schema version.
    """
    summary = read_summary(path)
    folder = path if path.is_dir() else path.parent
    layout = Layout(folder)
    for variant in summary.variants:
        for suite, result in variant.suites.items():
            if result.value is not None:
                _check_files(layout, variant.name, suite, result.n)
    parquet = next(
        (p for p in (folder / "samples.parquet", folder / "records" / "samples.parquet") if p.is_file()), None
    )
    return RunRecords(summary, str(path), layout, parquet)


def check_against_study(run: RunRecords) -> None:
    """Refuse a summary that lacks what the study beside it names: a rule on `all` would not miss it.

    Raises:
        CorruptRecordError: A variant or suite of the study is not in the summary, or a baseline is another.
    """
    layout = run.layout
    if layout is None or not layout.study.is_file():
        return
    body = read_json(layout.study).get("study")
    variants, suites = (body.get(key) if isinstance(body, dict) else None for key in ("variants", "suites"))
    if not isinstance(variants, dict) or not isinstance(suites, dict):
        raise CorruptRecordError(f"{layout.study} holds no study: {_AGAIN}")
    for suite in suites:
        if suite not in run.summary.study.suites:
            raise CorruptRecordError(f"{run.where} lacks suite {suite!r}, which its study.json names: {_AGAIN}")
    for name, spec in variants.items():
        found = run.summary.variant(name)
        if found is None:
            raise CorruptRecordError(f"{run.where} lacks variant {name!r}, which its study.json names: {_AGAIN}")
        meant = (spec.get("baseline") if isinstance(spec, dict) else None) or next(iter(variants))
        if found.baseline != (None if meant == name else meant):
            raise CorruptRecordError(
                f"{run.where} compares {name} with {found.baseline}, its study.json with {meant}: {_AGAIN}"
            )


def _check_files(layout: Layout, variant: str, suite: str, n: int) -> None:
    """Refuse a cell whose files are cut short: rows by their number, the journal by its last line and number."""
    samples, journal = layout.samples(variant, suite), layout.journal(variant, suite)
    if samples.is_file():
        rows = _lines(samples)
        if rows != n:
            raise CorruptRecordError(f"{samples} has {rows} rows, summary.json counts {n}: {_AGAIN}")
    elif samples.parent.is_dir():
        raise CorruptRecordError(f"{samples} is missing: {_AGAIN}")
    _check_journal(journal, n)


def _check_journal(journal: Path, answers: int, *, exactly: bool = False) -> None:
    """Refuse a journal with fewer rows (or, `exactly`, another number) than there are answers: one a turn."""
    if not journal.is_file():
        return
    rows = _lines(journal) - 1  # its first line is a header
    if exactly and rows > answers:
        rows = _settled(journal)
    if rows < answers or (exactly and rows > answers):
        raise CorruptRecordError(f"{journal} has {rows} rows for {answers} answers: {_AGAIN}")


def _settled(journal: Path) -> int:
    """The rows that count: a request that failed and was asked again has a row for each time; the last one counts."""
    rows = [line for line in journal.read_bytes().splitlines()[1:] if line]
    try:
        return len({json.loads(row)["request_id"] for row in rows})
    except (ValueError, KeyError, TypeError):
        raise CorruptRecordError(f"{journal} has a row that cannot be read: {_AGAIN}") from None


def _lines(path: Path) -> int:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InfrastructureError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    if data and not data.endswith(b"\n"):
        raise CorruptRecordError(f"{path} was cut short in the middle of a row: {_AGAIN}")
    return data.count(b"\n")


def _checked(rows: Sequence[GateRow], result: SuiteResult, where: str) -> RowCell:
    """Refuse rows that are not those which the summary's cell was made from."""
    if len(rows) != result.n:
        raise CorruptRecordError(f"{where} has {len(rows)} rows, its summary counts {result.n}: {_AGAIN}")
    if len({(row.seed, row.item_id) for row in rows}) < len(rows):
        raise CorruptRecordError(f"{where} has an item twice: delete its samples file and run again")
    if any((row.suite_hash, row.preset) != (result.suite_hash, result.preset) for row in rows):
        raise CorruptRecordError(f"{where} has rows of another version or preset of the suite: {_AGAIN}")
    keyed: dict[tuple[int, str, int], GateRow] = {}
    for row in rows:
        count = 0
        while (row.seed, row.item_hash, count) in keyed:
            count += 1
        keyed[row.seed, row.item_hash, count] = row
    mean = math.fsum(row.score for row in rows) / len(rows)
    if result.value is None or not abs(mean - result.value) <= TOLERANCE:
        raise CorruptRecordError(
            f"{where} scores {mean:.6f} by its rows, {result.value} by its summary: delete summary.json and run again"
        )
    return RowCell(keyed)
