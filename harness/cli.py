"""The command line: verbs only; each imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from harness.bench.command import bench_app
from harness.cli_options import (
    SUITES_HELP,
    Api,
    BaseUrl,
    Concurrency,
    Count,
    DataDir,
    DataFolder,
    DataKind,
    Device,
    EngineOption,
    Jobs,
    Offline,
    OutOption,
    Pace,
    Quiet,
    RayOption,
)
from harness.cli_study import data_kind, preset_of, run_and_show, run_options, say, with_options
from harness.distance.command import add_distance
from harness.history.command import history_app
from harness.judge import command as judge_command
from harness.leaderboard import command as leaderboard_command
from harness.listing import suites as list_suites
from harness.report.html.command import EPILOG as REPORT_EPILOG
from harness.report.html.command import report
from harness.score.command import EPILOG as SCORE_EPILOG
from harness.score.command import score

_EPILOG = "Exit codes: 0 pass, 1 a gate rule failed, 2 your input, 3 disk, sandbox or engine, 130 interrupted."
app = typer.Typer(
    name="sparsebench",
    help="Make dense, sparse and sparse-quantized variants of a language model and prove what each costs and gains.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="The real benchmarks' data files.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(history_app, name="history")


@app.command(
    epilog="Examples:  sparsebench run --out out/pocket  |  sparsebench run my-study.yaml --out out/mine --dry-run  |  "
    "sparsebench run my-study.yaml --out /shared/mine --ray auto  |  sparsebench run slicegpt --scale pocket -o out/s  "
    "|  torchrun --nproc-per-node 8 --no-python sparsebench run my-study.yaml --device cuda -o out/mine",
)
def run(
    study: Annotated[str, typer.Argument(help="A built-in study or a study file.")] = "pocket",
    out: OutOption = Path("out/pocket"),
    n: Count = None,
    data: DataKind = "pocket",
    data_dir: DataDir = None,
    engine: Annotated[
        str | None, typer.Option(help="What runs the suites: torch, sparse or auto; default: what the study says.")
    ] = None,
    jobs: Jobs = 0,
    device: Device = "cpu",
    ray: RayOption = None,
    offline: Offline = False,
    scale: Annotated[
        str | None, typer.Option(help="pocket: cut the study down to the bundled model, same stages, small budgets.")
    ] = None,
    scale_tokens: Annotated[
        int | None, typer.Option(min=1024, help="--scale: tokens of each training stage at most; default 40,960.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    quiet: Quiet = False,
) -> None:
    """Make a study's variants, measure them and show the result; started again, it does only what is missing."""
    from harness.study import load_study

    loaded = load_study(study)
    if scale is not None or scale_tokens is not None:
        from harness.making import leads
        from harness.scale import scale_down

        loaded = scale_down(loaded, scale, tokens=scale_tokens, n=n, say=print if leads() and not quiet else None)
    settings = with_options(loaded, data_kind(data, data_dir), n, engine)
    run_and_show(settings, out, run_options(data_dir, jobs, device, offline, quiet, ray), dry_run=dry_run)


@app.command(
    name="eval",
    epilog="Examples:  sparsebench eval ./my-model --suite gsm8k --preset 5shot --data-dir data --out out/mine  |  "
    "sparsebench eval openai:my-model --base-url http://127.0.0.1:8000/v1 --suite gsm8k --out out/served",
)
def evaluate(
    model: Annotated[
        str, typer.Argument(help="pocket, pocket-base, pocket-sparse70, a directory, a hub id or openai:NAME.")
    ],
    suite: Annotated[list[str], typer.Option("--suite", "-s", help=SUITES_HELP)],
    out: OutOption,
    preset: Annotated[
        str | None, typer.Option(help="A preset of the suite; default: pocket, or its first full one.")
    ] = None,
    n: Count = None,
    data: DataKind = "pocket",
    data_dir: DataDir = None,
    engine: EngineOption = "torch",
    base_url: BaseUrl = None,
    api: Api = "auto",
    concurrency: Concurrency = 8,
    requests_per_minute: Pace = None,
    jobs: Jobs = 0,
    device: Device = "cpu",
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Score one model on one or more suites."""
    from harness.endpoint.command import eval_subject
    from harness.study import parse_study
    from suites.registry import load_suite

    kind = data_kind(data, data_dir)
    suites = {name: {"preset": preset or preset_of(load_suite(name), kind), "n": n} for name in suite}
    body: dict[str, Any] = {"name": "eval", "suites": suites}
    asked = {"api": api, "concurrency": concurrency, "requests_per_minute": requests_per_minute}
    body |= eval_subject(model, engine, base_url=base_url, asked=asked)
    run_and_show(parse_study(body, where="eval"), out, run_options(data_dir, jobs, device, offline, quiet))


@app.command(
    epilog="Examples:  sparsebench sparsify meta-llama/Llama-3.2-1B --recipe 2of4 -o llama-2of4  |  sparsebench "
    "sparsify pocket --recipe sparse70-admm --dry-run. Stages that train spread over GPUs: torchrun --nproc-per-node 8 "
    "--no-python sparsebench sparsify MODEL -r R -o DIR --device cuda",
)
def sparsify(
    model: Annotated[str, typer.Argument(help="pocket, pocket-base, pocket-sparse70, a directory or a hub id.")],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A built-in recipe or a recipe file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Directory of the variant.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="The model that the recipe's `teacher: given` is; named like MODEL.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub model.")] = None,
    device: Device = "cpu",
    teacher_device: Annotated[
        str | None, typer.Option(help="Where a teacher runs, such as cuda:1; not given: where the model is trained.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it will take and stop.")] = False,
    pack: Annotated[
        bool, typer.Option("--pack", help="Also write OUT-packed: a mask bit per weight and the surviving values.")
    ] = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Make one variant of a model; started again after an interruption, it goes on with the next block."""
    from harness.sparsify import SparsifyOptions, make, plan

    options = SparsifyOptions(teacher, revision, device, offline, quiet, pack, teacher_device)
    if dry_run:
        print(plan(model, recipe, options), end="")
        return
    if out is None:
        raise typer.BadParameter("give the directory of the variant", param_hint="--out / -o")
    make(model, recipe, out, options)


@app.command(
    epilog="Examples:  sparsebench gate out/pocket  |  sparsebench gate out/pocket --against results/pocket --junit "
    "gate.xml --markdown $GITHUB_STEP_SUMMARY. Exit codes: 0 pass, 1 a rule failed, 2 your input, 3 records.",
)
def gate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished run.")],
    against: Annotated[
        Path | None, typer.Option(help="Folder or summary.json of an earlier run: nothing may be worse than there.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Take the gate rules from this study, not from the run's own.")
    ] = None,
    on_inconclusive: Annotated[str, typer.Option(help="What a result that n cannot decide counts as.")] = "fail",
    allow_different_data: Annotated[
        bool, typer.Option("--allow-different-data", help="Pair by item although data, prompts or template differ.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Append Markdown to this file.")] = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a run against its study's `gates:`, from its records alone."""
    from harness.gate.command import GateOptions, write_report
    from harness.gate.command import gate as judge

    options = GateOptions(against, study, on_inconclusive, allow_different_data, junit, markdown, json_out)
    report = judge(directory, options)
    print(write_report(report, options, title=str(directory)), end="")
    raise typer.Exit(report.exit_code)


@app.command(
    epilog="Examples:  sparsebench compare out/pocket:dense int8  |  sparsebench compare out/pocket int8 --flips 5 "
    "(with its baseline)  |  sparsebench compare results/pocket out/pocket  |  sparsebench compare old:int8 new:int8",
)
def compare(
    base: Annotated[str, typer.Argument(metavar="A", help="What is compared with: RUN or RUN:VARIANT.")],
    other: Annotated[
        str, typer.Argument(metavar="B", help="What is judged: RUN, RUN:VARIANT or a VARIANT of A's run.")
    ],
    suite: Annotated[list[str] | None, typer.Option("--suite", "-s", help="Only these suites; repeatable.")] = None,
    flips: Annotated[int, typer.Option(min=0, help="Show so many flipped items a suite, with both answers.")] = 0,
    allow_different_data: Annotated[
        bool, typer.Option("--allow-different-data", help="Pair by item although data, prompts or template differ.")
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="Append Markdown to this file.")] = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two variants of a run, or two runs, item by item; differences are B - A, recovery is B / A."""
    from harness.compare.command import CompareOptions, run_compare

    options = CompareOptions(tuple(suite or ()), flips, allow_different_data, markdown, json_out)
    print(run_compare(base, other, options), end="")


@app.command(epilog="Example:  sparsebench doctor --offline")
def doctor(
    data_dir: DataFolder = None,
    offline: Offline = False,
    json_out: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what works on this machine, what does not, and the fix; exit 0 if `sparsebench run` can work, else 3."""
    from harness.doctor import examine

    report = examine(data_dir=data_dir, offline=offline)
    print(report.json() if json_out else report.text(), end="")
    raise typer.Exit(report.exit_code)


@app.command(
    epilog="Examples:  sparsebench perplexity dense=pocket sliced=out/slice25 --text notes.txt --context 512  |  "
    "sparsebench perplexity meta-llama/Llama-2-7b-hf ./sliced --device cuda --dtype bfloat16",
)
def perplexity(
    models: Annotated[
        list[str], typer.Argument(help="Models, NAME=MODEL; the first is what others are compared with.")
    ],
    text: Annotated[
        str, typer.Option(help="wikitext2 (test, raw), a text file, or JSONL with a field text.")
    ] = "wikitext2",
    context: Annotated[int, typer.Option(min=2, help="Tokens of a window; the number depends on it.")] = 2048,
    windows: Annotated[int | None, typer.Option(min=1, help="The first so many windows; default: all.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Windows at a time.")] = 1,
    data_dir: DataFolder = None,
    out: OutOption = Path("out/perplexity"),
    engine: Annotated[str, typer.Option(help="torch, sparse or auto.")] = "torch",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16 (torch).")] = "float32",
    device: Device = "cpu",
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Perplexity of models on one text, by windows of a stated context, with intervals and paired ratios."""
    from harness.engines import resolve_engine
    from harness.models import named_directories
    from harness.perplexity import Settings, measure, read_text, table

    run_options(data_dir, 0, device, offline, quiet)
    settings = Settings(context, windows, batch, resolve_engine(engine, device=device), dtype, device)
    found = named_directories(models, offline=offline)
    results = measure(found, read_text(text, data_dir), settings, out, quiet=quiet)
    if not quiet:
        print(table(results), end="")
        print(f"results: {out / 'perplexity.json'}")


add_distance(app)
app.command(epilog="Examples:  sparsebench suites  |  sparsebench suites code  |  sparsebench suites --json")(
    list_suites
)
app.command(epilog=SCORE_EPILOG)(score)
app.command(epilog=REPORT_EPILOG)(report)
app.command(name="judge", epilog=judge_command.EPILOG)(judge_command.judge)
app.command(name="leaderboard", epilog=leaderboard_command.EPILOG)(leaderboard_command.leaderboard)


@data_app.command(epilog="Example:  sparsebench data verify --data-dir data")
def verify(data_dir: DataFolder = None) -> None:
    """Name what real data is missing or differs, its hash, and how to get it; exit 0 if all is there, 2 if not."""
    from suites.verify import verify as check

    statuses = check(data_dir)
    for status in statuses:
        found = f"sha256 {status.actual_sha256[:12]}, {status.rows} rows" if status.actual_sha256 else "missing"
        wanted = f"expected sha256 {status.expected_sha256}" if status.expected_sha256 and not status.ok else ""
        line = f"{'ok' if status.ok else 'NOT OK':6}  {status.suite:13}  {status.path}: {found}"
        print("  ".join(part for part in (line, wanted, status.fix if not status.ok else "") if part))
    raise typer.Exit(0 if all(status.ok for status in statuses) else 2)


def main() -> NoReturn:
    """Run the command line; every error becomes one line and an exit code."""
    # A terminated run cleans up like an interrupted one: workers are stopped, journals closed.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        # Without standalone mode click returns what `typer.Exit` carried.
        returned = app(standalone_mode=False)
        code = returned if isinstance(returned, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        code = _report(error)
    if code == 130:  # typer may turn Ctrl-C into this code by itself, without a word
        say("interrupted; run the same command again to continue")
        _leave_interrupted()
    sys.stdout.flush()
    sys.exit(code)


def _leave_interrupted() -> NoReturn:
    """End with 130 even where the interrupt hit an `exec` (dataclasses use it while they are imported).

    CPython marks such an interrupt as unhandled although it is caught later, and would end by the signal, whatever
    `sys.exit` says.
    """
    import atexit

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _report(error: Exception) -> int:
    # A usage error of click, which newer typer carries inside itself: told by what it can do, not by its module.
    format_message = getattr(error, "format_message", None)
    if callable(format_message):
        say(" ".join(str(format_message()).split()) + "; see --help")
        return 2
    from harness.pool import describe_error

    known = describe_error(error)
    if known is None:
        raise error
    say(known[0])
    return known[1]


if __name__ == "__main__":
    main()
