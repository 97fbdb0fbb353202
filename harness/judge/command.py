"""The verb `judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = (
    "Examples:  sparsebench judge out/run:dense out/run:sparse70 --benchmark mt-bench --judge org/judge-model "
    "--data-dir data --out out/judged  |  sparsebench judge base.jsonl new.jsonl --benchmark mt-bench --mode pairwise "
    "--judge ./judge --data-dir data --out out/pairs  |  sparsebench judge outputs.json --benchmark alpaca-eval "
    "--judge ./judge --data-dir data --out out/alpaca  |  sparsebench judge --from-judgments annotations.json "
    "--data-dir data --out out/again  |  sparsebench judge a.jsonl --judge openai:gpt-4o --base-url "
    "https://api.openai.com/v1 --data-dir data --out out/judged. Started again, only what is missing is judged."
)


def judge(
    answers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]ANSWERS...",
            help="FastChat model_answer JSONL or RUN:VARIANT (mt-bench), outputs JSON (alpaca-eval); one a model.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of judgements, verdicts and summary.json.")] = Path(
        "out/judge"
    ),
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help="mt-bench or alpaca-eval.")] = "mt-bench",
    judge_model: Annotated[
        str | None,
        typer.Option("--judge", help="A chat model: a directory or a hub id, or openai:NAME with --base-url."),
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="Where openai:NAME is served.")] = None,
    mode: Annotated[str, typer.Option(help="Of mt-bench: single (ratings) or pairwise (both orders).")] = "single",
    reference: Annotated[
        str | None,
        typer.Option(
            help="Compared with: a file, RUN:VARIANT or one of ANSWERS (mt-bench pairwise; default: the first), or a "
            "file or name such as text_davinci_003 (alpaca-eval; default: that of the prompt)."
        ),
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="Of alpaca-eval: alpaca_eval_clf (weighted) or alpaca_eval_gpt4 (ranking).")
    ] = "alpaca_eval_clf",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder of the published data files.")] = None,
    from_judgments: Annotated[
        Path | None,
        typer.Option(help="Ask no judge: recompute from annotations.json or a model_judgment JSONL."),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="First n questions.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Limit of a judgement; default: as published (2048, 100 or 1).")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Prompts at a time.")] = 16,
    engine: Annotated[str, typer.Option(help="The judge's engine: torch, sparse or auto.")] = "torch",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16 (torch).")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    revision: Annotated[str | None, typer.Option(help="Commit of a hub model.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
) -> None:
    """Let a model judge answers to MT-Bench or AlpacaEval, or recompute the result of judgements that exist."""
    from harness.judge.render import as_text
    from harness.judge.rescore import rescore

    if from_judgments is not None:
        if answers or judge_model is not None:
            raise typer.BadParameter("takes neither ANSWERS nor --judge", param_hint="--from-judgments")
        summary = rescore(from_judgments, out, data_dir=data_dir)
    else:
        from functools import partial

        from harness.judge.load import JudgeModel, open_judge
        from harness.judge.request import parse_request
        from harness.judge.run import judge_answers

        if judge_model is None:
            raise typer.BadParameter("name the model that judges", param_hint="--judge")
        if data_dir is None:
            raise typer.BadParameter("name the folder of the published prompts and questions", param_hint="--data-dir")
        request = parse_request(
            benchmark=benchmark,
            mode=mode,
            template=prompt,
            answers=tuple(answers or ()),
            data_dir=data_dir,
            out=out,
            reference=reference,
            n=n,
            batch_size=batch,
            max_new_tokens=max_new_tokens,
            quiet=quiet,
        )
        _go_offline(offline)
        named = JudgeModel(
            judge_model,
            base_url=base_url,
            engine=engine,
            device=device,
            dtype=dtype,
            revision=revision,
            offline=offline,
        )
        summary = judge_answers(request, partial(open_judge, named))
    if not quiet:
        print(as_text(summary), end="")
        print(f"results: {out / 'summary.json'}, {out / 'verdicts.jsonl'}")


def _go_offline(offline: bool) -> None:
    import os

    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
