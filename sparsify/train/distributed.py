"""One training run over several processes: weights, gradients, moments and masks sharded with FSDP2.

`torch.distributed.fsdp.fully_shard` (Zhao et al. 2023, arXiv 2304.11277, in its second form) keeps of every parameter
the rows of one process: chunk `rank` of `torch.chunk(parameter, size)`. Blocks gather their weights when they run. Each
function here is the identity, or what one process does anyway, when there is only one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from sparsify.blocks import find_structure, load_skeleton
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import SparsifyError
from sparsify.skeleton import StreamedWeights


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: Which one this is, from 0; rank 0 writes the files.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, without gradient; every process must call it in the same place."""
        total = tensor.detach().clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def share(self, items: Sequence[Any]) -> list[Any]:
        """This process's part of the sequences of a step: every `size`-th, so that lengths are spread evenly.

        A process gets an empty list where there are fewer items than processes.
        """
        return list(items[self.rank :: self.size])

    def most(self, items: Sequence[Any]) -> int:
        """How many of `items` the process with the most of them gets from `share`."""
        return -(-len(items) // self.size)


def current_world(device: str = "cpu") -> World:
    """The processes that `torch.distributed` was started with, or this one alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return World(device=torch.device(device))
    return World(dist.get_rank(), dist.get_world_size(), process_device(device))


def process_device(device: str) -> torch.device:
    """The device of this process: of several GPUs, the one that its local rank numbers.

    Raises:
        SparsifyError: There are fewer GPUs than processes on this machine.
    """
    if device != "cuda":
        return torch.device(device)
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise SparsifyError(
            f"{index + 1} processes on this machine, but {torch.cuda.device_count()} GPUs; start fewer "
            "(--nproc-per-node of torchrun)"
        )
    return torch.device("cuda", index)


def local(tensor: Tensor) -> Tensor:
    """The part of a parameter, gradient or moment that this process holds: it shares the storage, without gradient."""
    from torch.distributed.tensor import DTensor

    detached = tensor.detach()
    return detached.to_local() if isinstance(detached, DTensor) else detached


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, on its device; every process must call it in the same place."""
    from torch.distributed.tensor import DTensor

    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def part_like(tensor: Tensor, sharded: Tensor) -> Tensor:
    """The rows of `tensor` that belong to this process, on the device and by the layout of `sharded`.

    Args:
        tensor: A mask, weight or moment of the whole shape, any dtype.
        sharded: The parameter that it belongs to.

    Raises:
        SparsifyError: The shapes differ.
    """
    from torch.distributed.tensor import DTensor

    if tensor.shape != sharded.shape:
        raise SparsifyError(f"a tensor of shape {list(tensor.shape)} is no part of one of shape {list(sharded.shape)}")
    if not isinstance(sharded, DTensor):
        return tensor.to(sharded.device)
    held, mesh = local(sharded), sharded.device_mesh
    chunks = tensor.chunk(mesh.size(), dim=0)
    rank = mesh.get_local_rank()
    part = chunks[rank] if rank < len(chunks) else tensor[:0]
    if part.shape != held.shape:
        raise SparsifyError(f"FSDP holds {list(held.shape)} of {list(tensor.shape)} here, expected {list(part.shape)}")
    # A clone, because a view would keep the whole alive.
    return part.to(held.device, copy=True)


@torch.no_grad()
def assign(sharded: Tensor, tensor: Tensor) -> None:
    """Copy the whole `tensor` into a parameter or moment, of which this process may hold only a part."""
    local(sharded).copy_(part_like(tensor, sharded))


@torch.no_grad()
def clip_gradients(params: Iterable[Tensor], limit: float, world: World) -> float:
    """Scale gradients so that their norm over all parameters and processes is at most `limit`; returns the norm.

    As `torch.nn.utils.clip_grad_norm_`, which leaves the norm of a sharded model as an unreduced DTensor.
    """
    grads = [local(p.grad) for p in params if p.grad is not None]
    norms = [torch.linalg.vector_norm(grad, dtype=torch.float32) for grad in grads if grad.numel()]
    square = torch.stack(norms).square().sum() if norms else torch.zeros((), device=world.device)
    norm = world.sum(square).sqrt()
    factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
    for grad in grads:
        grad.mul_(factor)
    return float(norm)


def load_sharded(model_dir: Path, world: World, prepare: Callable[[nn.Module, str], None] | None = None) -> nn.Module:
    """Load a model in float32 with every process keeping its rows only.

    Blocks are read, prepared and sharded one after the other, so that a process never holds more than its share and one
    block (then the embedding and the head). Gradients are averaged over processes.

    Args:
        model_dir: A Hugging Face directory that every process can read.
        world: Of several processes.
        prepare: Called with every block after it was read, and its name; then with the model and "". It says what is
            trainable: without it, nothing is. It may add parameters to blocks.

    Raises:
        CheckpointError: The directory cannot be used.
        SparsifyError: The model is no stack of blocks.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    model = load_skeleton(model_dir)
    weights = StreamedWeights(model, open_checkpoint(model_dir))
    for name in find_structure(model, strict=False).blocks:
        weights.load(name)
        block = model.get_submodule(name)
        if prepare is not None:
            prepare(block, name)
        fully_shard(block, mesh=mesh)
    weights.load("")
    if prepare is not None:
        prepare(model, "")
    root: Any = fully_shard(model, mesh=mesh)
    return root


def as_forward(model: nn.Module, name: str) -> None:
    """Let method `name` of a sharded model gather the weights outside the blocks, as its forward does."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    register_fsdp_forward_method(model, name)


@torch.no_grad()
def gather(source: nn.Module, target: nn.Module | None) -> None:
    """Copy the trainable parameters of a sharded model into an ordinary one.

    Args:
        source: The sharded model; every process must call this.
        target: A model with parameters of the same names, on the CPU; None where this process needs none.
    """
    into: Mapping[str, Tensor] = {} if target is None else dict(target.named_parameters())
    for name, param in source.named_parameters():
        if param.requires_grad:
            full = whole(param)
            if target is not None:
                into[name].copy_(full)
