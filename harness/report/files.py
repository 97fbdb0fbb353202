"""Writes what a run shows: `summary.json`, the two tables, the HTML report, and the rows as Parquet."""

from __future__ import annotations

from pathlib import Path

from harness.records import Summary, samples_to_parquet, write_json_atomic, write_text_atomic
from harness.report.html.build import recovery_html
from harness.report.html.source import source_of
from harness.report.inputs import Samples
from harness.report.leaderboard import leaderboard_markdown
from harness.report.recovery import recovery_markdown


def write_reports(summary: Summary, samples: Samples, out: Path, data_dir: Path | None = None) -> None:
    """Write everything that is derived from records; `summary.json` last, so that it stands for a complete run.

    Args:
        summary: The run's summary.
        samples: Its rows.
        out: Its folder.
        data_dir: Folder of original data files, from which the HTML report takes the questions.
    """
    write_text_atomic(out / "leaderboard.md", leaderboard_markdown(summary))
    write_text_atomic(out / "recovery.md", recovery_markdown(summary))
    write_text_atomic(out / "recovery.html", recovery_html(source_of(summary, samples, out, data_dir)))
    rows = [row for key in sorted(samples) for row in samples[key]]
    samples_to_parquet(rows, out / "records" / "samples.parquet")
    write_json_atomic(out / "summary.json", summary)
