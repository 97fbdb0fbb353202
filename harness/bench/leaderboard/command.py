"""`sparsebench bench leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.bench.options import Quiet

_EPILOG = (
    "Examples:  sparsebench bench leaderboard --out results/leaderboard  |  sparsebench bench leaderboard --variants "
    "200 --runs 100 --out out/leaderboard. No model is run: answers are made up from known skills."
)


def leaderboard(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json and results.md.")],
    variants: Annotated[int, typer.Option(min=2, help="Entries of the made-up set.")] = 50,
    items: Annotated[int, typer.Option("-n", "--n", min=2, help="Items of each of its three suites.")] = 200,
    repeats: Annotated[int, typer.Option(min=1, help="Timed rounds; the median counts.")] = 5,
    runs: Annotated[int, typer.Option(min=5, help="Simulated boards of each kind.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the made-up set.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Time the leaderboard on a made-up set of models, and simulate how often its ranks are wrong."""
    import shlex
    import sys

    from harness.bench.leaderboard.run import Plan, run_benchmark
    from harness.bench.leaderboard.synthetic import Shape

    shape = Shape(variants=variants, items=items, seed=seed)
    command = f"sparsebench {shlex.join(sys.argv[1:])}"
    run_benchmark(Plan(out, shape, repeats, runs, command), quiet=quiet)
    if not quiet:
        typer.echo(f"results: {out / 'results.md'}")


def add_leaderboard(app: typer.Typer) -> None:
    """Make it a subcommand of `app`."""
    app.command(epilog=_EPILOG)(leaderboard)
