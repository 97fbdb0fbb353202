"""Masks of pruned weights, stored bit-packed beside the weights.

A mask is a bool tensor of the weight's shape, True where the weight is kept. It is stored and never derived again from
`weight == 0`, because rounding to bf16 or INT8 makes zeros of weights that are still free to change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sparsify.checkpoint import MASKS, Checkpoint, read_header
from sparsify.errors import CheckpointError
from sparsify.files import plain_os_errors
from sparsify.quantize.stored import read_weight

_SHIFTS = torch.arange(8, dtype=torch.uint8)


def pack(mask: Tensor) -> Tensor:
    """Pack a bool tensor [rows, columns] into uint8 [rows, ceil(columns / 8)], lowest bit first."""
    rows, columns = mask.shape
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -columns % 8))
    return (padded.reshape(rows, -1, 8) << _SHIFTS).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, columns: int) -> Tensor:
    """The inverse of `pack`: bool [rows, columns]."""
    bits = (packed.unsqueeze(-1) >> _SHIFTS) & 1
    return bits.reshape(packed.shape[0], -1)[:, :columns].to(torch.bool)


def save_masks(masks: Mapping[str, Tensor], directory: Path) -> None:
    """Write `masks` (by weight name) to masks.safetensors in `directory`; no file where there are none."""
    from safetensors.torch import save_file

    if not masks:
        return
    columns = {name: masks[name].shape[1] for name in sorted(masks)}
    with plain_os_errors():
        packed = {name: pack(mask) for name, mask in masks.items()}
        save_file(packed, directory / MASKS, metadata={"columns": json.dumps(columns)})


def load_masks(directory: Path) -> dict[str, Tensor]:
    """Read the masks of a variant: weight name -> bool [out, in], True where kept; empty where it has none.

    Raises:
        CheckpointError: The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / MASKS
    if not path.exists():
        return {}
    read_header(path)
    try:
        with safe_open(path, framework="pt") as stream:
            columns = json.loads((stream.metadata() or {})["columns"])
            return {name: unpack(stream.get_tensor(name), int(width)) for name, width in columns.items()}
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); make the variant again") from None


def count_violations(masks: Mapping[str, Tensor], checkpoint: Checkpoint) -> int:
    """How many pruned places of `masks` do not hold an exact zero in `checkpoint` (float, INT8 or packed INT4).

    Raises:
        CheckpointError: A masked weight is not stored or has another shape.
    """
    violations = 0
    for name, mask in masks.items():
        weight = read_weight(checkpoint, name)
        if weight is None or weight.shape != mask.shape:
            raise CheckpointError(f"{checkpoint.path / MASKS} does not fit the weights: {name}; make the variant again")
        violations += int((weight[~mask] != 0).sum())
    return violations


def broken_groups(weight: Tensor, n: int, m: int) -> int:
    """How many groups of `m` neighbours along the last dimension of [out, in] hold more than `n` non-zero weights."""
    groups = (weight != 0).reshape(weight.shape[0], -1, m)
    return int((groups.sum(-1) > n).sum())
