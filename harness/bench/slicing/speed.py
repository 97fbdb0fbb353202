"""What slicing gains in time: variants of one shape with random weights (no skill), timed in turn on both engines."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.progress import Phase

SHAPE = {
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 6,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
"""TinyLlama-1.1B with 6 of its 22 blocks, so that all variants fit into memory side by side."""
FRACTION = 0.25
BASELINE = "dense"
WORKLOADS: Mapping[str, Mapping[str, Any]] = {
    "decode": {"context": 128, "batch": 1, "new_tokens": 16},
    "prefill": {"context": 512, "batch": 1, "new_tokens": 1},
    "throughput": {"context": 128, "batch": 1, "new_tokens": 32, "batches": (8,)},
}


def make_variants(work: Path, tokenizer_from: Path) -> dict[str, Path]:
    """Directories of the variants by name, made where they are missing; the dense one first."""
    made = {name: work / name for name in (BASELINE, "slice25", "slice25-shared", "2:4")}
    made = {name: path.with_name(path.name.replace(":", "of")) for name, path in made.items()}
    for name, path in made.items():
        if not (path / "variant.json").exists():
            shutil.rmtree(path, ignore_errors=True)
            _make(name, path, made[BASELINE], tokenizer_from)
    for name in (BASELINE, "slice25", "2:4"):
        path = work / f"{made[name].name}-int8"
        if not (path / "variant.json").exists():
            _recipe({"quantize": {"scheme": "w8a8"}}, made[name], path)
        made[f"{name}-int8"] = path
    return made


def _make(name: str, path: Path, dense: Path, tokenizer_from: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sparsify.checkpoint import copy_companions
    from sparsify.slicegpt.model import sliced_classes, sliced_config
    from sparsify.slicegpt.shared import shared_config
    from sparsify.slicegpt.sizes import uniform_widths
    from sparsify.variant import describe, write_variant

    if name == "2:4":
        _recipe({"prune": {"method": "magnitude", "pattern": "2:4"}}, dense, path)
        return
    config: Any = LlamaConfig(**SHAPE)
    width, blocks = int(SHAPE["hidden_size"]), int(SHAPE["num_hidden_layers"])
    widths = uniform_widths(width, 2 * blocks + 1, FRACTION, 8, slice_head=False)
    stock = {**config.to_dict(), "model_type": "llama"}
    torch.manual_seed(0)
    if name == BASELINE:
        model: Any = LlamaForCausalLM(config)
    elif name == "slice25":
        config_class, model_class = sliced_classes("llama")
        model = model_class(config_class(**sliced_config(stock, {"width": width, "widths": widths})))
        for parameter_name, parameter in model.named_parameters():
            if "shortcut" in parameter_name:  # fresh ones are identities: their zeros would cost engine sparse nothing
                torch.nn.init.normal_(parameter, std=width**-0.5)
    else:
        model = LlamaForCausalLM(LlamaConfig(**shared_config(stock, config, width, widths[0])))
    path.mkdir(parents=True)
    model.to(torch.bfloat16).save_pretrained(path)
    copy_companions(tokenizer_from, path)
    write_variant(describe(path, name=name, base="random"), path)


def _recipe(stage: Mapping[str, Any], parent: Path, out: Path) -> None:
    from sparsify.recipe import parse_recipe
    from sparsify.run import MakeOptions, make_variant

    store = out.parent / "stages"
    recipe = parse_recipe({"stages": [dict(stage)]}, name=out.name, where=out.name)
    make_variant(parent, recipe, out, options=MakeOptions(store=store, name=out.name, base="random"))
    shutil.rmtree(store, ignore_errors=True)


def measure_speed(work: Path, out: Path, tokenizer_from: Path, *, budget: float, quiet: bool) -> list[dict[str, Any]]:
    """The rows of all panels, each with the variant's size and work per token beside it; finished panels are kept."""
    from harness.bench.panel import PanelRunner, read_panel
    from harness.bench.spec import PanelSpec
    from sparsify.variant import read_variant

    variants = make_variants(work, tokenizer_from)
    sizes = {name: read_variant(path) for name, path in variants.items()}
    rows: list[dict[str, Any]] = []
    with PanelRunner() as runner, Phase("speed", len(WORKLOADS), quiet=quiet) as phase:
        for index, (workload, options) in enumerate(WORKLOADS.items()):
            spec = PanelSpec(
                panel=workload,
                workload=workload,  # type: ignore[arg-type]
                threads=1,
                dtype="bfloat16",
                baseline=BASELINE,
                budget_s=budget,
                seed=0,
                engine="torch",
                engines=("sparse",),
                **options,
            )
            found = read_panel(spec, variants, out=out)
            if found is None:
                found = runner.run(spec, variants, out=out)
            phase.update(index + 1, len(WORKLOADS), workload)
            rows += [
                {
                    **asdict(row),
                    "parameters": sizes[row.variant].parameters,
                    "macs_per_token": sizes[row.variant].macs_per_token,
                }
                for row in found
            ]
    return rows
