"""The exact choice of what is pruned: old zeros first, then dead inputs, then the lowest scores within the budget."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsify.prune.problem import BLOCK, Budget, Note, Scope, lowest

_OLD = -2.0  # score of what was zero before; dead inputs get -1 to 0, all others 0 or more


class Selection:
    """Picks the weights of one matrix that go, as often as asked, always exactly the same number.

    What was zero before (`keep` False) stays zero and is charged to the budget. Inputs that are always zero (`dead`) go
    next, the smallest weights first, as far as the budget reaches. Where a block or row has more of these than its
    share, the others give up as much in proportion, so that the total stays exact.

    Attributes:
        total: Zeros that the budget asks for.
        notes: What a reader must know about the budget.
    """

    def __init__(
        self,
        weight: Tensor,
        budget: Budget,
        scope: Scope,
        *,
        keep: Tensor | None = None,
        dead: Tensor | None = None,
    ) -> None:
        """Work out how many go in each group.

        Args:
            weight: Float32 [out, in].
            budget: How many weights go.
            scope: What the method uses where the budget does not say.
            keep: Bool [out, in]; False = zero before.
            dead: Bool [in]; True = the input is always zero.

        Raises:
            SparsifyError: The pattern does not divide the columns, or the count does not fit.
        """
        self.budget = budget
        self.scope: Scope = budget.scope or scope
        self.shape = weight.shape[0], weight.shape[1]
        self.total = budget.zeros(*self.shape, self.scope)
        self._old = None if keep is None or bool(keep.all()) else ~keep
        self._dead = dead if dead is not None and bool(dead.any()) else None
        self._dead_scores = -1.0 / (1.0 + weight[:, self._dead].abs()) if self._dead is not None else None
        self.notes = self._notes()
        self._quota = self._quotas()

    def pick(self, scores: Tensor) -> Tensor:
        """Choose by `scores`, float [out, in], none negative: bool [out, in], True on what is pruned."""
        scores = self.rank(scores)
        if self.budget.nm is not None:
            return lowest(scores.reshape(-1, self.budget.nm[1]), self._quota).reshape(self.shape)
        if self.scope == "row":
            return lowest(scores, self._quota)
        if self.scope == "matrix":
            return lowest(scores.reshape(1, -1), self._quota).reshape(self.shape)
        parts = [
            lowest(part.reshape(1, -1), int(quota)).reshape(part.shape)
            for part, quota in zip(scores.split(BLOCK, dim=1), self._quota.tolist(), strict=True)
        ]
        return torch.cat(parts, dim=1)

    def rank(self, scores: Tensor, start: int = 0) -> Tensor:
        """`scores` of the columns from `start` on, with old zeros and dead inputs put below all others."""
        columns = slice(start, start + scores.shape[1])
        if self._dead is not None and self._dead_scores is not None:
            before = int(self._dead[:start].sum())
            dead = self._dead[columns]
            scores = scores.clone()
            scores[:, dead] = self._dead_scores[:, before : before + int(dead.sum())]
        return scores if self._old is None else scores.masked_fill(self._old[:, columns], _OLD)

    def group_quota(self, start: int, stop: int) -> int | Tensor:
        """How many go in each group of M of the columns from `start` to `stop`: one number, or int [out · groups]."""
        assert self.budget.nm is not None
        n, m = self.budget.nm
        if self._old is None:
            return m - n
        return self._old[:, start:stop].reshape(-1, m).sum(1).clamp(min=m - n)

    def block_quotas(self, width: int) -> Tensor:
        """How many go in each block of `width` columns, for a method that chooses block by block.

        Returns:
            Int64 [1, blocks], or [out, blocks] where weights compete within rows.
        """
        rows, columns = self.shape
        stops = [min(start + width, columns) for start in range(0, columns, width)]
        old, dead = self._counts(width)
        if self.scope == "row":
            row_quota = self._quota.expand(rows)
            ends = torch.tensor(stops, device=row_quota.device)
            ideal = (2 * row_quota[:, None] * ends + columns) // (2 * columns)
        else:
            ideal = torch.tensor([[self._due(stop) for stop in stops]], device=old.device)
            old, dead = old.sum(0, keepdim=True), dead.sum(0, keepdim=True)
        return _settle(ideal.diff(dim=1, prepend=ideal.new_zeros(len(ideal), 1)), old, dead)

    def _due(self, stop: int) -> int:
        rows, columns = self.shape
        if stop == columns:
            return self.total
        if self.budget.count is not None or self.budget.sparsity is None:
            return (2 * self.total * stop + columns) // (2 * columns)
        return round(self.budget.sparsity * stop * rows)

    def _quotas(self) -> Tensor:
        rows, _ = self.shape
        if self.budget.nm is not None:
            n, m = self.budget.nm
            groups = 0 if self._old is None else self._old.reshape(-1, m).sum(1)
            return torch.as_tensor(groups).clamp(min=m - n)
        if self.scope == "block":
            return self.block_quotas(BLOCK)[0]
        old, dead = self._counts(self.shape[1])
        if self.scope == "matrix":
            return old.sum().clamp(min=self.total).reshape(1)
        even = torch.full((1, rows), self.total // rows, device=old.device)
        even[0, : self.total % rows] += 1
        quota = _settle(even, old.T, dead.T)[0]
        return quota[:1] if bool((quota == quota[0]).all()) else quota

    def _counts(self, width: int) -> tuple[Tensor, Tensor]:
        """Old zeros, and other weights of dead inputs, in each block of `width` columns: int64 [out, blocks] each."""
        rows, columns = self.shape
        device = None if self._old is None else self._old.device
        device = device if self._dead is None else self._dead.device
        none = torch.zeros(rows, -(-columns // width), dtype=torch.int64, device=device)
        old, dead = none, none
        if self._old is not None:
            old = torch.stack([part.sum(1) for part in self._old.split(width, dim=1)], dim=1)
        if self._dead is not None:
            lost = self._dead.expand(rows, columns) if self._old is None else self._dead & ~self._old
            dead = torch.stack([part.sum(1) for part in lost.split(width, dim=1)], dim=1)
        return old, dead

    def _notes(self) -> tuple[Note, ...]:
        notes = []
        rows, columns = self.shape
        if self._dead is not None:
            lost = int(self._dead.sum())
            if lost == columns:
                notes.append(Note("dead_inputs", f"all {columns} inputs were always zero; pruned by magnitude"))
            elif lost * rows > self.total and self.budget.nm is None:
                notes.append(Note("dead_inputs", f"{lost} of {columns} inputs were always zero, more than the budget"))
        if self._old is not None:
            old, asked = int(self._old.sum()), self.total
            if self.budget.nm is not None:
                n, m = self.budget.nm
                old = int((self._old.reshape(-1, m).sum(1) - (m - n)).clamp(min=0).sum()) + asked
            if old > asked:
                notes.append(Note("over_budget", f"{old} zeros instead of {asked}, because earlier zeros stay"))
        return tuple(notes)


def apportion(total: Tensor, weights: Tensor) -> Tensor:
    """Divide whole numbers in proportion to weights, by largest remainder; equal remainders by position.

    Args:
        total: Int64 [sets], each at most the sum of its weights.
        weights: Int64 [sets, parts], none negative. No part gets more than its weight.

    Returns:
        Int64 [sets, parts] with the row sums `total`.
    """
    whole = weights.sum(1, keepdim=True).clamp(min=1)
    scaled = total[:, None] * weights
    shares, rest = scaled // whole, scaled % whole
    left = total[:, None] - shares.sum(1, keepdim=True)
    order = torch.argsort(rest, dim=1, descending=True, stable=True)
    place = torch.arange(weights.shape[1], device=weights.device).expand_as(weights)
    return shares + (torch.empty_like(order).scatter_(1, order, place) < left)


def _settle(base: Tensor, old: Tensor, dead: Tensor) -> Tensor:
    """Make room for old zeros and dead inputs, all int64 [sets, groups], without changing the row sums of `base`."""
    total, floor = base.sum(1), old + dead
    excess = (floor - base).clamp(min=0).sum(1)
    fitting = torch.maximum(base, floor) - apportion(excess, (base - floor).clamp(min=0))
    # Not all dead inputs fit: only they go, besides the old zeros, which all stay even where they alone are too many.
    partly = old + apportion((total - old.sum(1)).clamp(min=0), dead)
    return torch.where((floor.sum(1) <= total)[:, None], fitting, partly)
