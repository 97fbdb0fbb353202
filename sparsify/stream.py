"""Runs calibration text through a decoder one block at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.blocks import Structure
from sparsify.calibration import TokenBatch
from sparsify.errors import SparsifyError
from sparsify.gram import Gram

_REPLAY_TOLERANCE = 1e-5


class _Stop(Exception):
    """Ends a forward pass once the first block's input is known."""


@dataclass(frozen=True)
class _Call:
    """The keyword and further positional arguments that the model gives a block."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class BlockStream:
    """The inputs of one block after another, for every batch.

    Capturing all keyword arguments instead of naming them keeps this independent of the transformers release.
    Padding lies on the right and attention is causal, so no real token sees padding and no attention mask is needed.
    """

    def __init__(
        self, model: nn.Module, structure: Structure, batches: Sequence[TokenBatch], *, device: str = "cpu"
    ) -> None:
        """Capture the inputs of block 0 and check on the first batch that the blocks can be replayed.

        Raises:
            SparsifyError: Replaying the blocks does not give what the model gives.
        """
        self._model, self._device = model, torch.device(device)
        self._blocks = [model.get_submodule(name) for name in structure.blocks]
        self._names = structure.blocks
        self._real = [batch.real.to(self._device) for batch in batches]
        first, calls, output = self._capture(batches[0], every_block=True)
        self._check_replay(first, calls, output)
        # One template serves all blocks unless the model gives them different arguments (sliding and full attention).
        uniform = all(_same(calls[0], call) for call in calls[1:])
        self.hidden = [first]
        self._calls = [calls]
        for batch in batches[1:]:
            hidden, calls, _ = self._capture(batch, every_block=not uniform)
            self.hidden.append(hidden)
            self._calls.append(calls if not uniform else calls * len(self._blocks))

    @torch.no_grad()
    def grams(self, index: int) -> dict[str, Gram]:
        """Gram matrices of the inputs of block `index`'s linears, by name within the block; shared inputs share one.

        Raises:
            SparsifyError: A linear sees something other than one row per token.
        """
        block = self._blocks[index].to(self._device)
        grams: dict[tuple[str, ...], Gram] = {}
        linears = [(name, module) for name, module in block.named_modules() if isinstance(module, nn.Linear)]
        for batch, real in enumerate(self._real):
            seen: list[tuple[Tensor, list[str]]] = []
            hooks = [module.register_forward_pre_hook(_recorder(seen, name)) for name, module in linears]
            try:
                self._run(index, batch)
            finally:
                for hook in hooks:
                    hook.remove()
            for inputs, names in seen:
                if inputs.shape[:-1] != real.shape:
                    where = f"{self._names[index]}.{names[0]}"
                    raise SparsifyError(
                        f"{where} sees inputs {tuple(inputs.shape)}, not one row per token; unsupported"
                    )
                grams.setdefault(tuple(names), Gram()).add(inputs, real)
        return {name: gram for names, gram in grams.items() for name in names}

    @torch.no_grad()
    def advance(self, index: int) -> None:
        """Run block `index` with its present weights; its outputs become the inputs of the next."""
        self._blocks[index].to(self._device)
        for batch in range(len(self.hidden)):
            self.hidden[batch] = self._run(index, batch).to(self.hidden[batch].device)
        self._blocks[index].to("cpu")

    def _run(self, index: int, batch: int) -> Tensor:
        call = self._calls[batch][index]
        hidden = self.hidden[batch].to(self._device)
        return _tensor(self._blocks[index](hidden, *_to(call.args, self._device), **_to(call.kwargs, self._device)))

    @torch.no_grad()
    def _capture(self, batch: TokenBatch, *, every_block: bool) -> tuple[Tensor, list[_Call], Tensor | None]:
        inputs: list[Tensor] = []
        calls: list[_Call] = []
        outputs: list[Tensor] = []

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rest = dict(kwargs)
            hidden = args[0] if args else rest.pop("hidden_states")
            if not inputs:
                inputs.append(hidden)
            calls.append(_Call(tuple(args[1:]), rest))
            if not every_block:
                raise _Stop

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            outputs.append(_tensor(output))

        hooks = [block.register_forward_pre_hook(before, with_kwargs=True) for block in self._blocks]
        hooks.append(self._blocks[-1].register_forward_hook(after))
        base = getattr(self._model, "base_model", self._model)
        try:
            base(input_ids=batch.ids, use_cache=False)
        except _Stop:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return inputs[0], calls, outputs[0] if outputs else None

    @torch.no_grad()
    def _check_replay(self, hidden: Tensor, calls: Sequence[_Call], expected: Tensor | None) -> None:
        replayed = hidden
        for block, call in zip(self._blocks, calls, strict=True):
            replayed = _tensor(block(replayed, *call.args, **call.kwargs))
        assert expected is not None
        worst = float((replayed - expected).abs().max())
        if not worst <= _REPLAY_TOLERANCE * max(1.0, float(expected.abs().max())):
            raise SparsifyError(
                f"the blocks of {type(self._model).__name__} cannot be run one by one (outputs differ by {worst:.2g}); "
                "this architecture is not supported"
            )


def _recorder(seen: list[tuple[Tensor, list[str]]], name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def record(_module: nn.Module, args: tuple[Any, ...]) -> None:
        for inputs, names in seen:
            if inputs is args[0]:
                names.append(name)
                return
        seen.append((args[0], [name]))

    return record


def _tensor(output: Any) -> Tensor:
    # Blocks return a tensor; before transformers 4.54 they returned a tuple that begins with it.
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        return type(value)(_to(item, device) for item in value)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    return value


def _same(one: _Call, other: _Call) -> bool:
    return _same_value(one.args, other.args) and _same_value(one.kwargs, other.kwargs)


def _same_value(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(_same_value(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_value(one[key], other[key]) for key in one)
    # Tensors count as the same only by identity: comparing values would cost more than capturing them again.
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(one == other)
