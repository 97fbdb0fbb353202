"""`sparsebench bench`: a speed panel without a study, load on an endpoint, methods and engines next to others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from harness.bench.comparisons import add_comparisons
from harness.bench.evaluation.command import add_evaluation
from harness.bench.gate.command import add_gate
from harness.bench.leaderboard.command import add_leaderboard
from harness.bench.options import Quiet, one_of
from harness.bench.report.command import add_report

if TYPE_CHECKING:
    import click

_PANEL = "panel"


class _PanelByDefault(TyperGroup):
    """`bench MODEL...` means `bench panel MODEL...`: a first word that names no subcommand belongs to the panel."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default subcommand in front where none is named."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_PANEL, *args]
        return super().parse_args(ctx, args)


bench_app = typer.Typer(
    cls=_PanelByDefault,
    help="Measure speed: MODEL... as one interleaved panel on this machine, or `serve` for load on an endpoint; "
    "`sparsify` for pruning and quantization next to llm-compressor; `engines` for our sparse CPU engine next to "
    "others; `recover` for accuracy after sparse training next to dense; `slice` for SliceGPT in every way; "
    "`evaluation` for scoring next to stock lm-eval; `sandbox` for the sandboxes of generated code; "
    "`report` for the size of the HTML report; `leaderboard` for its time and the error rate of its ranks.",
    epilog="Examples:  sparsebench bench pocket ./sparse --workload decode --out out/speed  |  sparsebench bench serve "
    "--base-url http://127.0.0.1:8000/v1 --model my-model --rate 4  |  sparsebench bench sparsify --model pocket "
    "--out out/sparsify",
    no_args_is_help=True,
)

OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for the raw record.")]


@bench_app.command(
    name=_PANEL,
    epilog="Examples:  sparsebench bench dense=pocket sparse=./sparse70 --workload decode --context 128 --out out/speed"
    "  |  sparsebench bench pocket ./sparse70 --engines torch,sparse --out out/engines  |  sparsebench bench pocket "
    "./sparse70 --workload throughput --batches 1,4,16 --memory-limit 4 --out out/speed. "
    "A panel whose noise floor is above 5 %, or in which the memory bandwidth moved by more than 10 %, is repeated and "
    "otherwise says `not decided`; a slowdown is measured again before it is reported.",
)
def panel(
    models: Annotated[
        list[str], typer.Argument(metavar="[NAME=]MODEL...", help="Directories, hub ids, pocket; the baseline first.")
    ],
    out: OutOption,
    workload: Annotated[str, typer.Option("--workload", "-w", help="decode, prefill or throughput.")] = "decode",
    context: Annotated[int, typer.Option(min=1, help="Tokens in the cache (decode), or of the prompt.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Rows (decode, prefill).")] = 1,
    batches: Annotated[str | None, typer.Option(help="Throughput: batch sizes, such as 1,2,4,8,16.")] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens a decode measurement times; throughput: made.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each process.")] = 1,
    engines: Annotated[str, typer.Option(help="torch, sparse or both; the baseline is on the first.")] = "torch",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    budget: Annotated[float, typer.Option(min=0.1, help="Seconds for one run of the panel.")] = 40.0,
    attempts: Annotated[int, typer.Option(min=1, help="Runs at most while the machine is restless.")] = 3,
    memory_limit: Annotated[float | None, typer.Option(help="GB that each process may use for the model.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Of prompts and bootstrap.")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure models in turn on this machine, each in a process of its own, and compare them with the first."""
    from harness.bench.panel import PanelRunner, read_panel
    from harness.bench.show import panel_table
    from harness.bench.spec import PanelSpec
    from harness.errors import ConfigError
    from harness.models import named_directories
    from harness.progress import Phase

    if workload == "serve":
        raise ConfigError(
            "workload serve puts load on an endpoint: sparsebench bench serve --base-url URL --model NAME"
        )
    sizes = _batches(batches)
    first, *others = (name.strip() for name in engines.split(","))
    named = named_directories(models, offline=offline)
    spec = PanelSpec(
        panel=f"{workload}-c{context}" + ("" if workload == "throughput" else f"-b{batch}"),
        workload=workload,  # type: ignore[arg-type]
        context=context,
        batch=batch,
        new_tokens=new_tokens,
        threads=threads,
        dtype=one_of("--dtype", dtype, ("float32", "bfloat16", "float16")),
        baseline=next(iter(named)),
        budget_s=budget,
        seed=seed,
        engine=first,
        engines=tuple(others),
        device=one_of("--device", device, ("cpu", "cuda")),
        batches=sizes,
        attempts=attempts,
        memory_limit=None if memory_limit is None else int(memory_limit * 1e9),
    )
    rows = read_panel(spec, named, out=out)
    known = rows is not None
    if rows is None:
        with PanelRunner() as runner, Phase("speed", 1, quiet=quiet) as phase:
            rows = runner.run(spec, named, out=out, progress=phase)
    if quiet:
        return
    from rich.console import Console

    console = Console()
    console.print(panel_table(spec, rows))
    where = out / f"{spec.panel}.jsonl"
    console.print(
        f"{'already measured, delete it to measure again' if known else 'raw times'}: {where}",
        highlight=False,
        soft_wrap=True,
    )


@bench_app.command(
    epilog="Examples:  sparsebench bench serve --base-url http://127.0.0.1:8000/v1 --model my-model --rate 4 "
    "--requests 200 --slo llama3.1-8b -o out/serve  |  sparsebench bench serve --base-url http://127.0.0.1:8000/v1 "
    "--model my-model --concurrency 8 --ttft-ms 300 --tpot-ms 50 -o out/serve. Exit code 3 if the client itself was "
    "late, or no request was answered.",
)
def serve(
    base_url: Annotated[str, typer.Option("--base-url", help="Such as http://127.0.0.1:8000/v1.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The model's name on the server.")],
    out: OutOption,
    rate: Annotated[float | None, typer.Option(help="Poisson arrivals per second.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Users, each with one request at a time.")] = None,
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, help="Requests that count.")] = 100,
    warm_up: Annotated[int, typer.Option(min=0, help="Requests before them that do not.")] = 5,
    prompts: Annotated[Path | None, typer.Option(help='JSONL of {"prompt": ...}; default: seeded words.')] = None,
    prompt_words: Annotated[int, typer.Option(min=1, help="Words of a made-up prompt.")] = 128,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 64,
    slo: Annotated[str | None, typer.Option(help="Limits by MLPerf's names, such as llama3.1-8b-interactive.")] = None,
    ttft_ms: Annotated[float | None, typer.Option(help="Limit on the time to first token.")] = None,
    tpot_ms: Annotated[float | None, typer.Option(help="Limit on the time per further token.")] = None,
    completions: Annotated[bool, typer.Option("--completions", help="/completions, not /chat/completions.")] = False,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Ask for exactly --max-tokens (vLLM).")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 600.0,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the API key.")] = None,
    lag_limit_ms: Annotated[float, typer.Option(min=0.01, help="Lateness of the client that voids a result.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of arrivals and made-up prompts.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Put load on an OpenAI-compatible streaming endpoint: TTFT, TPOT, ITL, E2E, throughput and goodput."""
    from harness.bench.serve.arrivals import Load
    from harness.bench.serve.client import Endpoint
    from harness.bench.serve.goodput import pick_slo
    from harness.bench.serve.session import ServePlan, measure_endpoint, read_prompts, write_serve_record
    from harness.bench.show import serve_table
    from harness.errors import InfrastructureError
    from harness.progress import Phase

    load = Load(requests, rate=rate, concurrency=concurrency, warm_up=warm_up, seed=seed)
    plan = ServePlan(
        load=load,
        endpoint=Endpoint(model, chat=not completions, ignore_eos=ignore_eos, timeout=timeout),
        prompts=read_prompts(prompts, words=prompt_words, max_tokens=max_tokens, seed=seed),
        slo=pick_slo(slo, ttft_ms=ttft_ms, tpot_ms=tpot_ms),
        lag_limit=lag_limit_ms / 1000,
    )
    with Phase("serve", load.total, quiet=quiet) as phase:
        outcomes, summary = measure_endpoint(plan, base_url, api_key=_api_key(api_key_env), progress=phase)
    write_serve_record(out / "serve.jsonl", plan, outcomes, summary)
    if not quiet:
        from rich.console import Console

        Console().print(serve_table(summary))
    if not summary["statuses"].get("ok"):
        first = next(outcome for outcome in outcomes if outcome.status != "ok")
        raise InfrastructureError(
            f"no request was answered ({first.status}: {first.detail}); check --base-url, --model"
        )
    if not summary["valid"]:
        raise InfrastructureError(
            f"not valid: {'; '.join(summary['invalid_because'])}; run the client on a quieter machine"
        )


add_comparisons(bench_app)
add_evaluation(bench_app)
add_gate(bench_app)
add_leaderboard(bench_app)
add_report(bench_app)


def _batches(text: str | None) -> tuple[int, ...]:
    from harness.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(f"--batches is a list of numbers such as 1,2,4, not {text!r}") from None


def _api_key(variable: str | None) -> str | None:
    import os

    from harness.errors import ConfigError

    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"--api-key-env names {variable}, which is not set")
    return key
