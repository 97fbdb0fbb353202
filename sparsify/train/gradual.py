"""Pruning while training goes on: by magnitude, to a cubic schedule, with masks that only grow.

Zhu & Gupta 2017 (arXiv 1710.01878), equation 1: s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparsify.blocks import chosen_linears, find_structure
from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.magnitude import magnitude
from sparsify.prune.problem import Budget
from sparsify.train.held import HeldMasks, local
from sparsify.train.settings import Gradual


def cubic_sparsity(step: int, total: int, settings: Gradual) -> float:
    """The share of zeros that the schedule asks for after `step` of `total` steps; 0 before it begins."""
    begin, end = span(total, settings)
    if step < begin:
        return 0.0
    left = 1.0 - min(1.0, (step - begin) / (end - begin))
    return settings.final + (settings.initial - settings.final) * left**3


def span(total: int, settings: Gradual) -> tuple[int, int]:
    """The steps after which pruning begins and after which it has ended."""
    begin = round(settings.begin * total)
    return begin, max(begin + 1, round(settings.end * total))


def pruned_weights(model: nn.Module, settings: Gradual) -> tuple[str, ...]:
    """Names of the weights that the schedule prunes.

    Raises:
        SparsifyError: An entry of `skip` fits no linear, or a linear is an expert of a fused tensor.
    """
    chosen, _ = chosen_linears(find_structure(model).prunable, settings.skip)
    known = dict(model.named_parameters())
    names = tuple(f"{name}.weight" for name in chosen)
    missing = [name for name in names if name not in known]
    if missing:
        raise SparsifyError(
            f"{missing[0]} is part of a fused tensor, which gradual pruning cannot mask; add it to skip"
        )
    return names


class Grower:
    """Grows the masks of a run as its schedule says."""

    def __init__(self, held: HeldMasks, names: Sequence[str], total: int, settings: Gradual) -> None:
        """Grow the masks `names` of `held` over `total` steps.

        Raises:
            SparsifyError: There are too few steps for the schedule.
        """
        self._held, self._names, self._total, self._settings = held, tuple(names), total, settings
        self._begin, self._end = span(total, settings)
        if self._end > total:
            raise SparsifyError(f"{total} steps are too few to prune gradually; raise tokens or lower batch_tokens")

    def done(self, step: int) -> bool:
        """Whether the final share is reached after `step` steps."""
        return step >= self._end

    def after(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Prune what the schedule asks for after `step` steps (0 = before the first), if it is time for it."""
        due = (step - self._begin) % self._settings.every == 0 or step == self._end
        if not due or not self._begin <= step <= self._end:
            return
        share = cubic_sparsity(step, self._total, self._settings)
        for name in self._names:
            kept = self._held.kept(name)
            # What is pruned already, by an earlier stage perhaps, is charged to the budget and never given back.
            count = max(round(share * kept.numel()), int((~kept).sum()))
            self._held.grow(name, self._grown(name, kept, count), optimizers)

    def check(self) -> None:
        """Assert that every mask has the final share of zeros, or what it had before if that was more.

        Raises:
            NumericsError: One has not.
        """
        for name in self._names:
            kept = self._held.kept(name)
            if int((~kept).sum()) < round(self._settings.final * kept.numel()):
                raise NumericsError(f"{name} has {int((~kept).sum())} zeros in the end, too few; please report this")

    def _grown(self, name: str, kept: Tensor, count: int) -> Tensor:
        weight = local(self._held.weight(name)).float()
        return magnitude(weight, Budget(count=count), keep=kept).mask
