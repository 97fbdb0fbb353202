"""The verb `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = (
    "Examples:  sparsebench report out/pocket  |  sparsebench report results/pocket --out pocket.html  |  sparsebench "
    "report out/full --data-dir data (shows the questions of real data). Exit codes: 2 your input, 3 damaged records."
)


def report(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a run, or of its summary.json and samples.parquet.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file; default: DIR/recovery.html.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder of the original data files, for questions of real data.")
    ] = None,
) -> None:
    """Write the accuracy-recovery report as one HTML file, from a run's records alone."""
    from harness.records import write_text_atomic
    from harness.report.html.build import recovery_html
    from harness.report.html.source import open_source

    target = out if out is not None else directory / "recovery.html"
    write_text_atomic(target, recovery_html(open_source(directory, data_dir)))
    typer.echo(f"report: {target}")
