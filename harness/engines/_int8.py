"""A lean forward for compressed-tensors integer linears: the same numbers as the library's, without its overhead.

The library decompresses the weights at the first forward and then quantises the activations of every linear through a
dozen small tensor operations, which triples the time per token of a small model. Weight-only linears (INT4) need
nothing but their decompressed weight. Imported only by the torch engine.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, Literal

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


def _round_static(activations: Tensor, scale: Tensor) -> Tensor:
    """Round activations to int8 with one stored scale, held in float."""
    return (activations / scale).clamp_(-128.0, 127.0).round_().mul_(scale)


def _kind(module: nn.Module) -> Literal["token", "static", "weights"] | None:
    """How a decompressed linear rounds its inputs (`weights`: not at all); None where the library must do it."""
    scheme: Any = getattr(module, "quantization_scheme", None)
    if scheme is None or not isinstance(module, nn.Linear) or scheme.output_activations is not None:
        return None
    if getattr(module, "quantization_status", None) != "decompressed" or not module.weight.is_floating_point():
        return None
    inputs = scheme.input_activations
    if inputs is None:
        return "weights"
    if (inputs.type, inputs.num_bits, inputs.symmetric) != ("int", 8, True) or inputs.scale_dtype is not None:
        return None
    if (inputs.strategy, inputs.dynamic) == ("token", True):
        return "token"
    stored = getattr(module, "input_scale", None)
    plain = (inputs.strategy, inputs.dynamic) == ("tensor", False) and isinstance(stored, Tensor)
    return "static" if plain and stored is not None and stored.numel() == 1 else None


def use_lean_forward(model: nn.Module) -> int:
    """Give every decompressed linear whose scheme is understood the lean forward; returns how many got it.

    Linears with another scheme keep the library's forward, so nothing is computed in another way than was saved.
    """
    rounder = _Rounder()

    def token(self: nn.Linear, activations: Tensor) -> Tensor:
        return functional.linear(rounder(activations), self.weight, self.bias)

    def static(self: nn.Linear, activations: Tensor) -> Tensor:
        return functional.linear(_round_static(activations, self.get_parameter("input_scale")), self.weight, self.bias)

    def weights(self: nn.Linear, activations: Tensor) -> Tensor:
        return functional.linear(activations, self.weight, self.bias)

    forwards = {"token": token, "static": static, "weights": weights}
    found = [(module, kind) for module in model.modules() if (kind := _kind(module)) is not None]
    for module, kind in found:
        module.forward = MethodType(forwards[kind], module)
    return len(found)
