"""Runs calibration text through a decoder one block at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sparsify.activations import MEMORY_BYTES, Activations
from sparsify.blocks import Structure
from sparsify.calibration import TokenBatch
from sparsify.calls import Call, CallBook, call_of, same_content, to_device
from sparsify.errors import SparsifyError
from sparsify.gram import Gram
from sparsify.skeleton import ResidentWeights
from sparsify.usage import give_back
from sparsify.watch import Stop, Watch

_REPLAY_TOLERANCE = 1e-5
_PROBE_TOKENS = 64


class Weights(Protocol):
    """Fills modules with their weights and empties them again (`sparsify.skeleton`)."""

    def load(self, prefix: str, *, own_only: bool = False) -> None:
        """Fill the module called `prefix`."""

    def free(self, prefix: str) -> None:
        """Empty it."""


class BlockStream:
    """The inputs of one block after another, for every batch.

    Capturing all keyword arguments instead of naming them keeps this independent of the transformers release.
    Padding lies on the right and attention is causal, so no real token sees padding and no attention mask is needed.

    Attributes:
        model: The model.
        batches: The text.
        hidden: Per batch the inputs of the next block, float32 [batch, seq, width].
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        batches: Sequence[TokenBatch],
        *,
        device: str = "cpu",
        weights: Weights | None = None,
        spill: Path | None = None,
    ) -> None:
        """Capture the inputs of block 0, and check on a few tokens that the blocks can be run one by one.

        Args:
            model: The model, or its skeleton if `weights` fills it.
            structure: Where its parts are.
            batches: The text.
            device: Where blocks run.
            weights: Where weights come from; by default they are all in `model`.
            spill: File for the activations if they are large.

        Raises:
            SparsifyError: The model does more between its blocks than to pass on their outputs.
        """
        self.model, self._device = model, torch.device(device)
        self._weights: Weights = weights or ResidentWeights()
        self._blocks = [model.get_submodule(name) for name in structure.blocks]
        self._names = structure.blocks
        self.batches = batches
        self._real = [batch.real.to(self._device) for batch in batches]
        self._tuples = False
        self._loaded: int | None = None
        width = int(self.model.get_submodule(structure.embedding).weight.shape[1])  # type: ignore[union-attr,index]
        size = 4 * width * sum(batch.ids.numel() for batch in batches)
        self.hidden = Activations(spill if size > MEMORY_BYTES else None)
        self._calls = CallBook()
        with self._lazily_loaded():
            self._check_replay()
            for batch in batches:
                hidden, calls = self._capture(batch.ids)
                self.hidden.append(hidden)
                self._calls.append(calls)

    def load(self, index: int) -> nn.Module:
        """Block `index` with its weights, on the device."""
        if self._loaded not in (None, index):
            self.release()
        self._weights.load(self._names[index])
        self._loaded = index
        return self._blocks[index].to(self._device)

    def release(self) -> None:
        """Give back the memory of the block that is loaded; what was written to its weights is lost if streamed."""
        if self._loaded is not None:
            self._weights.free(self._names[self._loaded])
            self._blocks[self._loaded]._apply(lambda tensor: tensor if tensor.is_meta else tensor.cpu())
            self._loaded = None
            give_back()

    @torch.no_grad()
    def restart(self) -> None:
        """Go back to the inputs of block 0."""
        self.release()
        with self._lazily_loaded():
            for index, batch in enumerate(self.batches):
                self.hidden[index] = self._capture(batch.ids)[0]

    def close(self) -> None:
        """Give back the memory and the disk that the stream holds."""
        self.release()
        self.hidden.close()

    @torch.no_grad()
    def groups(self, index: int) -> list[tuple[str, ...]]:
        """The linears of block `index`, by name within it, in the order in which they are called.

        Linears that share their input are one group; so are w1 and w3 of all experts, and w2 of all.
        """
        found: dict[tuple[str, ...], Gram] = self._pass(index, range(1), None)
        experts: dict[str, list[str]] = {}
        groups: list[tuple[str, ...]] = []
        for names in found:
            if ".experts." not in names[0]:
                groups.append(names)
                continue
            kind = names[0].rsplit(".", 1)[-1]
            experts.setdefault(kind, []).extend(names)
        return groups + [tuple(names) for names in experts.values()]

    @torch.no_grad()
    def grams(
        self, index: int, only: Collection[str] | None = None, *, batches: range | None = None
    ) -> dict[str, Gram]:
        """Gram matrices of the inputs of block `index`'s linears, by name within the block; shared inputs share one.

        Args:
            index: The block; it stays loaded.
            only: Names of the linears that are wanted; None = all.
            batches: The batches that count; None = all.

        Raises:
            SparsifyError: A linear sees something other than one row per token.
        """
        found = self._pass(index, range(len(self.batches)) if batches is None else batches, only)
        return {name: gram for names, gram in found.items() for name in names}

    @torch.no_grad()
    def advance(self, index: int) -> None:
        """Run block `index` with its present weights; its outputs become the inputs of the next. The block is freed."""
        self.load(index)
        for batch in range(len(self.hidden)):
            self.hidden[batch] = self.run(index, batch).cpu()
        self.release()

    @torch.no_grad()
    def logits(self, batches: range | None = None) -> Iterator[tuple[TokenBatch, Tensor]]:
        """Per batch (of `batches`, or all) what the model says after its last block, float32 [batch, seq, vocabulary].

        Norm and head are applied as the model applies them. All blocks must have been run.
        """
        with self._lazily_loaded():
            for index in batches if batches is not None else range(len(self.batches)):
                batch, hidden = self.batches[index], self.hidden[index]
                with self._replaced(lambda _index, _args, _kwargs, hidden=hidden: hidden):  # type: ignore[misc]
                    output = self.model(input_ids=batch.ids, use_cache=False)
                yield batch, output.logits.float()

    @torch.no_grad()
    def head_gram(self, head: str) -> Gram:
        """The Gram matrix of what the output projection called `head` is given; all blocks must have been run."""
        gram, seen = Gram(), list[Tensor]()
        hook = self.model.get_submodule(head).register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        try:
            for batch, _ in self.logits():
                gram.add(seen.pop(), batch.real)
        finally:
            hook.remove()
        return gram

    def run(self, index: int, batch: int) -> Tensor:
        """What block `index`, which must be loaded, gives for one batch; the stream stays where it is."""
        call = to_device(self._calls.get(batch, index), self._device)
        hidden = self.hidden[batch].to(self._device)
        return _tensor(self._blocks[index](hidden, *call.args, **call.kwargs))

    def arguments(self, index: int, batch: int) -> dict[str, Any]:
        """The keyword arguments that the model gives block `index` for one batch, on the device.

        Raises:
            SparsifyError: It is given more by position than the hidden states.
        """
        call = to_device(self._calls.get(batch, index), self._device)
        if call.args:
            raise SparsifyError(f"{self._names[index]} is called with positional arguments; unsupported")
        return call.kwargs

    def _pass(self, index: int, batches: range, only: Collection[str] | None) -> dict[tuple[str, ...], Gram]:
        block = self.load(index)
        watch = Watch(self._names[index], only)
        with watch.on(block):
            for batch in batches:
                watch.begin(self._real[batch])
                with suppress(Stop):
                    self.run(index, batch)
        return watch.grams()

    @torch.no_grad()
    def _capture(self, ids: Tensor) -> tuple[Tensor, list[Call]]:
        """The input of block 0 and the arguments of every block, without running any."""
        first: list[Tensor] = []
        calls: list[Call] = []

        def skip(index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
            hidden, call = call_of(args, kwargs)
            first.append(hidden)
            calls.append(call)
            if index == len(self._blocks) - 1:
                raise Stop
            return hidden

        with self._replaced(skip), suppress(Stop):
            getattr(self.model, "base_model", self.model)(input_ids=ids, use_cache=False)
        return first[0], calls

    @torch.no_grad()
    def _check_replay(self) -> None:
        """Hold a real forward pass, in which each block is loaded, run and freed, against what the stream assumes.

        It assumes that a block's output is the next one's input, that a block called twice with the same arguments
        answers the same, and that the arguments do not depend on what the blocks before computed.
        """
        longest = max(self.batches, key=lambda batch: int(batch.real.sum(1).max()))
        row = int(longest.real.sum(1).argmax())
        ids = longest.ids[row : row + 1, : min(_PROBE_TOKENS, int(longest.real[row].sum()))]
        calls: list[Call] = []
        last: list[Tensor] = []
        worst = 0.0

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal worst
            hidden, call = call_of(args, kwargs)
            if last:
                worst = max(worst, _difference(hidden, last.pop()))
            self._weights.load(self._names[len(calls)])
            calls.append(call)
            last.append(hidden)

        def after(module: nn.Module, _args: Any, output: Any) -> None:
            nonlocal worst
            self._tuples = isinstance(output, tuple)
            hidden, call = last.pop(), calls[-1]
            again = _tensor(module.forward(hidden, *call.args, **call.kwargs))
            worst = max(worst, _difference(again, _tensor(output)))
            self._weights.free(self._names[len(calls) - 1])
            last.append(_tensor(output))
            if len(calls) == len(self._blocks):
                raise Stop

        hooks = [block.register_forward_pre_hook(before, with_kwargs=True) for block in self._blocks]
        hooks += [block.register_forward_hook(after) for block in self._blocks]
        try:
            with suppress(Stop):
                getattr(self.model, "base_model", self.model)(input_ids=ids, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        _, assumed = self._capture(ids)
        alike = len(calls) == len(assumed) and all(map(same_content, calls, assumed))
        if not alike or not worst <= _REPLAY_TOLERANCE:
            how = f"outputs differ by {worst:.2g}" if alike else "their arguments depend on the blocks before"
            raise SparsifyError(
                f"the blocks of {type(self.model).__name__} cannot be run one by one ({how}); "
                "this architecture is not supported"
            )

    @contextmanager
    def _replaced(self, run: Callable[[int, tuple[Any, ...], dict[str, Any]], Tensor]) -> Iterator[None]:
        """Inside, `run` answers in place of the blocks."""

        def forward(index: int) -> Callable[..., Any]:
            def answer(*args: Any, **kwargs: Any) -> Any:
                hidden = run(index, args, kwargs)
                return (hidden, None) if self._tuples else hidden

            return answer

        for index, block in enumerate(self._blocks):
            block.forward = forward(index)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for block in self._blocks:
                del block.forward

    @contextmanager
    def _lazily_loaded(self) -> Iterator[None]:
        """Inside, modules outside the blocks are filled when they are called; at the end they are freed."""
        inside = {module for block in self._blocks for module in block.modules()}
        hooks: list[Any] = []
        filled: list[str] = []
        for name, module in self.model.named_modules():
            if module not in inside and any(True for _ in module.parameters(recurse=False)):

                def fill(_module: nn.Module, _args: Any, name: str = name) -> None:
                    self._weights.load(name, own_only=True)
                    filled.append(name)

                hooks.append(module.register_forward_pre_hook(fill))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for name in dict.fromkeys(filled):
                self._weights.free(name)


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))


def _tensor(output: Any) -> Tensor:
    # Blocks return a tensor or, before transformers 4.54 and MPT still, a tuple that begins with it.
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor
