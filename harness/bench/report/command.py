"""`sparsebench bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.bench.options import Quiet

_EPILOG = (
    "Examples:  sparsebench bench report --out results/report  |  sparsebench bench report --variants 10 --rows 50000 "
    "--out out/report --keep out/report/page.html. Needs Playwright (pip install playwright) and Chromium; takes "
    "half a minute."
)


def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json and results.md.")],
    variants: Annotated[int, typer.Option(min=2, help="Of the made-up run, the reference among them.")] = 50,
    rows: Annotated[int, typer.Option(min=100, help="Sample rows of the made-up run.")] = 20_000,
    words: Annotated[int, typer.Option(min=1, help="Words of a mean answer.")] = 60,
    times: Annotated[int, typer.Option(min=1, help="How often the page is built and opened.")] = 5,
    keep: Annotated[Path | None, typer.Option(help="Keep the page in this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Size of the HTML report, and how long it takes to build and to open in a browser, on a made-up run."""
    import os
    import shlex
    import sys

    from harness.bench.priority import favour
    from harness.bench.report.run import Plan, markdown, run_benchmark
    from harness.bench.report.synthetic import Shape

    # The browser inherits it: other work on the machine must not count as the page's.
    favour(os.getpid())
    command = f"sparsebench {shlex.join(sys.argv[1:])}"
    record = run_benchmark(Plan(Shape(variants, rows, words), times, command, keep), out)
    if not quiet:
        typer.echo(markdown(record), nl=False)


def add_report(app: typer.Typer) -> None:
    """Make it a subcommand of `app`."""
    app.command(epilog=_EPILOG)(report)
