"""Masks of pruned weights, stored bit-packed beside the weights.

A mask is a bool tensor of the weight's shape, True where the weight is kept. It is stored and never derived again from
`weight == 0`, because rounding to bf16 or INT8 makes zeros of weights that are still free to change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sparsify.checkpoint import MASKS, Checkpoint
from sparsify.errors import CheckpointError
from sparsify.quantize.stored import read_weight
from sparsify.shards import ShardWriter, read_header_and_metadata, read_tensor

_SHIFTS = torch.arange(8, dtype=torch.uint8)


def pack(mask: Tensor) -> Tensor:
    """Pack a bool tensor [rows, columns] into uint8 [rows, ceil(columns / 8)], lowest bit first."""
    rows, columns = mask.shape
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -columns % 8))
    return (padded.reshape(rows, -1, 8) << _SHIFTS).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, columns: int) -> Tensor:
    """The inverse of `pack`: bool [rows, columns]."""
    bits = (packed.unsqueeze(-1) >> _SHIFTS.to(packed.device)) & 1
    return bits.reshape(packed.shape[0], -1)[:, :columns].to(torch.bool)


def save_masks(masks: Mapping[str, Tensor], directory: Path) -> None:
    """Write `masks` (by weight name) to masks.safetensors in `directory`; no file where there are none.

    A lazy mapping is read one mask at a time.
    """
    if not masks:
        return
    with ShardWriter(directory / MASKS) as shard:
        columns = {}
        for name in sorted(masks):
            mask = masks[name]
            columns[name] = mask.shape[1]
            shard.add(name, pack(mask))
        shard.metadata["columns"] = json.dumps(columns)


class MaskFile(Mapping[str, Tensor]):
    """The masks of a variant by weight name, each unpacked from the file when it is asked for.

    Unpacked masks take eight times the memory of the file: of a 7B model 6.5 GB.
    """

    def __init__(self, path: Path) -> None:
        """Check the file.

        Raises:
            CheckpointError: It is damaged.
        """
        self._path = path
        self._refs, metadata = read_header_and_metadata(path)
        try:
            self._columns = {str(name): int(width) for name, width in json.loads(metadata["columns"]).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); make the variant again") from None
        for name, width in self._columns.items():
            ref = self._refs.get(name)
            if (
                ref is None
                or ref.dtype != "U8"
                or len(ref.shape) != 2
                or not 8 * ref.shape[1] - 8 < width <= 8 * ref.shape[1]
            ):
                raise CheckpointError(f"{path} is damaged ({name} does not fit its width); make the variant again")

    def __getitem__(self, name: str) -> Tensor:
        """The mask of a weight, bool [out, in]."""
        return unpack(read_tensor(self._refs[name], name), self._columns[name])

    def __contains__(self, name: object) -> bool:
        """Whether a weight has a mask, without reading it."""
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        """Names of the weights."""
        return iter(self._columns)

    def __len__(self) -> int:
        """How many weights have a mask."""
        return len(self._columns)

    def shape(self, name: str) -> tuple[int, int]:
        """Shape of a mask, without reading it."""
        return self._refs[name].shape[0], self._columns[name]


def load_masks(directory: Path) -> Mapping[str, Tensor]:
    """The masks of a variant: weight name -> bool [out, in], True where kept; empty where it has none.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = directory / MASKS
    return MaskFile(path) if path.exists() else {}


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
