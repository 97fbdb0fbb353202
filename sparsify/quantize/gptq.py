"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) for sparse weights, alone or while SparseGPT chooses the mask.

Columns are quantized from left to right; the columns to the right make up for each error (algorithm 1 there). Zeros are
kept without giving up what compensation can do: updates flow freely into pruned places, and when the column of a pruned
place is reached its value becomes 0 whatever has gathered there, and what is lost is passed on like any rounding error.
For a pruned place this is the exact optimal-brain-surgeon step; multiplying updates by the mask throws it away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsify.errors import SparsifyError
from sparsify.prune.problem import Budget, Note, check_inputs, lowest
from sparsify.prune.sparsegpt import inverse_factor, sparsegpt
from sparsify.quantize.grid import INT8, Grid, Quantized, check_finite


def gptq(
    weight: Tensor,
    hessian: Tensor,
    grid: Grid = INT8,
    *,
    keep: Tensor | None = None,
    percdamp: float = 0.01,
    block_size: int = 128,
) -> Quantized:
    """Quantize a weight so that its outputs change little, and keep its zeros.

    Args:
        weight: Float [out, in].
        hessian: Float32 [in, in] in any scale (`Gram.hessian`).
        grid: What it is rounded to. A group's scale is set when its first column is reached, from the weights as they
            are by then.
        keep: Bool [out, in], False on what is pruned; None takes the zeros of `weight` for pruned.
        percdamp: Damping relative to the mean of the diagonal; raised tenfold up to 1 while the factorisation fails.
        block_size: Columns whose updates are applied together; a multiple of the group.

    Raises:
        NumericsError: A value is not finite or no damping up to 1 makes the Hessian positive definite.
        SparsifyError: The columns do not divide into groups.
    """
    work = weight.to(torch.float32, copy=True)
    check_finite(work, hessian)
    pruned = work == 0 if keep is None else ~keep
    work.masked_fill_(pruned, 0.0)
    scale = grid.scale(work) if grid.group is None else None
    return _run(_Pass(work, pruned, grid, scale), hessian, percdamp, block_size)


def joint(
    weight: Tensor,
    hessian: Tensor,
    budget: Budget,
    grid: Grid = INT8,
    *,
    keep: Tensor | None = None,
    percdamp: float = 0.01,
    block_size: int = 128,
) -> Quantized:
    """Prune and quantize a dense weight in one pass: SparseGPT with the quantizer in the loop.

    The mask of each block (or N:M group) is chosen from weights that carry the compensation of both the pruning and the
    rounding before it. Counts are exact, as in `sparsegpt`.

    Args:
        weight: Float [out, in].
        hessian: Float32 [in, in] (`Gram.hessian`).
        budget: Share of zeros per block of columns, or N:M.
        grid: What the kept weights are rounded to. Scales of whole rows come from a SparseGPT pass without rounding:
            compensation makes the kept weights grow, and scales of the dense weight would cut them off.
        keep: Bool [out, in]; what is False was pruned before: it stays zero and is charged to the budget.
        percdamp: As in `gptq`.
        block_size: Columns per block; a multiple of the group and of M.

    Raises:
        NumericsError: As in `gptq`.
        SparsifyError: The columns do not divide into groups.
    """
    work = weight.to(torch.float32, copy=True)
    check_inputs(work, hessian, budget)
    forced = torch.zeros_like(work, dtype=torch.bool) if keep is None else ~keep
    forced = forced | (hessian.diagonal() == 0)
    work.masked_fill_(forced & (hessian.diagonal() == 0), 0.0)
    scale = None
    if grid.group is None:
        first = sparsegpt(work, hessian, budget, percdamp=percdamp, block_size=block_size, keep=keep)
        scale = grid.scale(first.weight)
    return _run(_Choosing(work, forced, grid, scale, budget), hessian, percdamp, block_size)


def _run(task: _Pass, hessian: Tensor, percdamp: float, block_size: int) -> Quantized:
    task.grid.check(task.work.shape[1])
    if task.grid.group is not None and block_size % task.grid.group:
        raise SparsifyError(f"block_size {block_size} is no multiple of the group size {task.grid.group}")
    hessian = hessian.to(torch.float32, copy=True)
    dead = hessian.diagonal() == 0
    # The columns of dead inputs have no effect on the outputs that were seen: they are rounded and nothing else.
    hessian.diagonal()[dead] = 1.0
    factor, damping, notes = inverse_factor(hessian, percdamp)
    columns = task.work.shape[1]
    for start in range(0, columns, block_size):
        stop = min(start + block_size, columns)
        errors = task.block(start, stop, factor[start:stop, start:stop])
        task.work[:, stop:] -= errors @ factor[start:stop, stop:]
    return task.result({"damping": damping, "dead_columns": float(dead.sum())}, tuple(notes))


class _Pass:
    """One pass over the columns with a given mask.

    Attributes:
        work: Float32 [out, in]; columns to the right of the pass carry the compensation of those before.
        pruned: Bool [out, in], True where the value must be 0.
    """

    def __init__(self, work: Tensor, pruned: Tensor, grid: Grid, scale: Tensor | None) -> None:
        self.work, self.pruned, self.grid = work, pruned, grid
        self.values = torch.zeros(work.shape, dtype=torch.int8, device=work.device)
        self.scale = scale
        self.scales = [] if scale is None else [scale]

    def begin(self, start: int, block: Tensor, diagonal: Tensor) -> None:
        """Told before the columns [start, start + block width) are visited."""

    def reach(self, start: int, column: int, block: Tensor, diagonal: Tensor) -> None:
        """Told before a column of the block is visited."""

    def likely(self, start: int, columns: slice, block: Tensor, diagonal: Tensor) -> Tensor:
        """What of a group that is not visited yet will be pruned, bool [out, group]."""
        return self.pruned[:, start + columns.start : start + columns.stop]

    def block(self, start: int, stop: int, factor: Tensor) -> Tensor:
        """Quantize the columns [start, stop); returns the scaled errors [out, columns] for those to the right."""
        block, diagonal = self.work[:, start:stop].clone(), factor.diagonal()
        errors = torch.zeros_like(block)
        self.begin(start, block, diagonal)
        for j in range(stop - start):
            self.reach(start, j, block, diagonal)
            if self.grid.group is not None and (start + j) % self.grid.group == 0:
                group = slice(j, j + self.grid.group)
                gone = self.likely(start, group, block, diagonal)
                self.scale = self.grid.scale(block[:, group].masked_fill(gone, 0.0))
                self.scales.append(self.scale)
            assert self.scale is not None
            column = block[:, j : j + 1]
            integers = self.grid.round(column, self.scale).masked_fill(self.pruned[:, start + j : start + j + 1], 0.0)
            self.values[:, start + j] = integers[:, 0].to(torch.int8)
            error = (column - integers * self.scale)[:, 0] / diagonal[j]
            errors[:, j] = error
            block[:, j + 1 :] -= torch.outer(error, factor[j, j + 1 :])
        return errors

    def result(self, stats: dict[str, float], notes: tuple[Note, ...]) -> Quantized:
        """What came out."""
        return Quantized(self.values, torch.cat(self.scales, dim=1), None, stats, notes)


class _Choosing(_Pass):
    """A pass that chooses the mask as it goes; `pruned` begins with what goes in any case."""

    def __init__(self, work: Tensor, forced: Tensor, grid: Grid, scale: Tensor | None, budget: Budget) -> None:
        super().__init__(work, forced.clone(), grid, scale)
        self.forced, self.budget, self.spent = forced, budget, 0

    def begin(self, start: int, block: Tensor, diagonal: Tensor) -> None:
        """Unstructured: choose the block's share; rounding is carried on, so that the whole matrix comes out exact."""
        if self.budget.nm is not None:
            return
        assert self.budget.sparsity is not None, "the joint pass takes a share, not a count"
        stop = start + block.shape[1]
        due = round(self.budget.sparsity * stop * block.shape[0]) - self.spent
        self._choose(start, slice(0, block.shape[1]), block, diagonal, max(0, due))
        self.spent += int(self.pruned[:, start:stop].sum())

    def reach(self, start: int, column: int, block: Tensor, diagonal: Tensor) -> None:
        """N:M: choose only now, from weights that already carry the compensation of the groups before."""
        if self.budget.nm is not None and (start + column) % self.budget.nm[1] == 0:
            self._choose(start, slice(column, column + self.budget.nm[1]), block, diagonal, 0)

    def likely(self, start: int, columns: slice, block: Tensor, diagonal: Tensor) -> Tensor:
        """N:M: what would go if all of the group's masks were chosen now."""
        if self.budget.nm is None:
            return super().likely(start, columns, block, diagonal)
        forced = self.forced[:, start + columns.start : start + columns.stop]
        return self._lowest(block[:, columns], diagonal[columns], forced, 0)

    def result(self, stats: dict[str, float], notes: tuple[Note, ...]) -> Quantized:
        """What came out, with the mask that was chosen."""
        return Quantized(self.values, torch.cat(self.scales, dim=1), ~self.pruned, stats, notes)

    def _choose(self, start: int, columns: slice, block: Tensor, diagonal: Tensor, count: int) -> None:
        place = slice(start + columns.start, start + columns.stop)
        self.pruned[:, place] = self._lowest(block[:, columns], diagonal[columns], self.forced[:, place], count)

    def _lowest(self, weight: Tensor, diagonal: Tensor, forced: Tensor, count: int) -> Tensor:
        scores = (weight / diagonal).square().masked_fill(forced, -1.0)
        shape = (1, -1)
        if self.budget.nm is not None:
            n, m = self.budget.nm
            shape, count = (-1, m), m - n
        counts = forced.reshape(shape).sum(1).clamp(min=count)
        return lowest(scores.reshape(shape), counts).reshape(scores.shape)
