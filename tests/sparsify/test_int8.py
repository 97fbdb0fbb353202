"""The INT8 layout as transformers opens it, against a W8A8 forward pass written out here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparsify.checkpoint import open_checkpoint
from sparsify.errors import NumericsError
from sparsify.masks import load_masks
from sparsify.quantize.rtn import dequantize, quantize_rtn
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant

STAGES = [
    {
        "prune": {
            "method": "sparsegpt",
            "pattern": "2:4",
            "block_size": 16,
            "calibration": {"source": "text", "samples": 16, "seq": 24},
        }
    },
    {"quantize": {}},
]
RECIPE = parse_recipe({"stages": STAGES}, name="2of4-int8", where="test")


def test_rounding_by_hand() -> None:
    weight = torch.tensor([[1.27, -0.634, 0.0, 0.006], [0.0, 0.0, 0.0, 0.0], [-254.0, 3.0, 1.1, -1.0]])
    quantized, scale = quantize_rtn(weight)
    assert quantized.tolist() == [[127, -63, 0, 1], [0, 0, 0, 0], [-127, 2, 1, 0]]
    torch.testing.assert_close(scale, torch.tensor([[0.01], [1.0], [2.0]]))
    assert bool(((dequantize(quantized, scale) - weight).abs() <= scale / 2 + 1e-6).all())
    with pytest.raises(NumericsError, match="non-finite"):
        quantize_rtn(torch.tensor([[float("nan")]]))


def int8_forward(directory: Path, ids: Tensor) -> Tensor:
    """The W8A8 model written out: our own dequantised weights, activations rounded per token."""
    from torch import nn

    checkpoint = open_checkpoint(directory)
    model = load_model_without_quantization(directory)

    def round_inputs(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        scale = args[0].abs().amax(-1, keepdim=True) / 127.5
        return ((args[0] / scale).round().clamp(-128, 127) * scale,)

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name + ".weight_scale" in checkpoint.tensors:
            weight = checkpoint.read(name + ".weight").float() * checkpoint.read(name + ".weight_scale").float()
            module.weight.data.copy_(weight)
            module.register_forward_pre_hook(round_inputs)
    with torch.no_grad():
        out: Tensor = model(ids).logits
    return out


def load_model_without_quantization(directory: Path) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(directory))
    del config.quantization_config
    model: torch.nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    checkpoint = open_checkpoint(directory)
    state = {n: checkpoint.read(n).float() for n in checkpoint.tensors if not n.endswith("_scale")}
    model.load_state_dict(state, strict=False)
    return model


def logits_of_dequantized(directory: Path, ids: Tensor) -> Tensor:
    checkpoint = open_checkpoint(directory)
    model = load_model_without_quantization(directory)
    for name in checkpoint.tensors:
        if name.endswith("_scale"):
            weight = name.removesuffix("_scale")
            model.get_parameter(weight).data.copy_(checkpoint.read(weight).float() * checkpoint.read(name))
    with torch.no_grad():
        out: Tensor = model(ids).logits
    return out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_int8_opens_in_transformers(tmp_path: Path, corpus: Path, make_model: Callable[..., Path], dtype: str) -> None:
    pytest.importorskip("compressed_tensors")
    from transformers import AutoModelForCausalLM

    model_dir, out = make_model(tmp_path / "model", dtype=dtype), tmp_path / "v"
    options = MakeOptions(store=tmp_path / "store", name="v", base="tiny", resolve_corpus=lambda _source: corpus)
    make_variant(model_dir, RECIPE, out, options=options)
    ids = torch.arange(40).reshape(4, 10)
    ours = int8_forward(out, ids)
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
        theirs = model(ids).logits
        native = AutoModelForCausalLM.from_pretrained(str(out))(ids).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert native.dtype == getattr(torch, dtype)
    # In bf16 the inputs differ by its rounding, and with them some of the activations' INT8 values.
    allowed = 0.1 if dtype == "bfloat16" else 1e-4
    assert float((native.float() - ours).square().mean().sqrt()) < allowed * float(ours.std())
    # Without rounded activations the logits are others, so the comparison above would notice if they were not rounded.
    assert float((ours - logits_of_dequantized(out, ids)).abs().max()) > 1e-3
    for name, mask in load_masks(out).items():
        weight = model.get_parameter(name)
        assert int((weight[~mask] != 0).sum()) == 0
