"""The torch engine on compressed-tensors INT8 and INT4: the library's numbers, without its overhead."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.engines.torch import TorchEngine
from harness.errors import EngineError

tiny_llama = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_llama.py"))))
save_tiny, prompts = tiny_llama.save_tiny, tiny_llama.prompts


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def as_int8(source: Path, target: Path) -> Path:
    """The tiny model in compressed-tensors' int-quantized form, with known values."""
    save_tiny(target)
    weights = load_file(source / "model.safetensors")
    packed = {}
    for name, weight in weights.items():
        if name.endswith("proj.weight"):
            scale = weight.abs().amax(1, keepdim=True) / 127
            packed[name] = (weight / scale).round().clamp(-127, 127).to(torch.int8)
            packed[name + "_scale"] = scale
        else:
            packed[name] = weight
    save_file(packed, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    bits = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**bits, "strategy": "channel", "dynamic": False},
        "input_activations": {**bits, "strategy": "token", "dynamic": True},
    }
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_int8_gives_the_librarys_numbers_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    path = as_int8(tiny, tmp_path / "int8")
    lean = TorchEngine.load(path, threads=1)
    from harness.engines._load import load_model, pick_device

    library = load_model(path, device=pick_device("cpu"), dtype="float32")
    ids = torch.tensor([prompts(1, seed=1)[0]])
    with torch.inference_mode():
        ours, theirs = lean.model(ids).logits, library(ids).logits
        dense = TorchEngine.load(tiny).model(ids).logits
    assert torch.equal(ours, theirs)
    linear = lean.model.model.layers[0].mlp.gate_proj
    assert linear.weight.dtype == torch.float32
    assert "use_lean_forward" in linear.forward.__func__.__qualname__
    assert 0 < float((ours - dense).abs().max()) < 0.5 * float(dense.abs().max())
    zero = torch.zeros(1, 1, linear.in_features)
    assert torch.equal(linear(zero), torch.zeros(1, 1, linear.out_features))
    # Linears with the same input share its rounding, but not once it was written to.
    shown = torch.randn(1, 2, linear.in_features)
    before = linear(shown)
    shown.mul_(-3)
    assert torch.equal(linear(shown), linear(shown.clone())) and not torch.equal(linear(shown), before)


def quantised(source: Path, target: Path, *, group: int | None = None, static: bool = False) -> Path:
    """The tiny model as sparsify stores W4A16 (with `group`) or W8A8."""
    from sparsify.quantize.grid import INT8, int4
    from sparsify.quantize.layout import quantization_config, stored_linear
    from sparsify.quantize.rtn import quantize_rtn

    save_tiny(target)
    stored: dict[str, torch.Tensor] = {}
    ignored = ["lm_head"]
    for name, weight in load_file(source / "model.safetensors").items():
        linear = name.removesuffix(".weight")
        if not linear.endswith("proj") or (group and weight.shape[1] % group):
            ignored += [linear] if linear.endswith("proj") else []
            stored[name] = weight
            continue
        found = quantize_rtn(weight, INT8 if group is None else int4(group))
        packed = torch.float32 if group else None
        stored |= stored_linear(linear, *found, packed=packed, input_scale=0.03 if static else None)
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    config["quantization_config"] = quantization_config(ignored, group=group, static=static)
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize("settings", [{"group": 32}, {"static": True}], ids=["int4", "static-int8"])
def test_other_schemes_give_the_librarys_numbers_bit_for_bit(
    tiny: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    pytest.importorskip("compressed_tensors")
    from harness.bench.panel import skip_reasons
    from harness.engines._load import load_model, pick_device

    path = quantised(tiny, tmp_path / "quantised", **settings)
    lean, library = TorchEngine.load(path, threads=1), load_model(path, device=pick_device("cpu"), dtype="float32")
    ids = torch.tensor([prompts(1, seed=1)[0]])
    with torch.inference_mode():
        ours, theirs = lean.model(ids).logits, library(ids).logits
        dense = TorchEngine.load(tiny).model(ids).logits
    assert torch.equal(ours, theirs)
    forward = lean.model.model.layers[0].mlp.down_proj.forward
    assert "use_lean_forward" in forward.__func__.__qualname__
    assert float((ours - dense).abs().max()) > 0.01
    [reason] = skip_reasons({"q": path}).values()
    assert reason.startswith("INT4" if "group" in settings else "INT8")


def test_a_missing_compressed_tensors_names_the_extra(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    path = as_int8(tiny, tmp_path / "int8")
    real = importlib.util.find_spec
    hidden = "compressed_tensors"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == hidden else real(name, *a))
    with pytest.raises(EngineError, match=r"sparsebench\[int8\]"):
        TorchEngine.load(path)
