"""What a pruning solver is given and what it answers, and the exact selection of what goes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError


@dataclass(frozen=True)
class Budget:
    """How many weights go.

    Attributes:
        sparsity: Share of zeros, 0 < sparsity < 1.
        nm: (N, M): at most N of M neighbours along the input dimension stay; None = anywhere.
    """

    sparsity: float
    nm: tuple[int, int] | None = None


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

    A threshold (`scores <= kth`) would take one more than asked for, and all ties.

    Args:
        scores: Float [rows, columns].
        count: One number for all rows, or an int tensor [rows].

    Returns:
        Bool [rows, columns], True on what was marked.
    """
    order = torch.argsort(scores, dim=1, stable=True)
    rank = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    limit = torch.as_tensor(count, device=scores.device).reshape(-1, 1)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, rank < limit)


def select(scores: Tensor, budget: Budget, *, per_row: bool, forced: Tensor | None = None) -> Tensor:
    """Choose what is pruned: the lowest scores within the budget, `forced` ones first and charged to it.

    Args:
        scores: Float [out, in].
        budget: Per row or over the whole matrix; an N:M pattern overrides both.
        per_row: Whether weights compete with those of the same row only.
        forced: Bool [out, in], True where a weight goes in any case.

    Returns:
        Bool [out, in], True on what is pruned.
    """
    if forced is not None:
        scores = scores.masked_fill(forced, -1.0)
    if budget.nm is not None:
        n, m = budget.nm
        groups, rows = (-1, m), m - n
    elif per_row:
        groups, rows = (-1, scores.shape[1]), round(budget.sparsity * scores.shape[1])
    else:
        groups, rows = (1, -1), round(budget.sparsity * scores.numel())
    flat = scores.reshape(groups)
    count: int | Tensor = rows
    if forced is not None:
        count = forced.reshape(groups).sum(1).clamp(min=rows)
    return lowest(flat, count).reshape(scores.shape)


def check_inputs(weight: Tensor, hessian: Tensor | None, budget: Budget) -> None:
    """Refuse what no solver can work with.

    Raises:
        NumericsError: A value is not finite.
        SparsifyError: The columns do not divide into groups of M.
    """
    if not bool(torch.isfinite(weight).all()):
        raise NumericsError("the weight holds non-finite values; the checkpoint is damaged")
    if hessian is not None and not bool(torch.isfinite(hessian).all()):
        raise NumericsError("the Hessian holds non-finite values; the model overflows on the calibration text")
    if budget.nm is not None and weight.shape[1] % budget.nm[1]:
        m = budget.nm[1]
        raise SparsifyError(f"{weight.shape[1]} columns do not divide into groups of {m}; add this linear to skip")


def relative_error(before: Tensor, after: Tensor, hessian: Tensor) -> float:
    """Relative squared output error, ‖(W − W')X‖² / ‖WX‖², from the Gram or Hessian of X in any scale."""
    change = before - after
    energy = float(((before @ hessian) * before).sum())
    return float(((change @ hessian) * change).sum()) / energy if energy > 0 else 0.0
