"""What a pruning solver is given and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError

Scope = Literal["matrix", "block", "row"]
BLOCK = 128  # columns that compete in scope "block", as in SparseGPT


@dataclass(frozen=True)
class Budget:
    """How many weights go.

    Attributes:
        sparsity: Share of zeros, 0 <= sparsity < 1. Where an N:M pattern is given it follows from the pattern.
        nm: (N, M): N of M neighbours along the input dimension stay; None = anywhere.
        scope: Over what weights compete: the whole matrix, 128 columns of all rows, or each row. None = as the method
            was published. A pattern overrides it.
        count: The exact number of zeros of this matrix, in place of `sparsity`.

    Raises:
        SparsifyError: The values contradict each other or cannot be reached.
    """

    sparsity: float | None = None
    nm: tuple[int, int] | None = None
    scope: Scope | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0 <= self.sparsity < 1:  # false for NaN too
            raise SparsifyError(f"sparsity {self.sparsity} is outside [0, 1); give the share of zeros, such as 0.7")
        if self.scope not in (None, "matrix", "block", "row"):
            raise SparsifyError(f"unknown scope {self.scope!r}; use matrix, block or row")
        if self.count is not None and self.count < 0:
            raise SparsifyError(f"a count of {self.count} zeros is negative; give a number of weights to prune")
        if self.nm is None:
            if self.sparsity is None and self.count is None:
                raise SparsifyError("a budget needs a sparsity, a count or an N:M pattern; give one")
            return
        n, m = self.nm
        if not 0 < n < m:
            raise SparsifyError(f"pattern {n}:{m} is not N:M with 0 < N < M; use one such as 2:4")
        if self.sparsity is not None and abs(self.sparsity - (1 - n / m)) > 1e-6:
            raise SparsifyError(f"sparsity {self.sparsity} contradicts pattern {n}:{m}; leave sparsity out")

    def zeros(self, rows: int, columns: int, scope: Scope) -> int:
        """How many of rows x columns weights go where they compete over `scope`.

        Raises:
            SparsifyError: The pattern does not divide the columns, or the count does not fit.
        """
        if self.nm is not None:
            n, m = self.nm
            if columns % m:
                raise SparsifyError(f"{columns} columns do not divide into groups of {m}; add this linear to skip")
            total = rows * (columns // m) * (m - n)
            if self.count is not None and self.count != total:
                raise SparsifyError(f"{self.count} zeros contradict pattern {n}:{m}, which makes {total}")
            return total
        if self.count is not None:
            if self.count > rows * columns:
                raise SparsifyError(f"{self.count} zeros asked for, but the weight has {rows * columns} values")
            return self.count
        assert self.sparsity is not None
        if scope == "row":  # equal in all rows, as Wanda's
            return rows * round(self.sparsity * columns)
        return round(self.sparsity * (rows * columns))


@dataclass(frozen=True)
class Note:
    """Something that a solver did and that a reader of the result must know."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Solution:
    """A pruned weight.

    Attributes:
        weight: Float32 [out, in]; exactly +0.0 wherever `mask` is False.
        mask: Bool [out, in], True where kept.
        stats: Numbers about the solution.
        notes: Fall-backs that were taken.
    """

    weight: Tensor
    mask: Tensor
    stats: dict[str, float] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def lowest(scores: Tensor, count: int | Tensor) -> Tensor:
    """Mark the `count` lowest scores of each row, exactly, ties by position.

    A threshold alone (`scores <= kth`) would take one more than asked for, and all ties.

    Args:
        scores: Float [rows, columns], no NaN.
        count: One number for all rows, or an int tensor [rows].

    Returns:
        Bool [rows, columns], True on what was marked.
    """
    rows, columns = scores.shape
    limit: int | Tensor = (
        int(count) if isinstance(count, int) or count.numel() == 1 else count.reshape(-1, 1).to(scores.device)
    )
    if isinstance(limit, int) and not 0 < limit < columns:
        return torch.full_like(scores, limit > 0, dtype=torch.bool)
    if columns <= _FEW and scores.numel() > _MANY:
        return _rank(scores) < limit
    threshold = _kth(scores, limit)
    marked = scores <= threshold
    total = limit * rows if isinstance(limit, int) else int(limit.sum())
    if int(marked.sum()) == total:  # no row has too few, so none has too many
        return marked
    below, tied = scores < threshold, scores == threshold
    return below | (tied & (tied.cumsum(1) <= limit - below.sum(1, keepdim=True)))


_FEW, _MANY = 16, 16384  # so few columns and so many scores that counting comparisons is cheaper than sorting


def _kth(scores: Tensor, limit: int | Tensor) -> Tensor:
    """The score of each row [rows, 1] that has place `limit` in it, counted from 1; for limit 0 the lowest."""
    # On a CPU numpy partitions and sorts long rows with vector instructions, several times faster than torch.
    numpy = scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.shape[1] > _FEW
    if isinstance(limit, int):
        if numpy:
            return torch.from_numpy(np.partition(scores.numpy(), limit - 1, axis=1)[:, limit - 1 : limit].copy())
        if scores.shape[1] > _FEW:
            return torch.kthvalue(scores, limit, dim=1, keepdim=True).values
        return torch.sort(scores, dim=1).values[:, limit - 1 : limit]
    ordered = torch.from_numpy(np.sort(scores.numpy(), axis=1)) if numpy else torch.sort(scores, dim=1).values
    return ordered.gather(1, (limit - 1).clamp(0, scores.shape[1] - 1).expand(len(scores), 1).long())


def _rank(scores: Tensor) -> Tensor:
    """The place of each score in its row [rows, few], ties by position: how many come before it."""
    columns = scores.T.contiguous()
    rank = torch.zeros_like(columns, dtype=torch.uint8)
    for j, other in enumerate(columns):
        rank[:j] += other < columns[:j]
        rank[j + 1 :] += other <= columns[j + 1 :]
    return rank.T


def check_inputs(weight: Tensor, hessian: Tensor | None, budget: Budget, keep: Tensor | None = None) -> None:
    """Refuse what no solver can work with.

    Raises:
        NumericsError: A value is not finite.
        SparsifyError: Shapes do not fit each other, or the columns do not divide into groups of M.
    """
    if weight.ndim != 2 or not weight.numel():
        raise SparsifyError(f"a weight of shape {tuple(weight.shape)} is no matrix [out, in]; add this linear to skip")
    rows, columns = weight.shape
    if hessian is not None and hessian.shape != (columns, columns):
        raise SparsifyError(f"a Hessian of shape {tuple(hessian.shape)} does not fit {columns} inputs")
    if keep is not None and (keep.shape != weight.shape or keep.dtype != torch.bool):
        raise SparsifyError(f"the earlier mask is {keep.dtype} {tuple(keep.shape)}, not bool {(rows, columns)}")
    if not bool(torch.isfinite(weight).all()):
        raise NumericsError("the weight holds non-finite values; the checkpoint is damaged")
    if hessian is not None and not bool(torch.isfinite(hessian).all()):
        raise NumericsError("the Hessian holds non-finite values; the model overflows on the calibration text")
    budget.zeros(rows, columns, budget.scope or "matrix")


def relative_error(before: Tensor, after: Tensor, hessian: Tensor) -> float:
    """Relative squared output error, ‖(W − W')X‖² / ‖WX‖², from the Gram or Hessian of X in any scale."""
    change = before - after
    energy = float(((before @ hessian) * before).sum())
    return float(((change @ hessian) * change).sum()) / energy if energy > 0 else 0.0
