"""Wanda (Sun et al. 2023, arXiv 2306.11695): the smallest |w|·‖x‖₂ go, compared within each output row."""

from __future__ import annotations

from torch import Tensor

from sparsify.prune.problem import Budget, Solution, check_inputs, select


def wanda(
    weight: Tensor, hessian: Tensor, budget: Budget, *, per_row: bool = True, keep: Tensor | None = None
) -> Solution:
    """Prune by |w| times the norm of its input, without changing what stays.

    Args:
        weight: Float32 [out, in].
        hessian: Float32 [in, in], any multiple of the inputs' Gram matrix; only its diagonal counts.
        budget: How many weights go.
        per_row: Compare within each row (as the paper) or over the whole matrix.
        keep: As in `magnitude`.
    """
    check_inputs(weight, hessian, budget)
    scores = weight.abs() * hessian.diagonal().clamp(min=0).sqrt()
    pruned = select(scores, budget, per_row=per_row, forced=None if keep is None else ~keep)
    return Solution(weight.masked_fill(pruned, 0.0), ~pruned)
