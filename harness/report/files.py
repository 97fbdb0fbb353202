"""Writes what a run shows: `summary.json`, the two tables, and the rows as Parquet."""

from __future__ import annotations

from pathlib import Path

from harness.records import Summary, samples_to_parquet, write_json_atomic, write_text_atomic
from harness.report.inputs import Samples
from harness.report.leaderboard import leaderboard_markdown
from harness.report.recovery import recovery_markdown


def write_reports(summary: Summary, samples: Samples, out: Path) -> None:
    """Write everything that is derived from records; `summary.json` last, so that it stands for a complete run."""
    write_text_atomic(out / "leaderboard.md", leaderboard_markdown(summary))
    write_text_atomic(out / "recovery.md", recovery_markdown(summary))
    rows = [row for key in sorted(samples) for row in samples[key]]
    samples_to_parquet(rows, out / "records" / "samples.parquet")
    write_json_atomic(out / "summary.json", summary)
