"""The state that an interrupted run continues from: safetensors, with all else as JSON in its header; no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsify.errors import CheckpointError
from sparsify.shards import Pending, TensorRef, in_layout, read_header_and_metadata, read_tensor, write_pending
from sparsify.train.hooks import Strategy

STATE = "state.safetensors"
BEST = "best.safetensors"  # the weights with the lowest dev loss so far


def collect(
    params: Mapping[str, Tensor], optimizers: Sequence[torch.optim.Optimizer], strategy: Strategy
) -> list[Pending]:
    """Whole parameters, optimizer state and random state, each gathered when it is written."""
    found = [_pending(f"param.{name}", param, strategy) for name, param in params.items()]
    for index, optimizer in enumerate(optimizers):
        for key, state in optimizer.state_dict()["state"].items():
            found += [
                _pending(f"optimizer.{index}.{key}.{field}", torch.as_tensor(value), strategy)
                for field, value in state.items()
            ]
    found.append(known("rng.cpu", torch.get_rng_state()))
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found.append(known("rng.cuda", torch.cuda.get_rng_state()))
    return found


def known(name: str, tensor: Tensor) -> Pending:
    """A tensor that is at hand."""
    return Pending(name, tuple(tensor.shape), tensor.dtype, lambda: tensor)


def _pending(name: str, tensor: Tensor, strategy: Strategy) -> Pending:
    return Pending(name, tuple(tensor.shape), tensor.dtype, lambda: strategy.whole(tensor))


def restore(
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    strategy: Strategy,
) -> None:
    """The inverse of `collect`."""
    for name, param in params.items():
        strategy.put(param, tensors[f"param.{name}"])
    for index, optimizer in enumerate(optimizers):
        _restore_optimizer(optimizer, f"optimizer.{index}.", tensors, strategy)
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor], strategy: Strategy
) -> None:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    loaded = optimizer.state_dict()
    for key in tensors:
        if not key.startswith(prefix):
            continue
        value = tensors[key]
        number, field = key[len(prefix) :].split(".", 1)
        param = params[int(number)]
        if value.shape == param.shape:
            # A part of a sharded parameter gets a part of the moment.
            part = torch.zeros_like(param)
            strategy.put(part, value)
            value = part
        loaded["state"].setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(loaded)


def write_state(path: Path, tensors: Sequence[Pending], record: Mapping[str, Any], strategy: Strategy) -> None:
    """Replace a file of state by a new one, whole or not at all; one tensor at a time is in memory.

    Every process must call it. The main one writes; the others help to gather, and go on when the file is complete.

    Args:
        path: The file; its directory is made if it is missing.
        tensors: See `collect`; may be more.
        record: JSON values.
        strategy: Of the run.
    """
    ordered = in_layout(tensors)
    if strategy.main:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pending(path, ordered, {"record": json.dumps(record)})
    else:
        for one in ordered:
            one.make()
    strategy.agree(True)


class _Stored(Mapping[str, Tensor]):
    """The tensors of a file, each read when it is asked for."""

    def __init__(self, refs: Mapping[str, TensorRef]) -> None:
        self._refs = refs

    def __getitem__(self, name: str) -> Tensor:
        return read_tensor(self._refs[name], name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)


def read_state(path: Path) -> tuple[Mapping[str, Tensor], dict[str, Any]] | None:
    """The tensors and the record of a file of state, or None where there is none; tensors are read when asked for.

    Raises:
        CheckpointError: It is damaged.
    """
    if not path.exists():
        return None
    try:
        refs, metadata = read_header_and_metadata(path)
        record = json.loads(metadata["record"])
    except (CheckpointError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove it to train from the start") from None
    return _Stored(refs), record
