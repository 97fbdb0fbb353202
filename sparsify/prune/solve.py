"""Chooses and runs the solver for one linear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsify.gram import Gram
from sparsify.prune.admm import admm
from sparsify.prune.magnitude import magnitude
from sparsify.prune.problem import Budget, Note, Solution, relative_error
from sparsify.prune.refine import refine
from sparsify.prune.sparsegpt import Factor, factorise, sparsegpt
from sparsify.prune.wanda import wanda
from sparsify.recipe import PruneStage

_EXACT, _ROWS = 2e10, 512


@dataclass
class Inputs:
    """What is known about the inputs of linears that share them.

    Attributes:
        hessian: Float32 [in, in], or None where no method needs it.
        tokens: Real tokens that were seen.
        percdamp: Damping to begin with.
        notes: What a reader must know about them.
    """

    hessian: Tensor | None
    tokens: int
    percdamp: float
    notes: tuple[Note, ...] = ()
    _factor: Factor | None = None

    @classmethod
    def of(cls, gram: Gram, where: str, stage: PruneStage, *, expert: bool) -> Inputs:
        """Make a Gram matrix ready; its memory is given back.

        With fewer tokens than columns it is singular: an event, and for an expert, whose tokens are a small, shifting
        part of the text, damping that grows with what is missing. An expert that saw no token has no Hessian.

        Raises:
            NumericsError: No token was seen by something else than an expert, or a value is not finite.
        """
        if expert and not gram.tokens:
            note = Note("expert_unused", "no token was routed here; pruned by magnitude")
            return cls(None, 0, stage.percdamp, (note,))
        hessian = gram.hessian(where)
        gram.total = None
        columns, percdamp, notes = hessian.shape[0], stage.percdamp, []
        if gram.tokens < columns:
            detail = f"{gram.tokens} tokens for {columns} inputs"
            if expert:
                percdamp = min(1.0, percdamp * columns / gram.tokens)
                detail += f"; damping {percdamp:.3g} instead of {stage.percdamp:g}"
            notes.append(Note("few_tokens", detail))
        return cls(hessian, gram.tokens, percdamp, tuple(notes))

    def factor(self) -> Factor:
        """The factorised Hessian, made once for all linears that share it."""
        assert self.hessian is not None
        if self._factor is None:
            self._factor = factorise(self.hessian, self.percdamp)
        return self._factor


def solve(stage: PruneStage, weight: Tensor, inputs: Inputs | None, budget: Budget, keep: Tensor | None) -> Solution:
    """Prune one weight, float32 [out, in], as `stage` says; `inputs` may be None where no method needs them."""
    hessian = inputs.hessian if inputs is not None else None
    if stage.method == "magnitude" or inputs is None or hessian is None:
        solution = magnitude(weight, budget, keep=keep)
    elif stage.method == "wanda":
        solution = wanda(weight, hessian, budget, keep=keep)
    elif stage.method == "admm":
        solution = admm(weight, hessian, budget, percdamp=inputs.percdamp, keep=keep)
    else:
        solution = sparsegpt(weight, inputs.factor(), budget, block_size=stage.block_size, keep=keep)
    if stage.refine and inputs is not None and hessian is not None:
        found = refine(weight, hessian, solution.mask, start=solution.weight, percdamp=inputs.percdamp)
        notes = (*solution.notes, *found.notes)
        solution = replace(found, stats={**solution.stats, **found.stats}, notes=notes)
    if inputs is None:
        return solution
    stats: dict[str, float] = {**solution.stats, "tokens": float(inputs.tokens)}
    if hessian is not None:
        # Of large linears some rows stand for all: two products [out, in] x [in, in] would cost more than the solver.
        step = max(1, weight.shape[0] // _ROWS) if weight.numel() * weight.shape[1] > _EXACT else 1
        stats["relative_error"] = relative_error(weight[::step], solution.weight[::step], hessian)
        if step > 1:
            stats["error_rows"] = float(len(weight[::step]))
    return replace(solution, stats=stats, notes=(*inputs.notes, *solution.notes))


def cast(solution: Solution, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The weight as it is stored, and its mask, both on the CPU; the mask is applied again after rounding."""
    mask = solution.mask.cpu()
    return solution.weight.cpu().to(dtype).masked_fill(~mask, 0.0), mask


def stats_of(solution: Solution) -> Mapping[str, float]:
    """What is recorded about a solution."""
    return {"sparsity": 1 - float(solution.mask.float().mean()), **solution.stats}
