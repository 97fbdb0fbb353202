"""The verb `leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.leaderboard.assemble import Leaderboard

EPILOG = (
    "Examples:  sparsebench leaderboard out/pocket results/pocket --out out/board  |  sparsebench leaderboard runs/* "
    "their/results_2026-01-31.json --suite gsm8k --out out/board  |  sparsebench leaderboard out/pocket --export "
    "model-index --export lm-eval --out out/board. Each protocol has its own column; nothing is averaged over two. "
    "What is left out is listed with its reason. Exit codes: 0 written, 2 your input, 3 a damaged record."
)
EXPORTS = ("model-index", "eval-results", "lm-eval")


def leaderboard(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="Run folders, folders with a summary.json (samples.parquet beside it), summary.json files, lm-eval "
            "results_*.json files or folders of them.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for leaderboard.md, .csv, .parquet and .html.")],
    suite: Annotated[
        list[str] | None, typer.Option("--suite", "-s", help="Only these suites or lm-eval tasks; repeatable.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Two protocols of one suite are an error, not two columns.")
    ] = False,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="List results that cannot be read, instead of stopping.")
    ] = False,
    export: Annotated[
        list[str] | None,
        typer.Option(
            help="Also write export/: model-index (model cards), eval-results (the hub's .eval_results/, whole "
            "benchmarks only) or lm-eval; repeatable."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No tables, no list of files.")] = False,
) -> None:
    """Rank models of many studies by what their records show, each number with its record."""
    from harness.errors import ConfigError
    from harness.leaderboard.assemble import Options, assemble
    from harness.leaderboard.output import write_all

    for form in export or ():
        if form not in EXPORTS:
            raise ConfigError(f"--export is one of {', '.join(EXPORTS)}, not {form!r}")
    options = Options(tuple(suite or ()), strict=strict, skip_unreadable=skip_unreadable)
    found, files = assemble(results, options)
    exports = tuple(dict.fromkeys(export or ()))
    written = write_all(found, files, out, exports=exports)
    if not quiet:
        print(terminal(found), end="")
        print(f"written: {', '.join(str(path) for path in written)}")
        for form in exports:
            if not any(path.is_relative_to(out / "export" / form) for path in written):
                print(f"--export {form}: no score fits it (see sparsebench leaderboard --help)")


def terminal(found: Leaderboard) -> str:
    """The boards in short: rank, group, name and score."""
    from harness.leaderboard import wording
    from harness.report.page.visible import visible

    lines = [wording.headline(found.boards, found.sources)]
    for number, board in enumerate(found.boards, start=1):
        lines += ["", f"Board {number}: {wording.title(board)}"]
        for row in board.rows:
            rank, letters, _ = wording.rank_of(board, row)
            shown = wording.row_score(board, row)
            name = f"{row.study}/{row.variant}"
            lines.append(f"  {rank or '-':>4}  {letters:6}  {shown:>14}  {name}")
    if found.left_out:
        lines += ["", "Left out:"]
        lines += [f"  {each.source}: {each.what}: {each.reason}" for each in found.left_out]
    # Names come from others' files: none may move the cursor or colour the terminal.
    return "".join(visible(line.replace("\n", " ")) + "\n" for line in lines)
