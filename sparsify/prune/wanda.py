"""Wanda (Sun et al. 2023, arXiv 2306.11695): the smallest |w|·‖x‖₂ go, compared within each output row."""

from __future__ import annotations

from torch import Tensor

from sparsify.prune.problem import Budget, Solution, check_inputs
from sparsify.prune.selection import Selection


def wanda(weight: Tensor, hessian: Tensor, budget: Budget, *, keep: Tensor | None = None) -> Solution:
    """Prune by |w| times the norm of its input, without changing what stays.

    Args:
        weight: Float32 [out, in].
        hessian: Float32 [in, in], any multiple of the inputs' Gram matrix; only its diagonal counts.
        budget: How many weights go; they compete within each row, as in the paper, unless it says otherwise.
        keep: As in `magnitude`.

    Raises:
        NumericsError: A weight or the Hessian is not finite.
        SparsifyError: The budget does not fit the shape.
    """
    check_inputs(weight, hessian, budget, keep)
    power = hessian.diagonal()
    selection = Selection(weight, budget, "row", keep=keep, dead=power <= 0)
    pruned = selection.pick(weight.abs() * power.clamp(min=0).sqrt())
    return Solution(weight.masked_fill(pruned, 0.0), ~pruned, notes=selection.notes)
