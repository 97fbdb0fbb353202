"""`sparsebench distance`: how far variants are from their dense model on fixed text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.distance.texts import SuiteText

_EPILOG = (
    "Examples:  sparsebench distance dense=pocket s70=out/s70 int8=out/int8 --out out/distance  |  sparsebench "
    "distance dense=pocket same=pocket --variant-engine sparse (what the engine alone changes)  |  sparsebench "
    "distance meta-llama/Llama-3.2-1B ./2of4 --text wikitext2 --context 2048 --windows 50 --device cuda"
)


def add_distance(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog=_EPILOG)(distance)


def distance(
    models: Annotated[
        list[str], typer.Argument(metavar="[NAME=]MODEL...", help="The dense model, then its variants; at least two.")
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            help="Test prompts of this suite with their reference answers; repeatable. Default, without --text: "
            "the bundled items of all five skills."
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Windows of wikitext2 (test, raw), a text file, or JSONL with a field text.")
    ] = None,
    context: Annotated[int, typer.Option(min=2, help="Tokens of a window.")] = 512,
    windows: Annotated[int | None, typer.Option(min=1, help="The first so many windows; default: all.")] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="First n items of every suite.")] = 100,
    new_tokens: Annotated[int, typer.Option(min=1, help="Length of greedy continuations at most.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Texts at a time.")] = 8,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder of original data files; prompts are then theirs.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for rows and results.")] = Path("out/distance"),
    engine: Annotated[str, typer.Option(help="torch, sparse or auto.")] = "torch",
    variant_engine: Annotated[str | None, typer.Option(help="Of the variants; default: the dense model's.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16 (torch).")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Distance of variants to a dense model: top-1 agreement, KL, and the first diverging token of greedy answers."""
    from harness.distance.render import distance_table
    from harness.distance.run import Settings, measure
    from harness.distance.texts import Texts, WindowText
    from harness.engines import resolve_engine
    from harness.errors import ConfigError
    from harness.models import named_directories

    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device is cpu or cuda, not {device!r}")
    if len(models) < 2:
        raise ConfigError("name at least two models: the dense one, then a variant")
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    texts = Texts(
        suites=_suites(prompts, text, n, real=data_dir is not None),
        window=None if text is None else WindowText(text, context, windows),
        data_dir=data_dir,
    )
    own = resolve_engine(engine, device=device)
    theirs = own if variant_engine is None else resolve_engine(variant_engine, device=device)
    settings = Settings(new_tokens, batch, own, theirs, dtype, device)
    results = measure(named_directories(models, offline=offline), texts, settings, out, quiet=quiet)
    if not quiet:
        print(distance_table(results), end="")
        print(f"results: {out / 'distance.json'}, {out / 'distance.svg'}")


def _suites(prompts: list[str] | None, text: str | None, n: int, *, real: bool) -> tuple[SuiteText, ...]:
    from harness.distance.texts import SuiteText
    from suites.registry import SUITES

    names = prompts or ([] if text is not None else list(SUITES))
    return tuple(SuiteText(name, _preset(name, real=real), n) for name in dict.fromkeys(names))


def _preset(suite: str, *, real: bool) -> str:
    """The suite's first preset on the wanted data; the prompts of all of them are the same here."""
    from suites.registry import load_suite

    presets = load_suite(suite).presets
    wanted = "full" if real else "pocket"
    return next((name for name, preset in presets.items() if preset.data == wanted), next(iter(presets)))
