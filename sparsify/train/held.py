"""Masks that hold while training runs: gradients, weights and moments of pruned places are zero after every step.

Kurtic et al. 2023 (arXiv 2310.06927) multiply the weights by their mask after each optimizer step. That alone leaves
AdamW moments on pruned places alive, and lets their gradients into a clipped norm. Here the gradient is zeroed where it
is accumulated, so that clipping, the moments and weight decay all see zeros; the weights are zeroed after the step as
well, because an update may be dense where the gradient was sparse (Muon orthogonalises it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError


class HeldMasks:
    """The pruned places of a model in training.

    Works on the local part of sharded parameters, given masks that are sharded alike (`Strategy.shard`).

    Attributes:
        counts: Pruned places and all places of the masked weights, of this process's part.
    """

    def __init__(self, params: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        """Hold `masks` (by weight name, bool of the local shape, True where kept) on `params`.

        Raises:
            SparsifyError: A mask fits no weight: it belongs to another model.
        """
        self._params: dict[str, Tensor] = {}
        self._pruned: dict[str, Tensor] = {}
        for name, mask in masks.items():
            if name not in params or local(params[name]).shape != mask.shape:
                found = tuple(local(params[name]).shape) if name in params else "no such weight"
                raise SparsifyError(
                    f"mask for {name} fits no weight of this model ({tuple(mask.shape)} against {found}); "
                    "make the masks again from this very model"
                )
            self._params[name] = params[name]
            self._pruned[name] = ~mask.to(torch.bool)
            if params[name].requires_grad:
                params[name].register_post_accumulate_grad_hook(self._hook(name))
        self._count()

    def __len__(self) -> int:
        """How many weights have a mask."""
        return len(self._pruned)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the weights that have a mask."""
        return tuple(self._pruned)

    def kept(self, name: str) -> Tensor:
        """The mask of a weight as it is now, bool, True where kept."""
        return ~self._pruned[name]

    def _count(self) -> None:
        self.counts = (
            sum(int(pruned.sum()) for pruned in self._pruned.values()),
            sum(pruned.numel() for pruned in self._pruned.values()),
        )

    def weight(self, name: str) -> Tensor:
        """A weight that has a mask."""
        return self._params[name]

    @torch.no_grad()
    def apply(self) -> None:
        """Zero the weights at pruned places."""
        for name, pruned in self._pruned.items():
            # masked_fill, not a product: w * 0 leaves -0.0 where w is negative.
            local(self._params[name]).masked_fill_(pruned, 0.0)

    @torch.no_grad()
    def grow(self, name: str, kept: Tensor, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Prune more of a weight: `kept` may only take places away. Weights and moments there become zero.

        Raises:
            NumericsError: A pruned place would be kept again.
        """
        pruned = ~kept
        if bool((self._pruned[name] & kept).any()):
            raise NumericsError(f"the mask of {name} would give places back that were pruned; please report this")
        self.replace(name, kept)
        param = self._params[name]
        local(param).masked_fill_(pruned, 0.0)
        for moment in moments(param, optimizers).values():
            local(moment).masked_fill_(pruned, 0.0)

    def replace(self, name: str, kept: Tensor) -> None:
        """Put a saved mask in the place of a weight's mask; the weight is not touched."""
        self._pruned[name] = ~kept
        self._count()

    @torch.no_grad()
    def check(self, optimizers: Sequence[torch.optim.Optimizer], when: str) -> None:
        """Assert that pruned places are exactly zero in the weights and in all moments of the optimizers.

        Args:
            optimizers: Whose state is looked at.
            when: Said in the error, such as `after step 7`.

        Raises:
            NumericsError: One is not.
        """
        named: list[tuple[str, str]] = []
        alive: list[Tensor] = []
        for name, pruned in self._pruned.items():
            param = self._params[name]
            for what, tensor in {"weights": param, **moments(param, optimizers)}.items():
                named.append((name, what))
                alive.append((local(tensor) != 0).logical_and_(pruned).sum())
        # One look at the device for all of them.
        for (name, what), count in zip(named, torch.stack(alive).tolist() if alive else (), strict=True):
            if count:
                raise NumericsError(f"{count} pruned {what} of {name} are not zero {when}; please report this")

    def _hook(self, name: str) -> Callable[[Tensor], None]:
        def zero(param: Tensor) -> None:
            if param.grad is not None:
                local(param.grad).masked_fill_(self._pruned[name], 0.0)

        return zero


def moments(param: Tensor, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """State of the optimizers that has a value per weight (exp_avg, exp_avg_sq, momentum), by its name."""
    found: dict[str, Tensor] = {}
    for optimizer in optimizers:
        if param in optimizer.state:
            for name, value in optimizer.state[param].items():
                if isinstance(value, Tensor) and value.shape == param.shape:
                    found[name] = value
    return found


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that is sharded (DTensor), or the tensor itself; shares its memory."""
    to_local = getattr(tensor, "to_local", None)
    part: Tensor = to_local() if to_local is not None else tensor
    return part.detach()
