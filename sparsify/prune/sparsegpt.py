"""SparseGPT (Frantar & Alistarh 2023, arXiv 2301.00774), after the reference `sparsegpt.py` of IST-DASLab.

One deliberate difference: of a block's `size` weights the reference prunes `int(size * sparsity) + 1` and whatever ties
with the last of them (`score <= threshold`); here exactly the lowest go, and rounding is carried from block to block so
that the whole matrix has `round(numel * sparsity)` zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.problem import Budget, Note, Solution, check_inputs, lowest
from sparsify.prune.selection import Selection


@dataclass(frozen=True)
class Factor:
    """A Hessian made ready by `factorise`; linears that see the same inputs can share it.

    Attributes:
        upper: Float32 [in, in], the upper Cholesky factor U of the damped inverse, H⁻¹ = Uᵀ U.
        dead: Bool [in], inputs that are always zero.
        damping: What was added to the diagonal, relative to its mean.
        notes: One for each time that the damping was raised.
    """

    upper: Tensor
    dead: Tensor
    damping: float
    notes: tuple[Note, ...]


def factorise(hessian: Tensor, percdamp: float = 0.01) -> Factor:
    """Damp and factorise a Hessian, float32 [in, in].

    Raises:
        NumericsError: It is not finite, or no damping up to 1 makes it positive definite.
    """
    if not bool(torch.isfinite(hessian).all()):
        raise NumericsError("the Hessian holds non-finite values; the model overflows on the calibration text")
    dead = hessian.diagonal() == 0
    hessian = hessian.to(torch.float32, copy=True)
    hessian.diagonal()[dead] = 1.0
    upper, damping, notes = inverse_factor(hessian, percdamp)
    return Factor(upper, dead, damping, tuple(notes))


def sparsegpt(
    weight: Tensor,
    hessian: Tensor | Factor,
    budget: Budget,
    *,
    percdamp: float = 0.01,
    block_size: int = 128,
    keep: Tensor | None = None,
) -> Solution:
    """Prune column by column and let the columns to the right make up for each error.

    Args:
        weight: Float32 [out, in].
        hessian: Float32 [in, in], 2/n · X Xᵀ over n sequences (`Gram.hessian`), or what `factorise` made of it. The
            mask does not depend on the scale unless a column is dead.
        budget: Share of zeros per block of columns (over all rows, or in each row for scope `row`), or N:M.
        percdamp: Damping relative to the mean of the diagonal; raised tenfold up to 1 while the factorisation fails.
        block_size: Columns per block; a multiple of M.
        keep: Bool [out, in]; what is False was pruned before: it stays zero, its compensation is passed on, and it is
            charged to the budget.

    Raises:
        NumericsError: The Hessian is not finite or no damping up to 1 makes it positive definite.
        SparsifyError: The budget does not fit the shape or the method.
    """
    check_inputs(weight, hessian if isinstance(hessian, Tensor) else hessian.upper, budget, keep)
    nm = budget.nm
    if nm is None and budget.scope == "matrix":
        raise SparsifyError("sparsegpt chooses block by block, not over the matrix; use scope block or row, or admm")
    if nm is not None and block_size % nm[1]:
        raise SparsifyError(f"block_size {block_size} is no multiple of {nm[1]}, the M of the pattern {nm[0]}:{nm[1]}")
    factor = factorise(hessian, percdamp) if isinstance(hessian, Tensor) else hessian
    selection = Selection(weight, budget, "block", keep=keep, dead=factor.dead)
    quotas = None if nm is not None else selection.block_quotas(block_size)
    # Dead inputs say nothing about their weights: no error of theirs may count or be passed on.
    work = weight.to(torch.float32, copy=True)
    work[:, factor.dead] = 0.0
    pruned = torch.zeros_like(work, dtype=torch.bool)
    loss = 0.0
    for start in range(0, work.shape[1], block_size):
        stop = min(start + block_size, work.shape[1])
        block = _Block(work, factor.upper, selection, start, stop)
        if quotas is None:
            block.solve_groups()
        else:
            block.solve_columns(quotas[:, start // block_size])
        pruned[:, start:stop] = block.pruned.T
        work[:, start:stop] = block.columns.T
        errors = block.errors.T.contiguous()
        loss += float(errors.square().sum()) / 2
        work[:, stop:].addmm_(errors, factor.upper[start:stop, stop:], alpha=-1)
    work[:, factor.dead] = weight[:, factor.dead]  # those that the budget spared stay as they were
    stats = {"loss": loss, "damping": factor.damping, "dead_columns": float(factor.dead.sum())}
    return Solution(work.masked_fill_(pruned, 0.0), ~pruned, stats, factor.notes + selection.notes)


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
            factor = _invert_upper(lower.flip(0, 1))
            if bool(torch.isfinite(factor).all()):
                return factor, damping, notes
        if damping >= 1.0:
            raise NumericsError("the Hessian is not positive definite even with damping 1; use more calibration text")
        raised = min(1.0, damping * 10)
        notes.append(Note("damping_raised", f"{damping:g} to {raised:g}: the Hessian was not positive definite"))
        damping = raised


def _invert_upper(upper: Tensor) -> Tensor:
    """The inverse of an upper triangular matrix, 256 columns at a time: what is zero below them costs nothing.

    Blocks count from the end, as LAPACK's back substitution does, so that every bit is that of one solve.
    """
    size = len(upper)
    if size % 8:
        return torch.linalg.solve_triangular(upper, torch.eye(size).to(upper), upper=True)
    inverse = torch.zeros_like(upper)
    for stop in range(size, 0, -256):
        start = max(0, stop - 256)
        unit = torch.zeros_like(upper[:stop, start:stop])
        unit[start:].fill_diagonal_(1.0)
        inverse[:stop, start:stop] = torch.linalg.solve_triangular(upper[:stop, :stop], unit, upper=True)
    return inverse


class _Block:
    """A block of columns, held transposed [columns, out] so that a column lies in one piece of memory.

    Attributes:
        columns: Float32 [columns, out], the weights with all compensation so far.
        pruned: Bool [columns, out].
        errors: Float32 [columns, out], what later columns must absorb, scaled by 1 / U_jj.
    """

    def __init__(self, work: Tensor, upper: Tensor, selection: Selection, start: int, stop: int) -> None:
        self.columns = work[:, start:stop].T.contiguous()
        self.pruned = torch.zeros_like(self.columns, dtype=torch.bool)
        self.errors = torch.empty_like(self.columns)
        self._buffer = torch.empty_like(self.columns)
        self._upper = upper[start:stop, start:stop].contiguous()
        self._diagonal = self._upper.diagonal().unbind()
        self._selection, self._start = selection, start

    def solve_columns(self, quota: Tensor) -> None:
        """Choose `quota` weights, int64 [1] or [out], over the whole block, then eliminate them."""
        scores = self._scores(0, len(self.columns))
        flat = scores if len(quota) > 1 else scores.reshape(1, -1)
        self.pruned = lowest(flat, quota).reshape(scores.shape).T.contiguous()
        self._eliminate(0, len(self.columns))

    def solve_groups(self) -> None:
        """Choose N:M group by group, from weights that already carry the compensation of the groups before."""
        assert self._selection.budget.nm is not None
        m = self._selection.budget.nm[1]
        for first in range(0, len(self.columns), m):
            scores = self._scores(first, first + m)
            quota = self._selection.group_quota(self._start + first, self._start + first + m)
            self.pruned[first : first + m] = lowest(scores, quota).T
            self._eliminate(first, first + m)

    def _scores(self, first: int, last: int) -> Tensor:
        diagonal = self._upper.diagonal()[first:last]
        return self._selection.rank((self.columns[first:last].T / diagonal).square(), self._start + first)

    def _eliminate(self, first: int, last: int) -> None:
        kept = ~self.pruned
        for j in range(first, last):
            error = torch.div(self.columns[j], self._diagonal[j], out=self.errors[j]).masked_fill_(kept[j], 0.0)
            # Not addr_, which fuses the two roundings: stored variants stay reproducible to the last bit.
            change = torch.mul(self._upper[j, j + 1 :, None], error, out=self._buffer[j + 1 :])
            self.columns[j + 1 :].sub_(change)
