"""Magnitude pruning: the smallest weights go."""

from __future__ import annotations

from torch import Tensor

from sparsify.prune.problem import Budget, Solution, check_inputs
from sparsify.prune.selection import Selection


def magnitude(weight: Tensor, budget: Budget, *, keep: Tensor | None = None) -> Solution:
    """Prune by |w|, without changing what stays.

    Args:
        weight: Float32 [out, in].
        budget: How many weights go; they compete over the whole matrix unless it says otherwise.
        keep: Bool [out, in]; what is False was pruned before, stays zero and is charged to the budget.

    Raises:
        NumericsError: A weight is not finite.
        SparsifyError: The budget does not fit the shape.
    """
    check_inputs(weight, None, budget, keep)
    selection = Selection(weight, budget, "matrix", keep=keep)
    pruned = selection.pick(weight.abs())
    return Solution(weight.masked_fill(pruned, 0.0), ~pruned, notes=selection.notes)
