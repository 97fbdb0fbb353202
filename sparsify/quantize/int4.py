"""Eight 4-bit integers in an int32, as compressed-tensors' `pack-quantized` lays them out."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_int4(values: Tensor) -> Tensor:
    """Pack int8 [rows, columns] within -8 … 7 into int32 [rows, ceil(columns / 8)]: value + 8, lowest bits first."""
    nibbles = torch.nn.functional.pad((values + 8).to(torch.uint8), (0, -values.shape[1] % 8))
    octets = nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)
    # The first of four bytes is the lowest: safetensors is little-endian, and so is every machine that torch runs on.
    return octets.contiguous().view(torch.int32)


def unpack_int4(packed: Tensor, columns: int) -> Tensor:
    """The inverse of `pack_int4`: int8 [rows, columns]."""
    octets = packed.contiguous().view(torch.uint8)
    nibbles = torch.stack((octets & 15, octets >> 4), dim=-1).reshape(packed.shape[0], -1)
    return nibbles[:, :columns].to(torch.int8) - 8
