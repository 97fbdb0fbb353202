"""What the report is made from: a run's records, and what its variants' folders say of how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.gate.command import read_rules
from harness.gate.run_records import RunRecords, open_run
from harness.gate_rules import GateRule
from harness.layout import Layout, read_json
from harness.records import SampleRow, Summary, VariantSummary
from harness.report.html.made import Made, read_made
from harness.report.inputs import CellKey


@dataclass(frozen=True, slots=True)
class Source:
    """A finished run.

    Attributes:
        records: its summary and rows.
        made: what the folders of its variants say, by variant; empty where the run keeps none.
        study: the resolved study, where it is kept.
        rules: the study's gate rules.
        data_dir: folder of original data files, for the questions of suites on real data.
    """

    records: RunRecords
    made: Mapping[str, Made] = field(default_factory=dict)
    study: Mapping[str, Any] | None = None
    rules: tuple[GateRule, ...] = ()
    data_dir: Path | None = None

    @property
    def summary(self) -> Summary:
        """The summary."""
        return self.records.summary

    def baseline(self, variant: VariantSummary) -> VariantSummary | None:
        """The variant that it is compared with; None for a reference, and where the baseline is not there."""
        if variant.baseline is None or variant.baseline == variant.name:
            return None
        return self.summary.variant(variant.baseline)


def open_source(folder: Path, data_dir: Path | None = None) -> Source:
    """Open the folder of a run, or one that holds its `summary.json` and `samples.parquet` alone.

    Raises:
        ConfigError: There is no summary.
        CorruptRecordError: A record is damaged, cut short, missing, or of another schema version.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name the folder of a run, which holds summary.json")
    records = open_run(folder)
    return _source(records, folder, data_dir)


def source_of(
    summary: Summary, samples: Mapping[CellKey, Sequence[SampleRow]], folder: Path, data_dir: Path | None = None
) -> Source:
    """The run whose summary and rows are at hand, and whose variants lie in `folder`."""
    records = RunRecords.in_memory(summary, samples)
    records.layout = Layout(folder)
    return _source(records, folder, data_dir)


def _source(records: RunRecords, folder: Path, data_dir: Path | None) -> Source:
    layout = Layout(folder)
    body = read_json(layout.study).get("study") if layout.study.is_file() else None
    return Source(
        records,
        read_made(layout, records.summary),
        body if isinstance(body, dict) else None,
        read_rules(folder, None, required=False) if isinstance(body, dict) else (),
        data_dir,
    )
