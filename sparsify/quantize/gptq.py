"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) for sparse weights, alone or while SparseGPT chooses the mask.

Columns are quantized from left to right; the columns to the right make up for each error (algorithm 1 there). Zeros are
kept without giving up what compensation can do: updates flow freely into pruned places, and when the column of a pruned
place is reached its value becomes 0 whatever has gathered there, and what is lost is passed on like any rounding error.
For a pruned place this is the exact optimal-brain-surgeon step; multiplying updates by the mask throws it away.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sparsify.errors import SparsifyError
from sparsify.prune.problem import Budget, Note, check_inputs, lowest
from sparsify.prune.selection import Selection
from sparsify.prune.sparsegpt import Factor, factorise, sparsegpt
from sparsify.quantize.grid import INT8, Grid, Quantized, check_finite


def gptq(
    weight: Tensor,
    hessian: Tensor | Factor,
    grid: Grid = INT8,
    *,
    keep: Tensor | None = None,
    percdamp: float = 0.01,
    block_size: int = 128,
) -> Quantized:
    """Quantize a weight so that its outputs change little, and keep its zeros.

    Args:
        weight: Float [out, in].
        hessian: Float32 [in, in] in any scale (`Gram.hessian`), or what `factorise` made of it.
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
    check_finite(work)
    pruned = work == 0 if keep is None else ~keep
    work.masked_fill_(pruned, 0.0)
    scale = grid.scale(work) if grid.group is None else None
    return _run(_Pass(work, pruned, grid, scale), hessian, percdamp, block_size)


def joint(
    weight: Tensor,
    hessian: Tensor | Factor,
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
        hessian: Float32 [in, in] (`Gram.hessian`), or what `factorise` made of it.
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
    check_finite(work)
    factor = factorise(hessian, percdamp) if isinstance(hessian, Tensor) else hessian
    check_inputs(work, factor.upper, budget, keep)
    if budget.nm is None and budget.scope not in (None, "block"):
        raise SparsifyError(f"pruning and quantizing in one pass chooses block by block; scope {budget.scope} is not")
    scale = None
    if grid.group is None:
        first = sparsegpt(work, factor, budget, block_size=block_size, keep=keep)
        scale = grid.scale(first.weight)
    selection = Selection(work, budget, "block", keep=keep, dead=factor.dead)
    quotas = None if budget.nm is not None else selection.block_quotas(block_size)[0].tolist()
    gone = torch.zeros_like(work, dtype=torch.bool) if keep is None else ~keep
    task = _Choosing(work, (gone, factor.dead), grid, scale, quotas or budget.nm)
    found = _run(task, factor, percdamp, block_size)
    return replace(found, notes=found.notes + selection.notes)


def _run(task: _Pass, hessian: Tensor | Factor, percdamp: float, block_size: int) -> Quantized:
    task.grid.check(task.work.shape[1])
    if task.grid.group is not None and block_size % task.grid.group:
        raise SparsifyError(f"block_size {block_size} is no multiple of the group size {task.grid.group}")
    # The columns of dead inputs have no effect on the outputs that were seen: they are rounded and nothing else.
    factor = factorise(hessian, percdamp) if isinstance(hessian, Tensor) else hessian
    columns = task.work.shape[1]
    for start in range(0, columns, block_size):
        stop = min(start + block_size, columns)
        errors = task.block(start, stop, factor.upper[start:stop, start:stop])
        task.work[:, stop:].addmm_(errors, factor.upper[start:stop, stop:], alpha=-1)
    return task.result({"damping": factor.damping, "dead_columns": float(factor.dead.sum())}, factor.notes)


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

    def reach(self, start: int, column: int, block: Tensor, diagonal: Tensor) -> bool:
        """Told before a column of the block is visited; answers whether `pruned` changed."""
        return False

    def likely(self, start: int, columns: slice, block: Tensor, diagonal: Tensor) -> Tensor:
        """What of a group that is not visited yet will be pruned, bool [out, group]."""
        return self.pruned[:, start + columns.start : start + columns.stop]

    def block(self, start: int, stop: int, factor: Tensor) -> Tensor:
        """Quantize the columns [start, stop); returns the scaled errors [out, columns] for those to the right."""
        # Turned, so that what is one column of the weight lies in one piece of memory.
        turned, diagonal = self.work[:, start:stop].T.contiguous(), factor.diagonal()
        block, errors, integers = turned.T, torch.empty_like(turned), torch.empty_like(turned)
        steps = diagonal.tolist()
        self.begin(start, block, diagonal)
        gone = self.pruned[:, start:stop].T.contiguous()
        for j in range(stop - start):
            if self.reach(start, j, block, diagonal):
                gone = self.pruned[:, start:stop].T.contiguous()
            if self.grid.group is not None and (start + j) % self.grid.group == 0:
                group = slice(j, j + self.grid.group)
                unseen = block[:, group].masked_fill(self.likely(start, group, block, diagonal), 0.0)
                self.scale = self.grid.scale(unseen)
                self.scales.append(self.scale)
            assert self.scale is not None
            scale = self.scale[:, 0]
            integers[j] = self.grid.round(turned[j], scale).masked_fill_(gone[j], 0.0)
            torch.addcmul(turned[j], integers[j], scale, value=-1, out=errors[j])
            errors[j].div_(steps[j])
            turned[j + 1 :].addr_(factor[j, j + 1 :], errors[j], alpha=-1)
        self.values[:, start:stop] = integers.T.to(torch.int8)
        return errors.T.contiguous()

    def result(self, stats: dict[str, float], notes: tuple[Note, ...]) -> Quantized:
        """What came out."""
        return Quantized(self.values, torch.cat(self.scales, dim=1), None, stats, notes)


class _Choosing(_Pass):
    """A pass that chooses the mask as it goes; `pruned` begins with what goes in any case."""

    def __init__(
        self,
        work: Tensor,
        gone: tuple[Tensor, Tensor],
        grid: Grid,
        scale: Tensor | None,
        rule: list[int] | tuple[int, int] | None,
    ) -> None:
        """Prepare.

        Args:
            work: Float32 [out, in].
            gone: What was pruned before, bool [out, in], and dead inputs, bool [in], which go next.
            grid: What is rounded to.
            scale: Of whole rows, where the grid has no groups.
            rule: (N, M), or how many go in each block.
        """
        self.forced, self.dead = gone
        super().__init__(work.masked_fill_(self.forced, 0.0), self.forced.clone(), grid, scale)
        self.nm = rule if isinstance(rule, tuple) else None
        self.quotas = rule if isinstance(rule, list) else []

    def begin(self, start: int, block: Tensor, diagonal: Tensor) -> None:
        """Unstructured: choose the block's share."""
        if self.nm is None:
            self._choose(start, slice(0, block.shape[1]), block, diagonal, self.quotas.pop(0))

    def reach(self, start: int, column: int, block: Tensor, diagonal: Tensor) -> bool:
        """N:M: choose only now, from weights that already carry the compensation of the groups before."""
        if self.nm is None or (start + column) % self.nm[1]:
            return False
        self._choose(start, slice(column, column + self.nm[1]), block, diagonal, 0)
        return True

    def likely(self, start: int, columns: slice, block: Tensor, diagonal: Tensor) -> Tensor:
        """N:M: what would go if all of the group's masks were chosen now."""
        if self.nm is None:
            return super().likely(start, columns, block, diagonal)
        return self._lowest(start, columns, block, diagonal, 0)

    def result(self, stats: dict[str, float], notes: tuple[Note, ...]) -> Quantized:
        """What came out, with the mask that was chosen."""
        return Quantized(self.values, torch.cat(self.scales, dim=1), ~self.pruned, stats, notes)

    def _choose(self, start: int, columns: slice, block: Tensor, diagonal: Tensor, count: int) -> None:
        place = slice(start + columns.start, start + columns.stop)
        self.pruned[:, place] = self._lowest(start, columns, block, diagonal, count)

    def _lowest(self, start: int, columns: slice, block: Tensor, diagonal: Tensor, count: int) -> Tensor:
        place = slice(start + columns.start, start + columns.stop)
        forced = self.forced[:, place]
        scores = (block[:, columns] / diagonal[columns]).square().masked_fill(self.dead[place], -1.0)
        scores = scores.masked_fill(forced, -2.0)
        shape = (1, -1)
        if self.nm is not None:
            n, m = self.nm
            shape, count = (-1, m), m - n
        counts = forced.reshape(shape).sum(1).clamp(min=count)
        return lowest(scores.reshape(shape), counts).reshape(scores.shape)
