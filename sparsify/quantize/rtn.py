"""Round to nearest: symmetric INT8 weights, one scale per output channel; a zero stays a zero."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsify.errors import NumericsError

_MAX = 127


def quantize_rtn(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize a weight.

    Args:
        weight: Float [out, in].

    Returns:
        int8 [out, in] within ±127, and its scale, float32 [out, 1]; weight ≈ int8 · scale. A row of zeros has scale 1.

    Raises:
        NumericsError: The weight holds non-finite values.
    """
    values = weight.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise NumericsError("the weight holds non-finite values; the checkpoint is damaged")
    scale = values.abs().amax(dim=1, keepdim=True) / _MAX
    # An all-zero row, or one so small that its scale is 0 in float32, quantizes to zeros.
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (values / scale).round().clamp(-_MAX, _MAX).to(torch.int8), scale


def dequantize(quantized: Tensor, scale: Tensor) -> Tensor:
    """The float32 weight that an int8 weight and its scale stand for."""
    return quantized.to(torch.float32) * scale.to(torch.float32)
