"""A lean forward for compressed-tensors W8A8 linears: the same numbers as the library's, without its overhead.

The library decompresses the weights at the first forward and then quantises the activations of every linear through a
dozen small tensor operations, which triples the time per token of a small model. Imported only by the torch engine.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Rounder:
    """Rounds activations to int8 per token (symmetric, scale = max|x| / 127.5), held in float.

    Linears that read the same tensor (query, key and value; gate and up) come one after the other, so the last result
    is kept and used again for the very same tensor. A write into it in between is noticed where torch counts versions;
    inference tensors have none, and no model writes into the input of a linear before its last reader.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, activations: Tensor) -> Tensor:
        version = 0 if activations.is_inference() else activations._version
        if self._last is not None and self._last[0] is activations and self._last[1] == version:
            return self._last[2]
        low, high = torch.aminmax(activations, dim=-1, keepdim=True)
        scale = torch.maximum(low.neg(), high) / 127.5
        scale = torch.where(scale == 0, torch.finfo(scale.dtype).eps, scale)
        rounded = (activations / scale).clamp_(-128.0, 127.0).round_().mul_(scale)
        self._last = (activations, version, rounded)
        return rounded


def _is_plain_w8a8(module: nn.Module) -> bool:
    scheme: Any = getattr(module, "quantization_scheme", None)
    if scheme is None or not isinstance(module, nn.Linear) or scheme.output_activations is not None:
        return False
    inputs = scheme.input_activations
    return (
        getattr(module, "quantization_status", None) == "decompressed"
        and inputs is not None
        and (inputs.type, inputs.num_bits, inputs.symmetric) == ("int", 8, True)
        and (inputs.strategy, inputs.dynamic) == ("token", True)
        and inputs.scale_dtype is None
        and module.weight.is_floating_point()
    )


def use_lean_forward(model: nn.Module) -> int:
    """Give every decompressed W8A8 linear the lean forward; returns how many got it.

    Linears with another scheme keep the library's forward, so nothing is computed in another way than was saved.
    """
    found = [module for module in model.modules() if _is_plain_w8a8(module)]
    rounder = _Rounder()

    def forward(self: nn.Linear, activations: Tensor) -> Tensor:
        return functional.linear(rounder(activations), self.weight, self.bias)

    for module in found:
        module.forward = MethodType(forward, module)
    return len(found)
