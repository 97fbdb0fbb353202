"""`sparsebench bench gate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.bench.options import Quiet

_EPILOG = "Example:  sparsebench bench gate --out results/gate. Takes a minute or two."


def gate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json and results.md.")],
    variants: Annotated[int, typer.Option(min=2, help="Of the made-up run, the reference among them.")] = 50,
    rows: Annotated[int, typer.Option(min=100, help="Sample rows of the made-up run.")] = 20_000,
    times: Annotated[int, typer.Option(min=1, help="How often each command is started.")] = 5,
    commits: Annotated[int, typer.Option(min=8, max=1000, help="Of the history.")] = 20,
    quiet: Quiet = False,
) -> None:
    """How long gate, pytest plugin and history take on a made-up run."""
    import shlex
    import sys

    from harness.bench.gate.run import Plan, markdown, run_benchmark
    from harness.bench.report.synthetic import Shape
    from harness.progress import Phase

    command = f"sparsebench {shlex.join(sys.argv[1:])}"
    with Phase("gate", 1.0, quiet=quiet) as progress:
        record = run_benchmark(Plan(Shape(variants, rows, words=8, blocks=1), times, commits, command), out, progress)
    if not quiet:
        typer.echo(markdown(record), nl=False)


def add_gate(app: typer.Typer) -> None:
    """Make it a subcommand of `app`."""
    app.command(epilog=_EPILOG)(gate)
