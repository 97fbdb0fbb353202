"""Where training can be spread over processes or narrowed to adapters; by default it is `Single` and has no adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sparsify.slicegpt import register_for
from sparsify.train.batches import Batch

# Told a module whose weights were just read, and its name in the model ("" for the model itself): says what trains.
Prepare = Callable[[nn.Module, str], None]


class Strategy(Protocol):
    """How one training run is spread over processes.

    The losses of a process are its own sums divided by the totals of all processes (`total`), so gradients are to be
    summed over processes, not averaged. Where a method says so, every process must call it in the same place.
    """

    @property
    def main(self) -> bool:
        """Whether this process writes files and tells progress."""

    @property
    def spread(self) -> bool:
        """Whether there are several processes."""

    def load(self, model_dir: Path, device: str, dtype: torch.dtype, prepare: Prepare) -> nn.Module:
        """Load a model onto the device; its parameters are taken after this.

        `prepare` is called before parts of it are placed: with the whole model, or with each block and then the model.
        """

    def run(self, model: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)`, with the weights at hand that it uses; every process must call it."""

    def backward(self, loss: Tensor) -> None:
        """Add this process's share of the gradients; every process must call it."""

    def reseed(self, seed: int, step: int) -> None:
        """Begin a step: what dropout draws in it may follow from these alone."""

    def shard(self, name: str, mask: Tensor, param: Tensor) -> Tensor:
        """The part of a mask, bool [out, in], that belongs to this process's part of a weight."""

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch; all processes get the same number of rows."""

    def total(self, value: Tensor) -> Tensor:
        """Sum of `value` over all processes; carries no gradient; every process must call it."""

    def agree(self, answer: bool) -> bool:
        """What the main process answers, for what depends on a clock; every process must call it."""

    def clip(self, params: Iterable[Tensor], limit: float) -> Tensor:
        """Clip the norm of all gradients together to `limit` and return what it was; every process must call it."""

    def whole(self, tensor: Tensor) -> Tensor:
        """The whole of a parameter or of a moment, on the CPU; every process must call it.

        Only the main process needs the values; others may get an empty tensor.
        """

    def put(self, target: Tensor, whole: Tensor) -> None:
        """Copy the whole of a tensor into this process's part of it."""

    def gathered(self, model: nn.Module, ordinary: Callable[[], nn.Module]) -> nn.Module | None:
        """The trained model as one process holds it, ready to be saved; every process must call it.

        Args:
            model: What `load` returned, trained.
            ordinary: Loads the same model again on the CPU, prepared alike.

        Returns:
            None where this process is not the main one.
        """


class Single:
    """One process."""

    main = True
    spread = False

    def load(self, model_dir: Path, device: str, dtype: torch.dtype, prepare: Prepare) -> nn.Module:
        """Load by transformers."""
        from transformers import AutoModelForCausalLM

        register_for(model_dir)
        model: nn.Module = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype)
        prepare(model, "")
        return model.to(device)

    def run(self, model: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
        """Call it."""
        return function(model, *args)

    def backward(self, loss: Tensor) -> None:
        """Backward."""
        loss.backward()  # type: ignore[no-untyped-call]

    def reseed(self, seed: int, step: int) -> None:
        """Nothing: the random state runs on, and is part of the saved state."""

    def shard(self, name: str, mask: Tensor, param: Tensor) -> Tensor:
        """All of the mask."""
        return mask.to(param.device)

    def share(self, batch: Batch) -> Batch:
        """All rows."""
        return batch

    def total(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value.detach()

    def agree(self, answer: bool) -> bool:
        """The answer itself."""
        return answer

    def clip(self, params: Iterable[Tensor], limit: float) -> Tensor:
        """Clip by torch's own function."""
        return torch.nn.utils.clip_grad_norm_(list(params), limit)

    def whole(self, tensor: Tensor) -> Tensor:
        """The tensor."""
        return tensor.detach().cpu()

    @torch.no_grad()
    def put(self, target: Tensor, whole: Tensor) -> None:
        """Copy."""
        target.copy_(whole)

    def gathered(self, model: nn.Module, ordinary: Callable[[], nn.Module]) -> nn.Module | None:
        """The model itself."""
        return model


class Adapter(Protocol):
    """Trains few added weights in place of the model's own, as LoRA does."""

    def attach(self, module: nn.Module, name: str) -> None:
        """Add the weights to a loaded model (or to its block `name`, if that is not empty); only they then train."""

    def merge(self, model: nn.Module, masks: Mapping[str, Tensor], stored: torch.dtype) -> dict[str, Any]:
        """Fold the added weights into the model's own and remove them, in place; returns what that cost, as JSON.

        Args:
            model: What `attach` was given, trained.
            masks: By weight name the kept places, bool [out, in]; pruned places must be zero in the result.
            stored: Dtype in which the weights will be stored.
        """
