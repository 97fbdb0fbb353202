"""Weights of a checkpoint whatever form they are stored in: floats, INT8, or packed INT4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsify.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


def is_packed_int4(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the weight called `name` is stored packed, symmetric with four bits: the packed form read here."""
    packed, shape = checkpoint.tensors.get(f"{name}_packed"), checkpoint.tensors.get(f"{name}_shape")
    if packed is None or shape is None or f"{name}_zero_point" in checkpoint.tensors:
        return False
    return packed.dtype == "I32" and len(packed.shape) == 2 and _bits(checkpoint) == {4}


def read_weight(checkpoint: Checkpoint, name: str) -> Tensor | None:
    """The weight called `name` (such as `model.layers.0.mlp.up_proj.weight`), float or integer [out, in].

    It is zero exactly where the weight that it stands for is. None where it is not stored, or in another packed form.
    """
    if name in checkpoint.tensors:
        return checkpoint.read(name)
    if not is_packed_int4(checkpoint, name):
        return None
    from sparsify.quantize.int4 import unpack_int4

    rows, columns = (int(size) for size in checkpoint.read(f"{name}_shape").flatten())
    packed = checkpoint.read(f"{name}_packed")
    if rows != packed.shape[0] or not 0 <= 8 * packed.shape[1] - columns < 8:
        return None
    return unpack_int4(packed, columns)


def _bits(checkpoint: Checkpoint) -> set[int]:
    config = checkpoint.config.get("quantization_config", {})
    groups = config.get("config_groups", {}) if isinstance(config, dict) else {}
    return {int(group["weights"]["num_bits"]) for group in groups.values() if group.get("weights")}
