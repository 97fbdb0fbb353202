"""Optimizers of the trainer: AdamW, and Muon for the matrices of a model that is trained from scratch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sparsify.train.held import local
from sparsify.train.settings import TrainSettings
from sparsify.train.sharding import gather, rows_of

_NS = (3.4445, -4.7750, 2.0315)


def newton_schulz(matrices: Tensor, steps: int = 5) -> Tensor:
    """Approximately orthogonalise a stack of matrices, [k, rows, cols] with rows <= cols, in float32.

    The quintic iteration of Muon (Jordan et al. 2024). torch.optim.Muon runs it in bfloat16, which is several times
    slower than float32 on a CPU without bfloat16 arithmetic; stacking equal shapes saves most of the launch cost.
    """
    a, b, c = _NS
    x = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: an update of spectral norm about `lr` for every 2-D weight.

    Of a sharded weight (DTensor), every process gathers the whole momentum, orthogonalises it and adds its own rows:
    the moments are sharded, the arithmetic is repeated.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step for all parameters that have a gradient."""
        for group in self.param_groups:
            stacks: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(param)
                state["momentum"].mul_(group["momentum"]).add_(param.grad)
                stacks[param.shape].append(param)
            for shape, params in stacks.items():
                update = torch.stack([gather(p.grad + group["momentum"] * self.state[p]["momentum"]) for p in params])
                tall = shape[0] > shape[1]
                update = newton_schulz(update.mT if tall else update)
                update = update.mT if tall else update
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for param, delta in zip(params, update, strict=True):
                    local(param).add_(rows_of(delta, param), alpha=-group["lr"] * scale)


def make_optimizers(named: Mapping[str, Tensor], settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest."""
    matrices = (
        {n for n, p in named.items() if p.ndim == 2 and ".layers." in n} if settings.optimizer == "muon" else set()
    )
    rest = [p for n, p in named.items() if n not in matrices]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay)
    ]
    if matrices:
        optimizers.append(Muon([p for n, p in named.items() if n in matrices], lr=settings.muon_lr))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers
