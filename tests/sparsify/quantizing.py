"""A small model with biases and the quantize stages that tests make of it; read with runpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.blocks import find_structure, load_skeleton
from sparsify.checkpoint import open_checkpoint
from sparsify.progress import Progress
from sparsify.quantize.grid import dequantize
from sparsify.quantize.stored import read_weight
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.variant import VariantInfo

CALIBRATION = {"source": "text", "samples": 16, "seq": 24}
MASKED = {"prune": {"method": "sparsegpt", "pattern": "2:4", "block_size": 32, "calibration": CALIBRATION}}
INT4 = {"scheme": "w4a16", "group_size": 32}
GPTQ = {"method": "gptq", "calibration": CALIBRATION}
STATIC = {"activations": "static", "smooth": 0.5, "calibration": CALIBRATION}
STAGES: dict[str, dict[str, Any]] = {
    "int4-rtn": INT4,
    "int4-gptq": {**INT4, **GPTQ},
    "int4-joint": {**INT4, **GPTQ, "prune": {"pattern": "2:4"}},
    "int8-gptq": GPTQ,
    "int8-joint": {**GPTQ, "prune": {"sparsity": 0.6}},
    "int8-smooth": {"smooth": 0.5, "calibration": CALIBRATION},
    "int8-static": STATIC,
    "int8-static-gptq": {**STATIC, "method": "gptq"},
}


def build(directory: Path, make_model: Callable[..., Path]) -> Path:
    """The tiny tokenizer with a model whose columns divide into groups of 32, in bfloat16, with biases."""
    import transformers

    make_model(directory)
    config = json.loads((directory / "config.json").read_text())
    torch.manual_seed(0)
    small = transformers.Qwen2Config(
        vocab_size=config["vocab_size"],
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    model = transformers.Qwen2ForCausalLM(small)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data.copy_((0.0 if name.endswith("bias") else 1.0) + 0.2 * torch.randn_like(parameter))
    model.to(torch.bfloat16).save_pretrained(directory)
    return directory


def make(
    root: Path, model: Path, corpus: Path, *stages: object, name: str = "v", progress: Progress | None = None
) -> tuple[Path, VariantInfo]:
    recipe = parse_recipe({"stages": list(stages)}, name=name, where="test")
    options = MakeOptions(store=root / "store", name=name, base="tiny", resolve_corpus=lambda _source: corpus)
    return root / name, make_variant(model, recipe, root / name, options=options, progress=progress)


def made(root: Path, model: Path, corpus: Path, name: str) -> tuple[Path, VariantInfo]:
    before = [] if "prune" in STAGES[name] else [MASKED]
    return make(root, model, corpus, *before, {"quantize": STAGES[name]}, name=name)


def linears_of(directory: Path) -> tuple[str, ...]:
    return find_structure(load_skeleton(directory)).all_linears


def reference(directory: Path) -> nn.Module:
    """The variant written out: weights dequantised by us, inputs rounded as the config says, no library."""
    from transformers import AutoConfig, AutoModelForCausalLM

    checkpoint = open_checkpoint(directory)
    config = AutoConfig.from_pretrained(str(directory))
    del config.quantization_config
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    plain = {
        name: checkpoint.read(name).float() for name in checkpoint.tensors if name in dict(model.named_parameters())
    }
    model.load_state_dict(plain, strict=False)
    inputs = checkpoint.config["quantization_config"]["config_groups"]["group_0"]["input_activations"]
    for name in linears_of(directory):
        scale = checkpoint.tensors.get(f"{name}.weight_scale")
        if scale is None:
            continue
        weight = read_weight(checkpoint, f"{name}.weight")
        assert weight is not None
        module = model.get_submodule(name)
        module.get_parameter("weight").data.copy_(dequantize(weight, checkpoint.read(f"{name}.weight_scale")))
        if inputs is not None:
            stored = checkpoint.read(f"{name}.input_scale") if not inputs["dynamic"] else None
            module.register_forward_pre_hook(rounding(stored))
    return model


def rounding(stored: Tensor | None) -> Callable[..., tuple[Tensor]]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        scale = args[0].abs().amax(-1, keepdim=True) / 127.5 if stored is None else stored
        return ((args[0] / scale).round().clamp(-128, 127) * scale,)

    return hook


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(torch.arange(80).reshape(4, 20)).logits
    return out
