"""The subcommands of `sparsebench bench` that hold methods and engines against each other and against peers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.bench.options import Quiet, numbers, one_of, parse_seeds
from harness.bench.sandbox.command import EPILOG as _SANDBOX
from harness.bench.sandbox.command import sandbox

_SPARSIFY = (
    "Examples:  sparsebench bench sparsify --model pocket --arms sparsegpt@50,admm+refine@50 --out out/sparsify"
    "  |  sparsebench bench sparsify --model text --model pocket --seeds 0,1,2 --peers ~/venv-llmcompressor --data "
    "../shared/data --out results/sparsify. An interrupted run continues: finished arms are not run again. One thread; "
    "all arms of both models with three seeds take some hours, and the text model half an hour more."
)
_ENGINES = (
    "Examples:  sparsebench bench engines --peers ~/peers --out results/engines  |  sparsebench bench engines "
    "--engines 'ours:*,torch:fp32' --groups float32 --sparsities 0,70 --workloads decode-b1 --out out/engines  |  "
    "sparsebench bench engines --report --out results/engines. An interrupted run continues: panels that are in the "
    "journal are not measured again. The largest group holds about 17 GB; a panel takes --budget seconds and its "
    "opening a minute or two; building llama.cpp takes a quarter of an hour, once."
)
_RECOVER = (
    "Examples:  sparsebench bench recover --out results/recover  |  sparsebench bench recover --arms "
    "'*@70,dense' --seeds 0 --items 100 --out out/recover  |  sparsebench bench recover --budget-hours 2 --out "
    "results/recover  |  sparsebench bench recover --report --out results/recover. An interrupted run continues: "
    "finished pieces (an arm with a seed) are not run again, and the one under way goes on where it was. All arms with "
    "all seeds take 5 to 8 hours on one core, by its kind, and half of that on two; `--list` says what each takes."
)

_SLICE = (
    "Examples:  sparsebench bench slice --model pocket --arms 'pocket/slice25*' --out out/slice  |  sparsebench bench "
    "slice --data ../shared/data --out results/slicegpt  |  sparsebench bench slice --model pocket --speed 60 --out "
    "out/slice  |  sparsebench bench slice --report --out results/slicegpt. An interrupted run continues: finished "
    "arms are not run again. Both models with all arms take about two hours on one core, and the text model half an "
    "hour more."
)


def sparsify(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json, results.md, plots, raw lines.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="text (trained here), pocket or a directory; repeatable.")
    ] = None,
    arms: Annotated[str | None, typer.Option(help="Names or globs, such as lc:*,admm+refine@70.")] = None,
    seeds: Annotated[str, typer.Option(help="Of the calibration text; those after the first run claimed arms.")] = "0",
    peers: Annotated[Path | None, typer.Option(help="Environment for llm-compressor; made if absent.")] = None,
    data: Annotated[
        Path, typer.Option(envvar="SPARSEBENCH_DATA", help="Folder of real text: wikitext2_raw, c4_demo, ...")
    ] = Path("../shared/data"),
    work: Annotated[
        Path | None, typer.Option(help="Folder for corpora, the text model, variants in the making.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Calibration windows.")] = 128,
    seq: Annotated[int, typer.Option(min=2, help="Tokens of a calibration window.")] = 512,
    context: Annotated[int, typer.Option(min=2, help="Tokens of an evaluation window.")] = 512,
    eval_tokens: Annotated[int, typer.Option(min=2, help="Read of an evaluation text, from its beginning.")] = 32_768,
    repeats: Annotated[int, typer.Option(min=1, help="Counted rounds of the timed arms.")] = 3,
    report: Annotated[
        bool, typer.Option("--report", help="Measure nothing; write the results of what is there.")
    ] = False,
    list_arms: Annotated[bool, typer.Option("--list", help="Print the arms and stop.")] = False,
    quiet: Quiet = False,
) -> None:
    """Prune and quantize by every method, next to llm-compressor on the same tokens."""
    import shlex
    import sys

    from harness.bench.sparsify.arms import chosen_arms
    from harness.errors import ConfigError

    chosen = chosen_arms(arms)
    if list_arms:
        typer.echo("\n".join(arm.name for arm in chosen))
        return
    from harness.bench.sparsify.run import Plan, run_benchmark
    from harness.bench.sparsify.subjects import Settings
    from harness.models import cache_directory

    if all(arm.peer for arm in chosen) and peers is None:
        raise ConfigError("these arms are llm-compressor's; --peers names the environment to run it in")
    plan = Plan(
        models=tuple(model or ["text", "pocket"]),
        arms=chosen,
        seeds=parse_seeds(seeds),
        out=out,
        work=work or cache_directory() / "bench-sparsify",
        data=data,
        peers=peers.expanduser() if peers else None,
        settings=Settings(samples, seq, context=context, eval_tokens=eval_tokens, repeats=repeats),
        command=f"sparsebench {shlex.join(word for word in sys.argv[1:] if word != '--report')}",
    )
    run_benchmark(plan, measure=not report, quiet=quiet)
    if not quiet:
        typer.echo(f"results: {out / 'results.md'}")


def engines(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json, results.md, plots, raw lines.")],
    engines: Annotated[str | None, typer.Option(help="Names or globs, such as ours:*,llama.cpp:*.")] = None,
    groups: Annotated[str | None, typer.Option(help="Groups that are measured in turn; names or globs.")] = None,
    shapes: Annotated[str, typer.Option(help="1.1b, 7b-4layers or tiny.")] = "1.1b",
    workloads: Annotated[
        str, typer.Option(help="decode-b1, decode-b4, decode-b16, prefill-512; names or globs.")
    ] = "decode-b1",
    threads: Annotated[str, typer.Option(help="Numbers of threads, such as 1,2.")] = "1",
    sparsities: Annotated[str, typer.Option(help="Of our engine, in percent: of 0, 50, 60, 70, 80.")] = "0,50,70",
    peers: Annotated[
        Path | None, typer.Option(help="Folder for the peers' environments; made if absent. Without it, no peers.")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for the peers' model files and logs.")] = None,
    budget: Annotated[float, typer.Option(min=0.1, help="Seconds of measuring a panel.")] = 60.0,
    report: Annotated[
        bool, typer.Option("--report", help="Measure nothing; write the results of what is there.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure panels anew that are in the journal; the last run counts.")
    ] = False,
    list_engines: Annotated[bool, typer.Option("--list", help="Print groups and engines, and stop.")] = False,
    quiet: Quiet = False,
) -> None:
    """Speed on random weights: ours next to torch, llama.cpp, OpenVINO, ONNX Runtime and DeepSparse."""
    import shlex
    import sys

    from harness.bench.engines.arms import SHAPES, WORKLOADS, chosen, chosen_groups

    picked = chosen_groups(engines, groups, numbers("--sparsities", sparsities, range(100)))
    if list_engines:
        typer.echo("\n".join(f"{group.name}: {', '.join(each.name for each in group.variants)}" for group in picked))
        return
    from harness.bench.engines.run import Plan, run_benchmark
    from harness.bench.engines.session import Settings
    from harness.models import cache_directory

    plan = Plan(
        shapes=chosen("--shapes", shapes, SHAPES),
        groups=picked,
        threads=numbers("--threads", threads, range(1, 1025)),
        workloads=chosen("--workloads", workloads, WORKLOADS),
        out=out,
        work=(work or cache_directory() / "bench-engines").expanduser().absolute(),
        peers=peers.expanduser().absolute() if peers else None,
        settings=Settings(budget=budget),
        command=f"sparsebench {shlex.join(word for word in sys.argv[1:] if word not in ('--report', '--again'))}",
        again=again,
    )
    run_benchmark(plan, measure=not report, quiet=quiet)
    if not quiet:
        typer.echo(f"results: {out / 'results.md'}")


def recover(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json, results.md, plot, raw lines.")],
    arms: Annotated[
        str | None, typer.Option(help="Names or globs, such as 'ce*@70'; what they are compared with comes along.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds; arms beside the core have the first two.")] = "0,1,2,3,4",
    items: Annotated[int, typer.Option(min=2, help="Test items of each skill.")] = 1000,
    engine: Annotated[str, typer.Option(help="What answers test items: torch, sparse or auto.")] = "auto",
    jobs: Annotated[int, typer.Option(min=0, help="Pieces at a time; 0 = one per core, at most 4.")] = 0,
    work: Annotated[Path | None, typer.Option(help="Folder for text, stages and variants (about 1.5 GB).")] = None,
    budget_hours: Annotated[
        float | None, typer.Option(min=0.0, help="Stop with the first piece that is finished after so many hours.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Measure nothing; write the results of what is there.")
    ] = False,
    list_arms: Annotated[
        bool, typer.Option("--list", help="Print the arms with their expected times, and stop.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train sparse lineages of the pocket model and compare them with dense ones that had the same fine-tuning."""
    import shlex
    import sys

    from harness.bench.recover.arms import SEEDS, chosen_arms
    from harness.bench.recover.settings import LEAD_SEED, Settings
    from harness.errors import ConfigError

    chosen, wanted, settings = (
        chosen_arms(arms),
        sorted(numbers("--seeds", seeds, range(len(SEEDS)))),
        Settings(items=items),
    )
    if LEAD_SEED not in wanted:
        raise ConfigError(
            f"--seeds must name {LEAD_SEED}, which chooses the learning rates; finished pieces are not run again"
        )
    from harness.bench.recover.run import Plan, listing, run_benchmark
    from harness.models import cache_directory

    if list_arms:
        typer.echo(listing(chosen, wanted, settings))
        return
    plan = Plan(
        arms=chosen,
        seeds=tuple(wanted),
        out=out,
        work=(work or cache_directory() / "bench-recover").expanduser().absolute(),
        engine=one_of("--engine", engine, ("torch", "sparse", "auto")),
        jobs=jobs,
        hours=budget_hours,
        settings=settings,
        command=f"sparsebench {shlex.join(word for word in sys.argv[1:] if word != '--report')}",
    )
    run_benchmark(plan, measure=not report, quiet=quiet)
    if not quiet:
        typer.echo(f"results: {out / 'results.md'}")


def slice_(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json, results.md, plots, raw lines.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="pocket or text (trained here); repeatable.")
    ] = None,
    arms: Annotated[str | None, typer.Option(help="Names or globs, such as 'pocket/slice25*'.")] = None,
    data: Annotated[
        Path, typer.Option(envvar="SPARSEBENCH_DATA", help="Folder of real text, for the model text.")
    ] = Path("../shared/data"),
    work: Annotated[Path | None, typer.Option(help="Folder for text, models, variants and answers.")] = None,
    items: Annotated[int, typer.Option(min=2, help="Test items of each skill.")] = 1000,
    engine: Annotated[str, typer.Option(help="What answers test items: torch, sparse or auto.")] = "auto",
    jobs: Annotated[int, typer.Option(min=0, help="Arms at a time; 0 = one per core, at most 4.")] = 0,
    speed: Annotated[float, typer.Option(min=0, help="Seconds of measuring a speed panel; 0 = none.")] = 0.0,
    report: Annotated[
        bool, typer.Option("--report", help="Measure nothing; write the results of what is there.")
    ] = False,
    list_arms: Annotated[bool, typer.Option("--list", help="Print the arms and stop.")] = False,
    quiet: Quiet = False,
) -> None:
    """Slice models (SliceGPT) in every way, and measure perplexity, skills, size, speed and recovery."""
    import shlex
    import sys

    from harness.bench.slicing.arms import chosen_arms
    from harness.bench.slicing.run import MODELS, Plan, run_benchmark
    from harness.bench.slicing.settings import Settings
    from harness.models import cache_directory

    models = tuple(one_of("--model", name, MODELS) for name in model or MODELS)
    chosen = chosen_arms(arms, models)
    if list_arms:
        typer.echo("\n".join(arm.name for arm in chosen))
        return
    plan = Plan(
        models=models,
        arms=chosen,
        out=out,
        work=(work or cache_directory() / "bench-slice").expanduser().absolute(),
        data=data.expanduser().absolute(),
        engine=engine,
        jobs=jobs,
        speed=speed,
        settings=Settings(items=items),
        command=f"sparsebench {shlex.join(word for word in sys.argv[1:] if word != '--report')}",
    )
    run_benchmark(plan, measure=not report, quiet=quiet)
    if not quiet:
        typer.echo(f"results: {out / 'results.md'}")


def add_comparisons(app: typer.Typer) -> None:
    """Make them subcommands of `app`."""
    app.command(epilog=_SPARSIFY)(sparsify)
    app.command(epilog=_ENGINES)(engines)
    app.command(epilog=_RECOVER)(recover)
    app.command("slice", epilog=_SLICE)(slice_)
    app.command(epilog=_SANDBOX)(sandbox)
