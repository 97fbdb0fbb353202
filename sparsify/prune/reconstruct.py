"""Reconstruction: the surviving weights of a whole sub-block trained to give the dense sub-block's outputs.

A layer-wise solver sees one linear at a time. With at least one non-linearity inside, the weights can also make up for
what the others lost (local reconstruction of pruned sub-blocks, arXiv 2510.14444). The inputs come from the sparse
stream and the targets from the dense one, so that errors of earlier blocks are corrected too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.problem import Note


class Targets(Protocol):
    """What the dense sub-block gave, by mini-batch; a list will do, or tensors that wait in a file."""

    def __len__(self) -> int: ...  # noqa: D105

    def __getitem__(self, index: int, /) -> Tensor: ...  # noqa: D105


@dataclass(frozen=True)
class Training:
    """How the survivors are trained.

    Attributes:
        epochs: Passes over the training share of the mini-batches.
        lr: Peak step, relative to the root mean square of each weight's survivors; falls to 0 along a half cosine.
        holdout: Share of the mini-batches that is only looked at to decide what is kept.
        seed: Of the split and of the order.
    """

    epochs: int = 8
    lr: float = 0.02
    holdout: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.epochs > 0 and self.lr > 0 and 0 < self.holdout < 1):
            raise SparsifyError(f"{self} cannot train; give epochs and lr above 0 and a holdout within (0, 1)")


@dataclass(frozen=True)
class Reconstruction:
    """What training did.

    Attributes:
        before: Relative squared error of the outputs on the held-out mini-batches at the start.
        after: The same at the end; never more than `before`.
        epoch: The epoch whose weights were kept, 0 = none, the start was restored.
        steps: Optimizer steps taken.
        notes: A note where nothing was gained.
    """

    before: float
    after: float
    epoch: int
    steps: int
    notes: tuple[Note, ...] = ()


def reconstruct(
    module: nn.Module,
    run: Callable[[int], Tensor],
    targets: Targets,
    masks: Mapping[str, Tensor],
    *,
    real: Sequence[Tensor] | None = None,
    training: Training = Training(),  # noqa: B008 (frozen)
) -> Reconstruction:
    """Train the masked weights of `module` in place by Adam (Kingma & Ba 2015) against the dense outputs.

    Weights that are masked out stay exactly +0.0; all other parameters stay as they are. After every epoch the held-out
    error is measured and the best weights so far are remembered; in the end they, or else the start, are put back.

    Args:
        module: The sub-block, float32, holding the pruned weights.
        run: Gives `module`'s output on mini-batch i, [batch, seq, width], with the sparse stream's inputs.
        targets: What the dense module gave on the dense stream for each mini-batch, of the same shape.
        masks: By the name of a parameter within `module`: bool of its shape, True where kept.
        real: Per mini-batch, bool [batch, seq], False on padding; None = all real.
        training: How long and how fast.

    Raises:
        SparsifyError: Fewer than two mini-batches, an unknown name, or a mask of another shape.
        NumericsError: The outputs or the targets are not finite at the start.
    """
    if len(targets) < 2:
        raise SparsifyError("reconstruction needs two mini-batches or more, one of them held out; use more text")
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise SparsifyError(f"the mask {name!r} fits no parameter of the sub-block")
    frozen = {name: parameter.requires_grad for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in masks)
        chosen = {name: (parameters[name], mask.to(parameters[name].device)) for name, mask in masks.items()}
        return _Run(run, targets, real, chosen, training).execute()
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(frozen[name])
            parameter.grad = None


class _Run:
    def __init__(
        self,
        run: Callable[[int], Tensor],
        targets: Targets,
        real: Sequence[Tensor] | None,
        chosen: Mapping[str, tuple[nn.Parameter, Tensor]],
        training: Training,
    ) -> None:
        self.run, self.targets, self.real, self.training = run, targets, real, training
        self.chosen = list(chosen.values())
        self.generator = torch.Generator().manual_seed(training.seed)
        order = torch.randperm(len(targets), generator=self.generator).tolist()
        held = min(len(order) - 1, max(1, round(training.holdout * len(order))))
        self.held, self.used = order[:held], order[held:]
        squares, count = 0.0, 0
        for index in range(len(targets)):
            values = self._select(index, targets[index])
            squares, count = squares + float(values.square().sum()), count + values.numel()
        self.energy = squares / count

    def execute(self) -> Reconstruction:
        """Train, and leave the best weights in place."""
        for parameter, mask in self.chosen:
            parameter.data.masked_fill_(~mask, 0.0)
        before = best = self._held_error()
        if not math.isfinite(before):
            raise NumericsError("the sub-block's outputs are not finite; the solver before reconstruction failed")
        saved, epoch = self._weights(), 0
        optimizer = torch.optim.Adam(self._groups(), lr=1.0, betas=(0.9, 0.95))
        peaks = [group["lr"] for group in optimizer.param_groups]
        total, steps = self.training.epochs * len(self.used), 0
        for number in range(1, self.training.epochs + 1):
            for place in torch.randperm(len(self.used), generator=self.generator).tolist():
                fall = 0.5 * (1 + math.cos(math.pi * steps / total)) * min(1.0, (steps + 1) / 5)
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = fall * peak
                self._step(optimizer, self.used[place])
                steps += 1
            error = self._held_error()
            if error < best:  # false for NaN
                best, saved, epoch = error, self._weights(), number
        for (parameter, _), weight in zip(self.chosen, saved, strict=True):
            parameter.data.copy_(weight)
        notes = () if epoch else (Note("reconstruction_reverted", "training made no gain on the held-out inputs"),)
        return Reconstruction(before, best, epoch, steps, notes)

    def _groups(self) -> list[dict[str, object]]:
        # Adam moves every weight by about its step size: relative to the weights, one rate serves all of them.
        groups: list[dict[str, object]] = []
        for parameter, mask in self.chosen:
            size = math.sqrt(float(parameter.data.square().sum()) / max(1, int(mask.sum())))
            groups.append({"params": [parameter], "lr": self.training.lr * size})
        return groups

    def _step(self, optimizer: torch.optim.Optimizer, index: int) -> None:
        with torch.enable_grad():
            optimizer.zero_grad(set_to_none=True)
            self._loss(index).backward()
        for parameter, mask in self.chosen:
            # The gradient and not only the weight: else Adam's moments of pruned weights live on.
            assert parameter.grad is not None
            parameter.grad.masked_fill_(~mask, 0.0)
        optimizer.step()
        for parameter, mask in self.chosen:
            parameter.data.masked_fill_(~mask, 0.0)

    def _loss(self, index: int) -> Tensor:
        output = self._select(index, self.run(index).to(torch.float32))
        target = self._select(index, self.targets[index].to(output.device, torch.float32))
        return (output - target).square().mean() / max(self.energy, torch.finfo(torch.float32).tiny)

    def _select(self, index: int, values: Tensor) -> Tensor:
        return values if self.real is None else values[self.real[index].to(values.device)]

    @torch.no_grad()
    def _held_error(self) -> float:
        sizes = [self._select(index, self.targets[index]).numel() for index in self.held]
        losses = [float(self._loss(index)) for index in self.held]
        return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)

    def _weights(self) -> list[Tensor]:
        return [parameter.data.clone() for parameter, _ in self.chosen]
