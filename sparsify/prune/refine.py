"""Refine: with the mask fixed, the best values for the weights that are left, for all rows at once.

On a mask S the layer's problem falls apart into one least-squares problem per row, min (w − w')ᵀ H (w − w') over w'
supported on S. Its normal equations, [H (w − w')] = 0 on S, are solved by conjugate gradients with the diagonal of H as
preconditioner (Hestenes & Stiefel 1952; for pruned layers ALPS, arXiv 2406.07831, §3.3). Each row has its own step
lengths, but all rows share one matrix product a step.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.normalised import Normalised, normalise
from sparsify.prune.problem import Budget, Note, Solution, check_inputs


@dataclass(frozen=True)
class Stopping:
    """When conjugate gradients stop.

    Attributes:
        iterations: At most so many steps, each one matrix product [out, in] x [in, in].
        tolerance: A row is done when a step lowered its error by less than this share.
    """

    iterations: int = 32
    tolerance: float = 0.01


def refine(
    weight: Tensor,
    hessian: Tensor,
    mask: Tensor,
    *,
    start: Tensor | None = None,
    percdamp: float = 0.01,
    stopping: Stopping = Stopping(),  # noqa: B008 (frozen)
) -> Solution:
    """Minimise tr((W − W') (H + percdamp · diag(H)) (W − W')ᵀ) over W' supported on `mask`.

    No row ever gets worse than `start`, neither by this objective nor by its output error without damping; a row that
    would, keeps its start.

    Args:
        weight: Float32 [out, in], the dense weights W.
        hessian: Float32 [in, in], any multiple of the inputs' Gram matrix.
        mask: Bool [out, in], True where a weight is kept.
        start: Float32 [out, in], where to start; its values outside of `mask` are ignored. None = the dense weights.
        percdamp: Damping of each input relative to its own power (not to the mean, as SparseGPT's).
        stopping: When to stop.

    Returns:
        The same mask; stats `refine_iterations`, `refine_converged` (share of rows that met the tolerance),
        `error_before` and `error_after` (squared output error in the scale of `hessian`, without damping).

    Raises:
        NumericsError: A value is not finite.
        SparsifyError: Shapes do not fit.
    """
    check_inputs(weight, hessian, Budget(0.0), mask)
    begin = weight if start is None else start
    if begin.shape != weight.shape:
        raise SparsifyError(f"start of shape {tuple(begin.shape)} does not fit the weight {tuple(weight.shape)}")
    if not bool(torch.isfinite(begin).all()):
        raise NumericsError("the solution to refine holds non-finite values; the solver before it failed")
    problem = normalise(hessian, percdamp)
    first = (begin.to(torch.float32) * problem.scale).masked_fill_(~mask, 0.0)
    search = _Search(problem, weight.to(torch.float32) * problem.scale, first, mask)
    search.run(stopping)
    out = (search.solved / problem.scale).masked_fill_(~mask, 0.0)
    # Rows that keep their start keep it to the last bit.
    reverted = ~((search.after[0] < search.before[0]) & (search.after[1] <= search.before[1]))  # NaN reverts too
    out[reverted] = begin[reverted].to(torch.float32).masked_fill(~mask[reverted], 0.0)
    after = torch.where(reverted, search.before[1], search.after[1])
    stats = {
        "refine_iterations": float(search.steps),
        "refine_converged": search.converged / len(out),
        "error_before": float(search.before[1].sum()),
        "error_after": float(after.sum()),
    }
    # A start that is best already is no event.
    harmed = ~(search.after[1] <= search.before[1] * 1.001) | ~(search.after[0] <= search.before[0] * 1.001)
    lost = int(harmed.sum())
    notes = (Note("refine_reverted", f"{lost} of {len(out)} rows keep their start; refining made them worse"),)
    return Solution(out, mask.clone(), stats, notes if lost else ())


class _Search:
    """Conjugate gradients on all rows, in normalised coordinates, where the preconditioner is the identity.

    Attributes:
        solved: Float32 [out, in].
        before, after: The objective of each row, damped and plain, float32 [out] each.
        steps: Matrix products that were made in steps.
        converged: Rows that met the tolerance.
    """

    def __init__(self, problem: Normalised, target: Tensor, first: Tensor, mask: Tensor) -> None:
        self.problem, self.target, self.solved, self.mask = problem, target, first, mask
        change = target - first
        self.product = change @ problem.hessian
        self.before = problem.errors(change, self.product)
        self.after = self.before[0].clone(), self.before[1].clone()
        self.steps = self.converged = 0

    def run(self, stopping: Stopping) -> None:
        """Step until all rows are done. Finished rows are taken out whenever they are half of those under way."""
        rows = torch.arange(len(self.target), device=self.target.device)
        state = _State(self.solved, self.product, self.mask)
        state.error = self.before[0]
        while self.steps < stopping.iterations and len(rows):
            done = state.step(self.problem.hessian, stopping.tolerance)
            self.steps += 1
            if int(done.sum()) * 2 >= len(done):
                self._put(rows[done], state.only(done))
                self.converged += int(done.sum())
                rows, state = rows[~done], state.only(~done)
        self.converged += int(state.done.sum())
        self._put(rows, state)

    def _put(self, rows: Tensor, state: _State) -> None:
        self.solved[rows] = state.now
        damped, plain = self.problem.errors(self.target[rows] - state.now, state.product)
        self.after[0][rows], self.after[1][rows] = damped, plain


class _State:
    """Rows under way: solution, `product` = (target − now) @ hessian, search direction; `kept` = the mask."""

    def __init__(self, now: Tensor, product: Tensor, kept: Tensor) -> None:
        self.now, self.product, self.kept = now.clone(), product.clone(), kept
        self.direction = product.masked_fill(~kept, 0.0)
        self.power = self.direction.square().sum(1)
        # Below this the recursion for the residual is rounding noise, and steps along it can do harm.
        self.noise = self.power * torch.finfo(self.power.dtype).eps ** 2
        self.done = self.power <= 0
        self.error = self.power

    def only(self, rows: Tensor) -> _State:
        """The state of some rows, bool [rows]."""
        part = copy(self)
        for name, value in vars(self).items():
            setattr(part, name, value[rows])
        return part

    def step(self, hessian: Tensor, tolerance: float) -> Tensor:
        """One step of every row that is not done; answers which are done now."""
        pushed = self.direction @ hessian
        curvature = (self.direction * pushed).sum(1)
        moving = ~self.done & (curvature > 0) & (self.power > self.noise)
        length = torch.where(moving, self.power / curvature, 0.0)[:, None]
        self.now.addcmul_(length, self.direction)
        self.product.addcmul_(length, pushed, value=-1.0)
        gain = length[:, 0] * self.power  # exactly what the step takes off the row's objective
        self.error = self.error - gain
        residual = self.product.masked_fill(~self.kept, 0.0)
        left = residual.square().sum(1)
        self.direction = residual.add_(self.direction.mul_(torch.where(moving, left / self.power, 0.0)[:, None]))
        self.power = left
        self.done = self.done | ~moving | (gain <= tolerance * self.error.clamp(min=0))
        return self.done
