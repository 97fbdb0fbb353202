"""Magnitude pruning: the smallest weights go."""

from __future__ import annotations

from torch import Tensor

from sparsify.prune.problem import Budget, Solution, check_inputs, select


def magnitude(weight: Tensor, budget: Budget, *, per_row: bool = False, keep: Tensor | None = None) -> Solution:
    """Prune by |w|, without changing what stays.

    Args:
        weight: Float32 [out, in].
        budget: How many weights go.
        per_row: Compare within each row instead of the whole matrix.
        keep: Bool [out, in]; what is False was pruned before, stays zero and is charged to the budget.
    """
    check_inputs(weight, None, budget)
    pruned = select(weight.abs(), budget, per_row=per_row, forced=None if keep is None else ~keep)
    return Solution(weight.masked_fill(pruned, 0.0), ~pruned)
