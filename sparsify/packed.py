"""Bitmask storage: a mask bit per weight and the surviving values only, so that the file of a sparse variant shrinks.

No library reads this form; it is for keeping and sending. `expand_checkpoint` gives back the ordinary model directory,
bit for bit. A pruned weight costs 1 bit instead of 16: 36 % of the bytes stay at 70 % zeros in bfloat16.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sparsify.checkpoint import (
    MASKS,
    WEIGHTS,
    copy_companions,
    open_checkpoint,
    read_header,
    write_index,
)
from sparsify.errors import CheckpointError
from sparsify.files import plain_os_errors

if TYPE_CHECKING:
    from torch import Tensor

PACKED = "packed.safetensors"
_MASK, _VALUES = ".mask", ".values"


def is_packed(directory: Path) -> bool:
    """Whether a directory holds a checkpoint in bitmask storage."""
    return (directory / PACKED).is_file()


def pack_checkpoint(source: Path, out_dir: Path) -> None:
    """Write the checkpoint in `source` to `out_dir` in bitmask storage.

    Weights that have a mask (masks.safetensors) are packed, all other tensors are stored as they are.

    Args:
        source: A model directory with its masks.
        out_dir: An existing directory.

    Raises:
        CheckpointError: There are no masks, they do not fit the weights, or a pruned place is not an exact zero.
    """
    from safetensors.torch import save_file

    from sparsify.masks import count_violations, load_masks, pack

    checkpoint, masks = open_checkpoint(source), load_masks(source)
    if not masks:
        raise CheckpointError(f"{source} has no {MASKS}; only a variant that sparsify pruned can be packed")
    if any(name not in checkpoint.tensors for name in masks):
        raise CheckpointError(f"{source} stores its weights packed to 4 bits already; keep it as it is")
    if count_violations(masks, checkpoint):
        raise CheckpointError(f"{source}: pruned places are not zero; make the variant again")
    stored: dict[str, Tensor] = {}
    for name in checkpoint.tensors:
        weight = checkpoint.read(name)
        if name in masks:
            stored[name + _MASK] = pack(masks[name])
            stored[name + _VALUES] = weight[masks[name]]
        else:
            stored[name] = weight
    columns = {name: masks[name].shape[1] for name in sorted(masks)}
    with plain_os_errors():
        save_file(stored, out_dir / PACKED, metadata={"columns": json.dumps(columns)})
    shutil.copyfile(source / "config.json", out_dir / "config.json")
    copy_companions(source, out_dir)


def expand_checkpoint(source: Path, out_dir: Path) -> None:
    """Write the checkpoint that is packed in `source` to `out_dir`, an existing directory, as an ordinary one.

    Raises:
        CheckpointError: The file is damaged, or a mask does not count as many weights as there are values.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    from sparsify.masks import save_masks, unpack

    path = source / PACKED
    read_header(path)
    weights: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as stream:
            columns = json.loads((stream.metadata() or {})["columns"])
            inside = {name + ending for name in columns for ending in (_MASK, _VALUES)}
            for name, width in columns.items():
                masks[name] = unpack(stream.get_tensor(name + _MASK), int(width))
                values = stream.get_tensor(name + _VALUES)
                if values.ndim != 1 or int(masks[name].sum()) != values.numel():
                    raise CheckpointError(f"{path} is damaged: {name} has {values.numel()} values for another mask")
                weights[name] = values.new_zeros(masks[name].shape)
                weights[name][masks[name]] = values
            for name in stream.keys():  # noqa: SIM118 (not a mapping)
                if name not in inside:
                    weights[name] = stream.get_tensor(name)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); download or copy it again") from None
    with plain_os_errors():
        save_file(weights, out_dir / WEIGHTS, metadata={"format": "pt"})
    save_masks(masks, out_dir)
    write_index(out_dir, [WEIGHTS])
    shutil.copyfile(source / "config.json", out_dir / "config.json")
    copy_companions(source, out_dir)
