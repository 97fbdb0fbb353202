"""SparseGPT (Frantar & Alistarh 2023, arXiv 2301.00774), after the reference `sparsegpt.py` of IST-DASLab.

One deliberate difference: of a block's `size` weights the reference prunes `int(size * sparsity) + 1` and whatever ties
with the last of them (`score <= threshold`); here exactly the lowest go, and rounding is carried from block to block so
that the whole matrix has `round(numel * sparsity)` zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsify.errors import NumericsError
from sparsify.prune.problem import Budget, Note, Solution, check_inputs, lowest


def sparsegpt(
    weight: Tensor,
    hessian: Tensor,
    budget: Budget,
    *,
    percdamp: float = 0.01,
    block_size: int = 128,
    keep: Tensor | None = None,
) -> Solution:
    """Prune column by column and let the columns to the right make up for each error.

    Args:
        weight: Float32 [out, in].
        hessian: Float32 [in, in], 2/n · X Xᵀ over n sequences (`Gram.hessian`). The mask does not depend on the scale
            unless a column is dead.
        budget: Share of zeros per block of columns, or N:M.
        percdamp: Damping relative to the mean of the diagonal; raised tenfold up to 1 while the factorisation fails.
        block_size: Columns per block; a multiple of M.
        keep: Bool [out, in]; what is False was pruned before: it stays zero, its compensation is passed on, and it is
            charged to the budget.

    Raises:
        NumericsError: The Hessian is not finite or no damping up to 1 makes it positive definite.
    """
    check_inputs(weight, hessian, budget)
    work, hessian = weight.to(torch.float32, copy=True), hessian.to(torch.float32, copy=True)
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1.0
    work[:, dead] = 0.0
    forced = dead.expand_as(work) if keep is None else dead | ~keep
    factor, damping, notes = inverse_factor(hessian, percdamp)
    pruned = torch.zeros_like(forced)
    spent, loss = 0, 0.0
    for start in range(0, work.shape[1], block_size):
        stop = min(start + block_size, work.shape[1])
        due = round(budget.sparsity * stop * work.shape[0]) - spent
        block = _Block(work[:, start:stop].clone(), factor[start:stop, start:stop], forced[:, start:stop])
        errors = block.solve(due, budget.nm)
        spent += int(block.pruned.sum())
        loss += float(errors.square().sum()) / 2
        work[:, start:stop] = block.weight
        pruned[:, start:stop] = block.pruned
        work[:, stop:] -= errors @ factor[start:stop, stop:]
    stats = {"loss": loss, "damping": damping, "dead_columns": float(dead.sum())}
    return Solution(work.masked_fill(pruned, 0.0), ~pruned, stats, tuple(notes))


def inverse_factor(hessian: Tensor, percdamp: float) -> tuple[Tensor, float, list[Note]]:
    """The upper Cholesky factor U of the damped inverse, H⁻¹ = Uᵀ U, without forming the inverse.

    With H = R Rᵀ, R upper triangular (Cholesky from the last row up), U is R⁻¹: the same factor as the reference's
    `cholesky(cholesky_inverse(cholesky(H)), upper=True)`, in one factorisation that loses less precision.

    Returns:
        U, the relative damping that was used, and a note for each time that it was raised.

    Raises:
        NumericsError: The factorisation fails even at damping 1.
    """
    mean = float(hessian.diagonal().mean())
    eye = torch.eye(hessian.shape[0], dtype=hessian.dtype, device=hessian.device)
    notes: list[Note] = []
    damping = percdamp
    while True:
        lower, info = torch.linalg.cholesky_ex((hessian + damping * mean * eye).flip(0, 1))
        if int(info) == 0:
            factor = torch.linalg.solve_triangular(lower.flip(0, 1), eye, upper=True)
            if bool(torch.isfinite(factor).all()):
                return factor, damping, notes
        if damping >= 1.0:
            raise NumericsError("the Hessian is not positive definite even with damping 1; use more calibration text")
        raised = min(1.0, damping * 10)
        notes.append(Note("damping_raised", f"{damping:g} to {raised:g}: the Hessian was not positive definite"))
        damping = raised


class _Block:
    """A block of columns, solved in place."""

    def __init__(self, weight: Tensor, factor: Tensor, forced: Tensor) -> None:
        self.weight, self.factor, self.forced = weight, factor, forced
        self.pruned = torch.zeros_like(forced)

    def solve(self, due: int, nm: tuple[int, int] | None) -> Tensor:
        """Prune `due` weights (or N:M); returns the scaled errors [out, columns] that later columns must absorb."""
        if nm is None:
            self._choose(slice(None), due)
        errors = torch.zeros_like(self.weight)
        for j in range(self.weight.shape[1]):
            if nm is not None and j % nm[1] == 0:
                # Chosen only now, from weights that already carry the compensation of the groups before.
                self._choose(slice(j, j + nm[1]), nm[1] - nm[0], per_row=True)
            column = self.weight[:, j].clone()
            error = column.masked_fill(~self.pruned[:, j], 0.0) / self.factor[j, j]
            errors[:, j] = error
            self.weight[:, j + 1 :] -= torch.outer(error, self.factor[j, j + 1 :])
            self.weight[:, j] = column.masked_fill(self.pruned[:, j], 0.0)
        return errors

    def _choose(self, columns: slice, count: int, *, per_row: bool = False) -> None:
        forced = self.forced[:, columns]
        scores = (self.weight[:, columns] / self.factor.diagonal()[columns]).square().masked_fill(forced, -1.0)
        shape = scores.shape if per_row else (1, -1)
        counts = forced.reshape(shape).sum(1).clamp(min=count)
        self.pruned[:, columns] = lowest(scores.reshape(shape), counts).reshape(scores.shape)
