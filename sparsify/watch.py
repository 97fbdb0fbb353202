"""Watches what the linears of a block are given while it runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from sparsify.errors import SparsifyError
from sparsify.experts import expert_inputs, is_experts, virtual_linears
from sparsify.gram import Gram


class Stop(Exception):
    """Ends a forward pass once all that is wanted is known."""


class Watch:
    """Sums the inputs of a block's linears over forward passes; each input is added when it is seen, and not kept."""

    def __init__(self, block: str, only: Collection[str] | None) -> None:
        """Watch the linears `only` (names within the block called `block`) or all."""
        self._block, self._only = block, only
        self._sums: dict[str, Gram] = {}
        self._sharing: dict[str, list[str]] = {}
        self._seen: list[tuple[weakref.ref[Tensor], str]] = []

    def begin(self, real: Tensor) -> None:
        """Prepare for a forward pass over tokens of which `real` [batch, seq] marks the real ones."""
        self._real, self._left = real, None if self._only is None else set(self._only)
        self._seen = []

    def grams(self) -> dict[tuple[str, ...], Gram]:
        """The sums by the linears that shared an input, in the order in which they were called.

        Raises:
            SparsifyError: Linears shared their input in some passes only.
        """
        named = [name for names in self._sharing.values() for name in names]
        if len(set(named)) != len(named):
            raise SparsifyError(f"linears of {self._block} change inputs from batch to batch; unsupported")
        return {tuple(names): self._sums[first] for first, names in self._sharing.items()}

    @contextmanager
    def on(self, block: nn.Module) -> Iterator[None]:
        """Inside, the linears of `block` are watched."""
        hooks = []
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear) and self._wanted(name):
                hooks.append(module.register_forward_pre_hook(self._linear(name)))
            elif is_experts(module) and any(map(self._wanted, virtual_linears(name, module))):
                hooks.append(module.register_forward_pre_hook(self._of_experts(name)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _wanted(self, name: str) -> bool:
        return self._only is None or name in self._only

    def _add(self, names: Sequence[str], rows: Tensor, real: Tensor) -> None:
        self._sharing.setdefault(names[0], list(names))
        self._sums.setdefault(names[0], Gram()).add(rows, real)

    def _linear(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def record(_module: nn.Module, args: tuple[Any, ...]) -> None:
            inputs: Tensor = args[0]
            first = next((first for known, first in self._seen if known() is inputs), None)
            if first is None:
                self._seen.append((weakref.ref(inputs), name))
                self._add([name], self._rows(name, inputs), self._real)
            elif name not in self._sharing[first]:
                self._sharing[first].append(name)
            self._stop_if_all({name})

        return record

    def _rows(self, name: str, inputs: Tensor) -> Tensor:
        # Some models (OPT) flatten batch and sequence for their MLP.
        if inputs.ndim == 2 and inputs.shape[0] == self._real.numel():
            return inputs.view(*self._real.shape, -1)
        if inputs.shape[:-1] != self._real.shape:
            raise SparsifyError(
                f"{self._block}.{name} sees inputs {tuple(inputs.shape)}, not one row per token; unsupported"
            )
        return inputs

    def _of_experts(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def record(module: nn.Module, args: tuple[Any, ...]) -> None:
            hidden, chosen = args[0].reshape(-1, args[0].shape[-1]), args[1].reshape(self._real.numel(), -1)
            names = virtual_linears(name, module)
            real = self._real.reshape(-1)
            for expert, tokens, inputs, inner in expert_inputs(module, hidden, chosen):
                w1, w2, w3 = names[3 * expert : 3 * expert + 3]
                kept = real[tokens][None]
                if self._wanted(w1) or self._wanted(w3):
                    self._add((w1, w3), inputs[None], kept)
                if self._wanted(w2):
                    self._add((w2,), inner[None], kept)
            self._stop_if_all(set(names))

        return record

    def _stop_if_all(self, names: set[str]) -> None:
        if self._left is not None:
            self._left -= names
            if not self._left:
                raise Stop
