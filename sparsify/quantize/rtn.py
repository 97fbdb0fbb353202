"""Round to nearest, symmetric: a zero stays a zero."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsify.quantize.grid import INT8, Grid, check_finite, dequantize

__all__ = ["dequantize", "quantize_rtn"]


def quantize_rtn(weight: Tensor, grid: Grid = INT8) -> tuple[Tensor, Tensor]:
    """Quantize a weight.

    Args:
        weight: Float [out, in].
        grid: INT8 has one scale per output channel, INT4 one per group of columns.

    Returns:
        int8 [out, in] within the grid, and its scale, float32 [out, groups]; `dequantize` gives the weight back. A row
        (or group) of zeros has scale 1.

    Raises:
        NumericsError: The weight holds non-finite values.
        SparsifyError: The columns do not divide into groups.
    """
    values = weight.to(torch.float32)
    check_finite(values)
    grid.check(values.shape[1])
    scale = grid.scales(values)
    grouped = values.reshape(-1, grid.group or values.shape[1])
    rounded = grid.round(grouped, scale.reshape(-1, 1)).to(torch.int8)
    return rounded.reshape(values.shape), scale
