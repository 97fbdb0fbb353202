"""What a model hands to its blocks beside the hidden states: captured once, kept once, given again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """The keyword and further positional arguments that the model gives a block."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def call_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Call]:
    """The hidden states that a block was called with, and everything else."""
    rest = dict(kwargs)
    hidden: Tensor = args[0] if args else rest.pop("hidden_states")
    return hidden, Call(tuple(args[1:]), rest)


def to_device(call: Call, device: torch.device) -> Call:
    """The call with its tensors on `device`."""
    return Call(_moved(call.args, device), _moved(call.kwargs, device))


def same_content(one: Any, other: Any) -> bool:
    """Whether two calls, or arguments, have equal values."""
    if one is other:
        return True
    if isinstance(one, Call) and isinstance(other, Call):
        return same_content(one.args, other.args) and same_content(one.kwargs, other.kwargs)
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        alike = isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype
        return alike and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(same_content, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_content(one[key], other[key]) for key in one)
    return bool(one == other)


class CallBook:
    """The calls of every block for every batch; equal tensors are kept once.

    Most models give all blocks the same arguments, and batches of one shape the same positions and masks.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._calls: list[list[Call]] = []
        self._known: dict[tuple[torch.dtype, torch.Size], list[Tensor]] = {}

    def append(self, calls: Sequence[Call]) -> None:
        """Add the calls of the blocks for the next batch."""
        same: dict[int, Tensor] = {}
        self._calls.append([Call(self._interned(call.args, same), self._interned(call.kwargs, same)) for call in calls])

    def get(self, batch: int, block: int) -> Call:
        """The call of a block for a batch."""
        return self._calls[batch][block]

    def _interned(self, value: Any, same: dict[int, Tensor]) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in same:
                known = self._known.setdefault((value.dtype, value.shape), [])
                found = next((tensor for tensor in known if torch.equal(tensor, value)), None)
                if found is None:
                    known.append(value)
                same[id(value)] = value if found is None else found
            return same[id(value)]
        if isinstance(value, (tuple, list)):
            return type(value)(self._interned(item, same) for item in value)
        if isinstance(value, dict):
            return {key: self._interned(item, same) for key, item in value.items()}
        return value


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        return type(value)(_moved(item, device) for item in value)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    return value
