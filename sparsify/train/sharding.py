"""The whole of a sharded tensor and this process's rows of it; a tensor that is not sharded passes as it is."""

from __future__ import annotations

from torch import Tensor

from sparsify.errors import SparsifyError
from sparsify.train.held import local


def gather(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor on every process, without gradient; every process must call it."""
    from torch.distributed.tensor import DTensor

    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def rows_of(tensor: Tensor, sharded: Tensor) -> Tensor:
    """The rows of `tensor` that belong to this process, on the device and by the layout of `sharded`.

    Args:
        tensor: A mask, weight or moment of the whole shape, any dtype.
        sharded: The parameter that it belongs to.

    Raises:
        SparsifyError: The shapes differ, or FSDP shards otherwise than by `torch.chunk`.
    """
    from torch.distributed.tensor import DTensor

    if tensor.shape != sharded.shape:
        raise SparsifyError(f"a tensor of shape {list(tensor.shape)} is no part of one of shape {list(sharded.shape)}")
    if not isinstance(sharded, DTensor):
        return tensor.to(sharded.device)
    mesh = sharded.device_mesh
    chunks = tensor.chunk(mesh.size(), dim=0)
    rank = mesh.get_local_rank()
    part = chunks[rank] if rank < len(chunks) else tensor[:0]
    held = local(sharded)
    if part.shape != held.shape:
        raise SparsifyError(f"FSDP holds {list(held.shape)} of {list(tensor.shape)} here, expected {list(part.shape)}")
    # A copy, because a view would keep the whole alive.
    return part.to(held.device, copy=True)
