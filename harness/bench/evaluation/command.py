"""`sparsebench bench evaluation`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.bench.options import Quiet, one_of

_EPILOG = (
    "Examples:  sparsebench bench evaluation --data ../shared/data --out results/evaluation  |  sparsebench bench "
    "evaluation --model pocket -n 64 --out out/evaluation  |  sparsebench bench evaluation --report --out "
    "results/evaluation. An interrupted run continues: timings that are in the journal are not taken again."
)


def evaluation(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json, results.md, raw lines.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="pocket or random-100m (made here); repeatable.")
    ] = None,
    items: Annotated[int, typer.Option("-n", "--n", min=2, help="First n items of GSM8K's test set.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Prompts per batch, for every arm.")] = 16,
    split: Annotated[int, typer.Option(min=0, help="Items that the steps between stock and ours answer too.")] = 64,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    data: Annotated[Path, typer.Option(envvar="SPARSEBENCH_DATA", help="Folder of real data: gsm8k, ...")] = Path(
        "../shared/data"
    ),
    work: Annotated[Path | None, typer.Option(help="Folder for the random model.")] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Measure nothing; write the results of what is there.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Answer GSM8K with stock lm-eval and with ours, in turn: how much faster, by what, and with which differences."""
    import shlex
    import sys

    from harness.bench.evaluation.run import Plan, run_benchmark
    from harness.bench.evaluation.settings import NEW_TOKENS, Settings
    from harness.models import cache_directory

    plan = Plan(
        models=tuple(one_of("--model", name, tuple(NEW_TOKENS)) for name in model or NEW_TOKENS),
        out=out,
        work=(work or cache_directory() / "bench-evaluation").expanduser().absolute(),
        data=data.expanduser().absolute(),
        settings=Settings(items=items, batch=batch, split=split, threads=threads),
        command=f"sparsebench {shlex.join(word for word in sys.argv[1:] if word != '--report')}",
    )
    run_benchmark(plan, measure=not report, quiet=quiet)
    if not quiet:
        typer.echo(f"results: {out / 'results.md'}")


def add_evaluation(app: typer.Typer) -> None:
    """Make it a subcommand of `app`."""
    app.command(epilog=_EPILOG)(evaluation)
