"""Refine: with the mask fixed, the best values for the weights that are left, for all rows at once.

On a mask S the layer's problem falls apart into one least-squares problem per row, min (w − w')ᵀ H (w − w') over w'
supported on S. Its normal equations, [H (w − w')] = 0 on S, are solved by conjugate gradients with the diagonal of H as
preconditioner (Hestenes & Stiefel 1952; for pruned layers ALPS, arXiv 2406.07831, §3.3). Each row has its own step
lengths, but all rows share one matrix product a step.
"""

from __future__ import annotations

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
    tolerance: float = 1e-3


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
        `error_before` and `error_after` (relative squared output error, without damping).

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
    target = weight.to(torch.float32) * problem.scale
    first = (begin.to(torch.float32) * problem.scale).masked_fill_(~mask, 0.0)
    search = _Search(problem, target, first, mask, stopping)
    search.run()
    solved, before, after, reverted = search.result()
    out = (solved / problem.scale).masked_fill_(~mask, 0.0)
    # Rows that kept their start keep it to the last bit.
    out = torch.where(reverted[:, None], begin.to(torch.float32).masked_fill(~mask, 0.0), out)
    energy = float(problem.errors(target, target @ problem.hessian)[1].sum())
    stats = {
        "refine_iterations": float(search.steps),
        "refine_converged": float(search.done.float().mean()),
        "error_before": float(before.sum()) / energy if energy > 0 else 0.0,
        "error_after": float(after.sum()) / energy if energy > 0 else 0.0,
    }
    lost = int(reverted.sum())
    notes = (Note("refine_reverted", f"{lost} of {len(out)} rows keep their start, refining made no gain"),)
    return Solution(out, mask.clone(), stats, notes if lost else ())


class _Search:
    """Conjugate gradients on all rows, in normalised coordinates, where the preconditioner is the identity."""

    def __init__(self, problem: Normalised, target: Tensor, first: Tensor, mask: Tensor, stopping: Stopping) -> None:
        self.problem, self.target, self.first, self.stopping = problem, target, first, stopping
        self.gone = ~mask
        self.now = first.clone()
        change = target - first
        product = change @ problem.hessian
        self.before = problem.errors(change, product)
        self.residual = product.masked_fill_(self.gone, 0.0)
        self.steps = 0
        self.done = torch.zeros(len(target), dtype=torch.bool, device=target.device)

    def run(self) -> None:
        direction = self.residual.clone()
        power = self.residual.square().sum(1)
        # Below this the recursion for the residual is rounding noise, and steps along it can do harm.
        noise = power * torch.finfo(power.dtype).eps ** 2
        error = self.before[0].clone()
        while self.steps < self.stopping.iterations and not bool(self.done.all()):
            pushed = (direction @ self.problem.hessian).masked_fill_(self.gone, 0.0)
            curvature = (direction * pushed).sum(1)
            moving = ~self.done & (curvature > 0) & (power > noise)
            length = torch.where(moving, power / curvature, 0.0)
            self.now.addcmul_(length[:, None], direction)
            self.residual.addcmul_(length[:, None], pushed, value=-1.0)
            gain = length * power  # exactly what the step takes off the row's objective
            error -= gain
            left = self.residual.square().sum(1)
            self.done |= ~moving | (gain <= self.stopping.tolerance * error.clamp(min=0))
            direction.mul_(torch.where(moving, left / power, 0.0)[:, None]).add_(self.residual)
            power = left
            self.steps += 1

    def result(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The solution, the plain error of each row at the start and at the end, and which rows keep their start."""
        change = self.target - self.now
        damped, plain = self.problem.errors(change, change @ self.problem.hessian)
        better = (damped <= self.before[0]) & (plain <= self.before[1])  # false for NaN too
        return (
            torch.where(better[:, None], self.now, self.first),
            self.before[1],
            torch.where(better, plain, self.before[1]),
            ~better,
        )
