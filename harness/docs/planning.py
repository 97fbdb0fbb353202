"""The tables of docs/explanation/planning.md, from the estimators behind `sparsebench sparsify --dry-run`."""

from __future__ import annotations

from typing import Any

from harness.docs.markdown import table
from harness.report.markdown import replaced

BEGIN, END = "<!-- plans: begin, made by `python -m harness.docs docs` -->", "<!-- plans: end -->"

_CALIBRATION = {"source": "hub:c4", "samples": 128, "seq": 2048}
_TRAINED: dict[str, Any] = {
    "seq": 2048,
    "batch_tokens": 524_288,
    "accumulate": 64,
    "lr": 3e-4,
    "precision": "bf16",
    "checkpoint_activations": True,
}
STAGES: dict[str, dict[str, Any]] = {
    "prune, Wanda, 2:4": {"prune": {"method": "wanda", "pattern": "2:4", "calibration": _CALIBRATION}},
    "prune, SparseGPT, 50 %": {"prune": {"method": "sparsegpt", "sparsity": 0.5, "calibration": _CALIBRATION}},
    "prune, ADMM, 50 %": {"prune": {"method": "admm", "sparsity": 0.5, "calibration": _CALIBRATION}},
    "quantize, W8A8, GPTQ": {"quantize": {"scheme": "w8a8", "method": "gptq", "calibration": _CALIBRATION}},
    "slice, 25 %": {"slice": {"fraction": 0.25, "calibration": _CALIBRATION}},
    "finetune, 100 M tokens, SquareHead": {
        "finetune": {**_TRAINED, "data": "train.jsonl", "tokens": 100_000_000, "teacher": "base"}
    },
    "pretrain, 50 G tokens": {
        "pretrain": {**_TRAINED, "mixture": [{"source": "hub:c4", "share": 1.0}], "tokens": 50_000_000_000}
    },
}
"""Stages by the name that the table gives them; calibration of 128 windows of 2,048 tokens, as the papers have it."""

SHAPES: dict[str, dict[str, Any]] = {
    "1.2 G (Llama 3.2 1B)": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "6.7 G (Llama 2 7B)": {
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32_000,
    },
    "69 G (Llama 2 70B)": {
        "hidden_size": 8192,
        "intermediate_size": 28_672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 32_000,
    },
}
"""Public shapes of Llama models; weights stored in bfloat16."""


def skeleton(shape: dict[str, Any]) -> Any:
    """A Llama of the shape, without weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from sparsify.skeleton import parameters_on_meta

    with parameters_on_meta():
        return LlamaForCausalLM(LlamaConfig(**shape))


def plan_tables() -> str:
    """A table for each shape, between the lines by which a page is brought up to date."""
    from sparsify.plan import Machine, plan_shapes
    from sparsify.recipe import parse_recipe

    parts = [BEGIN]
    for name, shape in SHAPES.items():
        model = skeleton(shape)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        rows = []
        for title, stage in STAGES.items():
            recipe = parse_recipe({"stages": [stage]}, name="plan", where=title)
            (plan,) = plan_shapes(model, recipe, Machine("cuda"), stored=2 * parameters)
            rows.append([title, _gb(plan.memory_bytes), _gb(plan.disk_bytes), _hours(plan.seconds)])
        head = ("stage", "device memory", "disk", "one GPU, roughly")
        weights = f"{parameters:,} parameters, {_gb(2 * parameters)} in bfloat16."
        parts.append(f"### {name}\n\n{weights}\n\n{table(head, rows)}")
    return "\n\n".join([*parts, END]) + "\n"


def updated(document: str) -> str:
    """A page with its tables made anew.

    Raises:
        ValueError: It has no place for them.
    """
    return replaced(document, BEGIN, END, plan_tables())


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _hours(seconds: float) -> str:
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:,.0f} days"
