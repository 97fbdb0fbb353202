"""Several processes that make one variant together: rank 0 leads, the others join it in the stages that train.

`torchrun` (or `accelerate launch`) starts the same command many times and tells each process its rank in the
environment. Rank 0 runs the recipe as it would alone. Before a stage that trains, it tells the others which one (as
JSON), and all run it with `Sharded`; in between they wait.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from sparsify.train.hooks import Strategy

# Waiting for rank 0 to prune a large model takes hours, and is no sign of a fault.
_PATIENCE = timedelta(days=30)
_control: ProcessGroup | None = None


def launched() -> bool:
    """Whether this process is one of several that torchrun or accelerate started; imports nothing heavy."""
    return int(os.environ.get("WORLD_SIZE") or "1") > 1


@contextmanager
def crew(device: str) -> Iterator[bool]:
    """Join the other processes; inside, the value says whether this process leads (rank 0).

    The leader's end releases the followers from `follow`. After an error it does not: the launcher ends them.

    Args:
        device: `cpu` or `cuda`; decides what carries the tensors.

    Raises:
        SparsifyError: There are fewer GPUs than processes on this machine.
    """
    import torch
    from torch import distributed as dist

    from sparsify.train.distributed import process_device

    global _control
    own = process_device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo", device_id=own if own.type == "cuda" else None)
    _control = dist.new_group(backend="gloo", timeout=_PATIENCE)
    yield dist.get_rank() == 0
    # Not after an error: others may wait in the midst of an exchange, and taking leave of them would wait for them.
    if dist.get_rank() == 0:
        announce(None)
    _control = None
    dist.destroy_process_group()


def announce(task: Mapping[str, Any] | None) -> None:
    """Tell the followers what to do next (JSON values), or that all is done; does nothing where there are none."""
    import torch
    from torch import distributed as dist

    if _control is None:
        return
    text = json.dumps(task).encode()
    size = torch.tensor(len(text))
    dist.broadcast(size, src=0, group=_control)
    dist.broadcast(torch.frombuffer(bytearray(text), dtype=torch.uint8), src=0, group=_control)


def follow(run: Callable[[Mapping[str, Any]], None]) -> None:
    """Do what rank 0 announces, until it says that all is done.

    Raises:
        SparsifyError: Rank 0 ended before that.
    """
    task = _hear()
    while task is not None:
        run(task)
        task = _hear()


def _hear() -> Any:
    import torch
    from torch import distributed as dist

    from sparsify.errors import SparsifyError

    try:
        size = torch.tensor(0)
        dist.broadcast(size, src=0, group=_control)
        text = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(text, src=0, group=_control)
    except RuntimeError:
        raise SparsifyError("rank 0 ended before its work was done; its own message says why") from None
    return json.loads(bytes(text.tolist()))


def strategy_for(device: str) -> tuple[Strategy, str]:
    """How a stage is trained here, and on which device: over the processes of `crew`, or by this one alone."""
    from torch import distributed as dist

    from sparsify.train.distributed import Sharded, process_device
    from sparsify.train.hooks import Single

    if _control is None:
        return Single(), device
    own = process_device(device)
    return Sharded(dist.get_rank(), dist.get_world_size(), own), str(own)
