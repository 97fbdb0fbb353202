"""The compressed-tensors layouts that transformers and vLLM open: `int-quantized` (W8A8) and `pack-quantized` (W4A16).

No `sparsity_config` is ever written: vLLM refuses any (vllm#51188), and zeros need none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsify.quantize.grid import dequantize
from sparsify.quantize.int4 import pack_int4, unpack_int4

_PARTS = ("weight", "weight_packed", "weight_scale", "weight_shape", "input_scale")


def quantization_config(ignored: Sequence[str], *, group: int | None = None, static: bool = False) -> dict[str, Any]:
    """The `quantization_config` of a checkpoint whose linears `ignored` (module names) are left as they are.

    Args:
        ignored: Names of linears.
        group: Columns that share a scale: W4A16; None: W8A8.
        static: W8A8 only: one stored scale for all inputs of a linear, instead of one per token.
    """
    int8 = {"num_bits": 8, "type": "int", "symmetric": True}
    weights: dict[str, Any] = {**int8, "strategy": "channel", "dynamic": False}
    inputs: dict[str, Any] | None = {**int8, "strategy": "token", "dynamic": True}
    if static:
        inputs = {**int8, "strategy": "tensor", "dynamic": False}
    if group is not None:
        weights = {**int8, "num_bits": 4, "strategy": "group", "group_size": group, "dynamic": False}
        inputs = None
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if group is None else "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": inputs,
                "output_activations": None,
            }
        },
        "ignore": sorted(ignored),
        "kv_cache_scheme": None,
    }


def stored_linear(
    linear: str, values: Tensor, scale: Tensor, *, packed: torch.dtype | None = None, input_scale: float | None = None
) -> dict[str, Tensor]:
    """The tensors that stand for a quantized linear, on the CPU.

    Args:
        linear: Its module name.
        values: int8 [out, in].
        scale: float32 [out, groups].
        packed: For `pack-quantized`: what scales are stored as; None for `int-quantized`.
        input_scale: Of a static scheme.
    """
    values, scale = values.cpu().contiguous(), scale.cpu().contiguous()
    if packed is not None:
        return {
            f"{linear}.weight_packed": pack_int4(values),
            f"{linear}.weight_scale": scale.to(packed),
            f"{linear}.weight_shape": torch.tensor(values.shape, dtype=torch.int64),
        }
    tensors = {f"{linear}.weight": values, f"{linear}.weight_scale": scale}
    if input_scale is not None:
        tensors[f"{linear}.input_scale"] = torch.tensor([input_scale], dtype=torch.float32)
    return tensors


def parts_of(linear: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `tensors` that stand for a linear's weight and scales; empty where none do."""
    return {name: tensors[name] for part in _PARTS if (name := f"{linear}.{part}") in tensors}


def restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float parameters that stored tensors stand for, by parameter name."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    floats = {name: tensor for name, tensor in floats.items() if not name.endswith((".weight_scale", ".input_scale"))}
    for name, scale in tensors.items():
        weight, is_scale = name.removesuffix("_scale"), name.endswith(".weight_scale")
        if is_scale and weight in tensors:
            floats[weight] = dequantize(tensors[weight], scale)
        elif is_scale:
            columns = int(tensors[f"{weight}_shape"][1])
            floats[weight] = dequantize(unpack_int4(tensors[f"{weight}_packed"], columns), scale)
    return floats
