"""Where training can be spread over processes or narrowed to adapters; the default is one process and all weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from sparsify.train.batches import Batch


class Strategy(Protocol):
    """How one training run is spread over processes.

    The losses of a process are its own sums divided by the totals of all processes (`total`), so gradients are to be
    summed over processes, not averaged.
    """

    @property
    def main(self) -> bool:
        """Whether this process writes files and tells progress."""

    def place(self, model: nn.Module, device: str) -> nn.Module:
        """Move and wrap the model; its parameters are taken after this."""

    def shard(self, name: str, mask: Tensor, param: Tensor) -> Tensor:
        """The part of a mask, bool [out, in], that belongs to this process's part of a weight."""

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch."""

    def total(self, value: Tensor) -> Tensor:
        """Sum of `value` over all processes; carries no gradient."""

    def clip(self, params: Iterable[Tensor], limit: float) -> Tensor:
        """Clip the norm of all gradients together to `limit` and return what it was."""

    def whole(self, tensor: Tensor) -> Tensor:
        """The whole of a parameter or of a moment, on the CPU; every process must call it."""

    def put(self, target: Tensor, whole: Tensor) -> None:
        """Copy the whole of a tensor into this process's part of it."""


class Single:
    """One process."""

    main = True

    def place(self, model: nn.Module, device: str) -> nn.Module:
        """Move the model."""
        return model.to(device)

    def shard(self, name: str, mask: Tensor, param: Tensor) -> Tensor:
        """All of the mask."""
        return mask.to(param.device)

    def share(self, batch: Batch) -> Batch:
        """All rows."""
        return batch

    def total(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value.detach()

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


class Adapter(Protocol):
    """Trains few added weights in place of the model's own, as LoRA does."""

    def attach(self, model: nn.Module) -> nn.Module:
        """Add the weights to a loaded model and leave only them to require a gradient."""

    def merge(self, model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        """Fold the added weights into the model's own and return it as it was loaded.

        Args:
            model: What `attach` returned, trained.
            masks: By weight name the kept places, bool [out, in]; pruned places must be zero in the result.

        Raises:
            SparsifyError: The folded weights would fill pruned places.
        """
