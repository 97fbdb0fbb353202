"""The state that an interrupted run continues from: safetensors, with all else as JSON in its header; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsify.errors import CheckpointError
from sparsify.files import commit
from sparsify.train.hooks import Strategy

STATE = "state.safetensors"
BEST = "best.safetensors"  # the weights with the lowest dev loss so far


def collect(
    params: Mapping[str, Tensor], optimizers: Sequence[torch.optim.Optimizer], strategy: Strategy
) -> dict[str, Tensor]:
    """Whole parameters, optimizer state and random state by name; every process must call it."""
    tensors = {f"param.{name}": strategy.whole(param) for name, param in params.items()}
    for index, optimizer in enumerate(optimizers):
        for key, state in optimizer.state_dict()["state"].items():
            for field, value in state.items():
                tensors[f"optimizer.{index}.{key}.{field}"] = strategy.whole(torch.as_tensor(value))
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


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
    for key, value in tensors.items():
        if not key.startswith(prefix):
            continue
        number, field = key[len(prefix) :].split(".", 1)
        param = params[int(number)]
        if value.shape == param.shape:
            # A part of a sharded parameter gets a part of the moment.
            part = torch.zeros_like(param)
            strategy.put(part, value)
            value = part
        loaded["state"].setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(loaded)


def write_state(directory: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any], name: str = STATE) -> None:
    """Replace the state of `directory` by a new one, whole or not at all.

    Args:
        directory: Made if it is missing.
        tensors: See `collect`; may hold more.
        record: JSON values.
        name: Of the file.
    """
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    part = directory / (name + ".part")
    try:
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, part, {"record": json.dumps(record)})
        commit(part, directory / name)
    except BaseException:
        # On a full disk the part is in the way of all else; the state before it stays.
        part.unlink(missing_ok=True)
        raise


def read_state(directory: Path, name: str = STATE) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and the record of the state in `directory`, or None where there is none.

    Raises:
        CheckpointError: It is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / name
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as stream:
            record = json.loads((stream.metadata() or {})["record"])
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove it to train from the start") from None
    return tensors, record
