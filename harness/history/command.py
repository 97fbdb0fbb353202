"""The verbs `history append`, `check`, `show` and `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.history.record import HistoryRecord
    from harness.history.series import Series
    from harness.history.steps import Step

history_app = typer.Typer(
    help="Scores and speeds over commits: append runs to a file, find steps, show and plot them.",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The history, JSON lines.")]
Variant = Annotated[list[str] | None, typer.Option("--variant", help="Only these variants; repeatable.")]
Suite = Annotated[list[str] | None, typer.Option("--suite", help="Only these suites and workloads; repeatable.")]
Level = Annotated[
    float,
    typer.Option(
        help="Chance of any false step where nothing changed, over all series and checks after each of 100 commits."
    ),
]


@history_app.command(
    epilog="Examples:  sparsebench history append history.jsonl out/pocket  |  sparsebench history append "
    "history.jsonl results/pocket --commit 3c65ede --time 2026-01-31T12:00:00Z. "
    "The commit is GITHUB_SHA where that is set.",
)
def append(
    file: File,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, or of its records.")],
    commit: Annotated[str | None, typer.Option(help="Default: GITHUB_SHA, else git's HEAD here.")] = None,
    time: Annotated[str | None, typer.Option(help="Of the commit, ISO 8601 with zone. Default: what git says.")] = None,
    no_items: Annotated[
        bool, typer.Option("--no-items", help="Keep no item scores: a tenth of the size, and only large steps show.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Put the run in the place of the same commit's.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take away a last line that a crash cut short, then append.")
    ] = False,
) -> None:
    """Append one run as the record of one commit."""
    from harness.history import store
    from harness.history.build import record_of
    from harness.history.commits import resolve_commit

    which = resolve_commit(commit, time)
    record = record_of(run, commit=which.id, time=which.time, with_items=not no_items)
    done = store.append(file, record, replace=replace, repair=repair)
    if done.dropped:
        print(f"{done.dropped:,} bytes of a last line that was cut short were taken away")
    word = "replaced" if done.replaced else "appended"
    counts = f"{len(record.skills)} scores, {len(record.speeds)} speeds"
    print(f"{word} {which.id} of {which.time} ({counts}); {file} holds {done.records} commits")
    for name, reason in record.missing.items():
        print(f"without {name}: {reason}")


@history_app.command(
    epilog="Examples:  sparsebench history check history.jsonl  |  sparsebench history check history.jsonl --last 20 "
    "--min-change 0.02. Exit codes: 0 no step that worsens, 1 there is one, 2 your input, 3 the file is damaged.",
)
def check(
    file: File,
    last: Annotated[int | None, typer.Option(min=1, help="Only steps at one of the newest so many commits.")] = None,
    since: Annotated[str | None, typer.Option(help="Only steps behind this commit.")] = None,
    min_change: Annotated[
        float, typer.Option(min=0, max=1, help="Smallest loss that counts: of the score, or of the speed's ratio.")
    ] = 0.0,
    variant: Variant = None,
    suite: Suite = None,
    level: Level = 0.05,
    json_out: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look for steps; exit 1 if a score or a speed stepped down."""
    from harness.history.check import Limits, check_history
    from harness.history.store import read_history

    result = check_history(read_history(file), Limits(last, since, min_change), _choice(variant, suite), level=level)
    print(result.json() if json_out else result.text(), end="")
    raise typer.Exit(result.exit_code)


@history_app.command(epilog="Example:  sparsebench history show history.jsonl --variant sparse70")
def show(file: File, variant: Variant = None, suite: Suite = None, level: Level = 0.05) -> None:
    """Show every series with its newest value, and the steps."""
    from harness.history.show import series_table, step_line

    records, series, steps = _read(file, variant, suite, level)
    print(f"{file}: {len(records)} commits, {records[0].time[:10]} to {records[-1].time[:10]}")
    print(series_table(series, steps), end="")
    for step in steps:
        print(step_line(step))


@history_app.command(epilog="Example:  sparsebench history plot history.jsonl --out history.svg --suite gsm8k")
def plot(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", help="The SVG file.")],
    variant: Variant = None,
    suite: Suite = None,
    level: Level = 0.05,
) -> None:
    """Draw every series with intervals, levels and steps."""
    from harness.history.plot import history_svg
    from harness.records import write_text_atomic

    records, series, steps = _read(file, variant, suite, level)
    write_text_atomic(out, history_svg(series, steps, title=f"{records[-1].study}: {len(records)} commits"))
    print(f"{out}: {len(series)} series, {len(steps)} steps")


def _choice(variant: Sequence[str] | None, suite: Sequence[str] | None) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(variant or ()), frozenset(suite or ())


def _read(
    file: Path, variant: Sequence[str] | None, suite: Sequence[str] | None, level: float
) -> tuple[list[HistoryRecord], list[Series], list[Step]]:
    from harness.history.check import all_series, chosen, steps_at
    from harness.history.store import read_history

    records = read_history(file)
    series = chosen(all_series(records), _choice(variant, suite))
    return records, series, steps_at(series, level)
