"""One training run over several processes: weights, gradients, moments and masks sharded with FSDP2.

`torch.distributed.fsdp.fully_shard` (the second form of Zhao et al. 2023, arXiv 2304.11277) keeps of every parameter
the rows of one process: chunk `rank` of `torch.chunk(parameter, size)`. Blocks gather their weights when they run, and
scatter the sum of their gradients. Files hold whole tensors, so that a run can go on with another number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
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
from sparsify.train.batches import Batch
from sparsify.train.held import local
from sparsify.train.hooks import Prepare
from sparsify.train.sharding import gather, rows_of

_SEEDS = 1 << 20  # more steps than a run takes


@dataclass(frozen=True)
class Sharded:
    """The processes of `torch.distributed`, each with its rows of every parameter; a `Strategy`.

    Attributes:
        rank: Which process this one is, from 0.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes files and tells progress."""
        return self.rank == 0

    @property
    def spread(self) -> bool:
        """There are several processes."""
        return True

    def load(self, model_dir: Path, device: str, dtype: torch.dtype, prepare: Prepare) -> nn.Module:
        """Read, prepare and shard one block after the other, then the rest.

        A process never holds more than its share and one block (or the embedding and the head).

        Raises:
            CheckpointError: The directory cannot be used.
            SparsifyError: The model is no stack of blocks.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh = init_device_mesh(self.device.type, (self.size,))
        model = load_skeleton(model_dir)
        weights = StreamedWeights(model, open_checkpoint(model_dir))
        for name in (*find_structure(model, strict=False).blocks, ""):
            weights.load(name)
            part = model.get_submodule(name)
            for param in part.parameters():
                if type(param) is nn.Parameter:  # not yet sharded
                    param.data = param.data.to(dtype)
                    param.requires_grad_(True)
            prepare(part, name)
            fully_shard(part, mesh=mesh)
        # Only what runs as a forward of the whole gathers the weights outside the blocks.
        model.run = lambda function, *args: function(model, *args)
        register_fsdp_forward_method(model, "run")
        return model

    def run(self, model: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
        """Call it as a forward of the whole model."""
        return model.run(function, *args)  # type: ignore[operator]

    def backward(self, loss: Tensor) -> None:
        """FSDP averages gradients over processes; here they are summed."""
        (loss * self.size).backward()  # type: ignore[no-untyped-call]

    def reseed(self, seed: int, step: int) -> None:
        """Seed by step and process: processes drop other places, and a resumed run drops the same ones again."""
        torch.manual_seed((seed * _SEEDS + step) * self.size + self.rank)

    def shard(self, name: str, mask: Tensor, param: Tensor) -> Tensor:
        """The mask's rows of this process."""
        return rows_of(mask, param)

    def share(self, batch: Batch) -> Batch:
        """Every `size`-th row, so that lengths are spread evenly; rows of padding where there are none left."""
        count = -(-len(batch.ids) // self.size)

        def pick(tensor: Tensor) -> Tensor:
            rows = tensor[self.rank :: self.size]
            return torch.nn.functional.pad(rows, (0, 0, 0, count - len(rows)))

        positions = None if batch.positions is None else pick(batch.positions)
        return Batch(pick(batch.ids), pick(batch.real), pick(batch.target), positions)

    def total(self, value: Tensor) -> Tensor:
        """All-reduce."""
        found = value.detach().clone()
        dist.all_reduce(found)
        return found

    def agree(self, answer: bool) -> bool:
        """All-reduce of the main process's answer."""
        return bool(self.total(torch.tensor(float(answer and self.main), device=self.device)))

    @torch.no_grad()
    def clip(self, params: Iterable[Tensor], limit: float) -> Tensor:
        """As `torch.nn.utils.clip_grad_norm_`, with the norm over the rows of all processes."""
        grads = [local(param.grad) for param in params if param.grad is not None]
        squares = [torch.linalg.vector_norm(grad, dtype=torch.float32).square() for grad in grads if grad.numel()]
        norm = self.total(sum(squares, torch.zeros((), device=self.device))).sqrt()
        factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
        for grad in grads:
            grad.mul_(factor)
        return norm

    def whole(self, tensor: Tensor) -> Tensor:
        """Gather; on processes other than the main one the result is thrown away."""
        full = gather(tensor)
        return full.cpu() if self.main else full.new_empty(0, device="cpu")

    @torch.no_grad()
    def put(self, target: Tensor, whole: Tensor) -> None:
        """Copy this process's rows."""
        local(target).copy_(rows_of(whole, target))

    @torch.no_grad()
    def gathered(self, model: nn.Module, ordinary: Callable[[], nn.Module]) -> nn.Module | None:
        """Load the model once more on the main process, and copy what was trained into it, one parameter at a time."""
        target = ordinary() if self.main else None
        into = {} if target is None else dict(target.named_parameters())
        for name, param in model.named_parameters():
            if param.requires_grad:
                full = gather(param)
                if self.main:
                    into[name].copy_(full)
        return target


def process_device(device: str) -> torch.device:
    """The device of this process: of several GPUs, the one that its local rank numbers.

    Raises:
        SparsifyError: There are fewer GPUs than processes on this machine.
    """
    if device.split(":")[0] != "cuda":
        return torch.device(device)
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise SparsifyError(f"process {index + 1} on this machine has no GPU of its own ({count} there); start fewer")
    return torch.device("cuda", index)
