"""The values that a quantized weight can take, and the scales between them and floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.problem import Note

GROUP_SIZES = (32, 64, 128)
# Shares of the largest magnitude that the best INT4 scale of a group is looked for among, the largest first.
_SHRINKS = tuple(1 - step / 40 for step in range(16))


@dataclass(frozen=True)
class Grid:
    """Symmetric integers with one scale per row, or per row and group of columns.

    Attributes:
        low: Smallest integer.
        high: Largest integer.
        group: Neighbouring columns that share a scale; None = the whole row.
        dtype: What scales are stored as. A scale is rounded to it before weights are divided by it, so that what is
            stored stands for exactly what was computed.
        search: Whether the scale is the one with the least squared rounding error instead of the one that just reaches
            the largest magnitude.
    """

    low: int
    high: int
    group: int | None = None
    dtype: torch.dtype = torch.float32
    search: bool = False

    def scale(self, values: Tensor) -> Tensor:
        """The scales of `values`, float32 [rows, columns] of one group: float32 [rows, 1], 1 for a row of zeros."""
        largest = values.abs().amax(dim=1, keepdim=True)
        # With -8 … 7 the middle of both ends reaches the largest magnitude, whichever its sign, within half a step.
        reach = self._stored(largest / ((self.high - self.low) / 2))
        if not self.search:
            return reach
        best, least = reach, torch.full_like(reach, torch.inf)
        for share in _SHRINKS:
            scale = self._stored(reach * share)
            error = (self.round(values, scale) * scale - values).square().sum(dim=1, keepdim=True)
            best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
        return best

    def scales(self, weight: Tensor) -> Tensor:
        """The scales of a whole weight, float32 [out, in]: float32 [out, groups]."""
        width = self.group or weight.shape[1]
        return self.scale(weight.reshape(-1, width)).reshape(weight.shape[0], -1)

    def round(self, values: Tensor, scale: Tensor) -> Tensor:
        """The nearest integers, as float32 of the shape of `values`; a zero stays a zero."""
        return (values / scale).round_().clamp_(self.low, self.high)

    def check(self, columns: int) -> None:
        """Refuse a weight whose columns do not divide into groups.

        Raises:
            SparsifyError: The message says which group sizes would divide.
        """
        if self.group is None or columns % self.group == 0:
            return
        fitting = [str(size) for size in GROUP_SIZES if columns % size == 0]
        fix = f"group_size {' or '.join(fitting)} would" if fitting else f"none of {GROUP_SIZES} would; add it to skip"
        raise SparsifyError(f"{columns} columns do not divide into groups of {self.group}; {fix}")

    def _stored(self, scale: Tensor) -> Tensor:
        scale = scale.to(self.dtype).to(torch.float32)
        # An all-zero group, or one so small that its scale is 0 once stored, quantizes to zeros.
        return torch.where(scale > 0, scale, torch.ones_like(scale))


INT8 = Grid(-127, 127)


def int4(group: int, dtype: torch.dtype = torch.float32) -> Grid:
    """The grid of compressed-tensors' 4-bit weights: -8 … 7, one scale per `group` columns, stored as `dtype`."""
    return Grid(-8, 7, group, dtype, search=True)


@dataclass(frozen=True)
class Quantized:
    """A quantized weight.

    Attributes:
        values: int8 [out, in].
        scale: float32 [out, groups]; see `dequantize`.
        mask: Bool [out, in], True where kept, where quantizing pruned as well.
        stats: Numbers about how it was found.
        notes: Fall-backs that were taken.
    """

    values: Tensor
    scale: Tensor
    mask: Tensor | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def weight(self) -> Tensor:
        """The float32 weight that this stands for."""
        return dequantize(self.values, self.scale)


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """The float32 weight that integers [out, in] and scales [out, groups] stand for: integer times its group's scale.

    With float16 or bfloat16 scales no 4-bit product is rounded here.
    """
    grouped = values.to(torch.float32).reshape(values.shape[0], scale.shape[1], -1)
    return (grouped * scale.to(torch.float32).unsqueeze(-1)).reshape(values.shape)


def check_finite(weight: Tensor, hessian: Tensor | None = None) -> None:
    """Refuse values that cannot be rounded.

    Raises:
        NumericsError: A value is not finite.
    """
    if not bool(torch.isfinite(weight).all()):
        raise NumericsError("the weight holds non-finite values; the checkpoint is damaged")
    if hessian is not None and not bool(torch.isfinite(hessian).all()):
        raise NumericsError("the Hessian holds non-finite values; the model overflows on the calibration text")
