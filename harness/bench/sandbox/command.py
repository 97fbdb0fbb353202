"""The command `sparsebench bench sandbox`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.bench.options import Quiet

EPILOG = (
    "Examples:  sparsebench bench sandbox --out out/sandbox  |  sparsebench bench sandbox --backends bwrap,unshare "
    "--data-dir ../shared/data --out results/sandbox. All hostile programs (contained, not fooled), honest solutions "
    "of HumanEval and, with --data-dir, of HumanEval+ and MBPP, and programs a second. Exit 1 if a program got through "
    "or an honest one did not. An interrupted run continues. A few minutes a sandbox."
)


def sandbox(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json, results.md, raw lines.")],
    backends: Annotated[
        str, typer.Option(help="Separated by commas: bwrap, docker, podman, unshare; what is absent is reported.")
    ] = "bwrap,docker,podman,unshare",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="SPARSEBENCH_DATA", exists=True, file_okay=False, help="Folder with humaneval_plus and mbpp."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Honest programs at a time.")] = 8,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of the speed measurement; 0 = none.")] = 5,
    quiet: Quiet = False,
) -> None:
    """Try the sandboxes of this machine: hostile programs, honest programs, programs a second."""
    import shlex
    import sys

    from harness.bench.options import one_of
    from harness.bench.sandbox.run import BACKENDS, Plan, holds, run_benchmark

    names = tuple(dict.fromkeys(one_of("--backends", name.strip(), BACKENDS) for name in backends.split(",")))
    plan = Plan(
        backends=names,
        out=out,
        data=data_dir,
        workers=workers,
        rounds=rounds,
        command=f"sparsebench {shlex.join(sys.argv[1:])}",
    )
    results = run_benchmark(plan, quiet=quiet)
    if not quiet:
        typer.echo(f"results: {out / 'results.md'}")
    raise typer.Exit(0 if holds(results) else 1)
