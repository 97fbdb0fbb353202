"""ADMM, a search over masks that changes all weights at once.

After Boža 2024 (arXiv 2401.02938) and ALPS (Meng et al. 2024, arXiv 2406.07831, §3). The layer's problem, min over W'
in S of ½ tr((W − W') H (W − W')ᵀ) with S the weights that meet the budget, is split into X, which is free, and Z in S,
tied by X = Z with the scaled dual U (Boyd et al. 2011, §3.1.1). One step:

    X = (W H + ρ (Z − U)) (H + ρ I)⁻¹ = W + ρ (Z − U − W) (H + ρ I)⁻¹
    Z = projection of X + U on S, which keeps the largest values
    U = U + X − Z

All in coordinates in which H has unit diagonal. There a small ρ lets the mask wander to where the objective is low and
a large one holds it; so ρ grows from one to the other. It grows on a ladder of few levels, at each of which H + ρ I is
inverted once by Cholesky: a step is then one matrix product, half of what a step costs in the eigenbasis of H, and ten
factorisations cost less than one eigendecomposition, in time and in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.normalised import Normalised, normalise
from sparsify.prune.problem import Budget, Note, Solution, check_inputs
from sparsify.prune.selection import Selection


@dataclass(frozen=True)
class Ladder:
    """How ρ grows.

    Attributes:
        low: The first ρ, in units of an input's power.
        high: The last.
        levels: Values of ρ, in equal ratios.
        steps: ADMM steps at each level; in all at most levels · steps.
        patience: The search ends once the mask stayed the same for so many steps.
    """

    low: float = 0.05
    high: float = 2.0
    levels: int = 10
    steps: int = 6
    patience: int = 3

    def __post_init__(self) -> None:
        if not (0 < self.low <= self.high and self.levels > 0 and self.steps > 0 and self.patience > 0):
            raise SparsifyError(f"{self} is no ladder; 0 < low <= high and all counts above 0")

    def values(self) -> list[float]:
        """Every level's ρ."""
        span = max(1, self.levels - 1)
        return [self.low * (self.high / self.low) ** (level / span) for level in range(self.levels)]


def admm(
    weight: Tensor,
    hessian: Tensor,
    budget: Budget,
    *,
    percdamp: float = 0.01,
    keep: Tensor | None = None,
    ladder: Ladder = Ladder(),  # noqa: B008 (frozen)
) -> Solution:
    """Search for the mask; its weights are close to the best for it, and `refine` from there finds the best.

    Args:
        weight: Float32 [out, in].
        hessian: Float32 [in, in], any multiple of the inputs' Gram matrix.
        budget: How many weights go; they compete over the whole matrix unless it says otherwise.
        percdamp: Damping of each input relative to its own power, as in `refine`.
        keep: Bool [out, in]; what is False was pruned before, stays zero and is charged to the budget.
        ladder: How ρ grows and when to stop.

    Returns:
        Stats `admm_steps`, `admm_changed` (weights whose fate the last step changed), `dead_columns`, `damping`.

    Raises:
        NumericsError: A value is not finite, or the Hessian is not positive semidefinite.
        SparsifyError: The budget does not fit the shape.
    """
    check_inputs(weight, hessian, budget, keep)
    problem = normalise(hessian, percdamp)
    selection = Selection(weight, budget, "matrix", keep=keep, dead=problem.dead)
    search = _Search(problem, weight.to(torch.float32) * problem.scale, selection)
    for rho in ladder.values():
        search.climb(rho)
        for _ in range(ladder.steps):
            search.step()
            if search.unchanged >= ladder.patience:
                break
        if search.unchanged >= ladder.patience:
            break
    stats = {
        "admm_steps": float(search.steps),
        "admm_changed": float(search.changed),
        "damping": percdamp,
        "dead_columns": float(problem.dead.sum()),
    }
    out = (search.sparse / problem.scale).masked_fill_(search.pruned, 0.0)
    return Solution(out, ~search.pruned, stats, selection.notes + tuple(search.notes))


class _Search:
    """The state of the search, in normalised coordinates."""

    def __init__(self, problem: Normalised, target: Tensor, selection: Selection) -> None:
        self.problem, self.target, self.selection = problem, target, selection
        self.pruned = selection.pick(target.abs())
        self.sparse = target.masked_fill(self.pruned, 0.0)
        self.dual = torch.zeros_like(target)
        self.rho = 0.0
        self.inverse = problem.hessian
        self.steps = self.changed = self.unchanged = 0
        self.notes: list[Note] = []

    def climb(self, rho: float) -> None:
        """Go to another ρ; the dual is stored divided by it."""
        self.inverse = self._invert(rho)
        if self.rho:
            self.dual.mul_(self.rho / rho)
        self.rho = rho

    def step(self) -> None:
        """One round of X, Z and U."""
        rest = torch.sub(self.sparse, self.dual).sub_(self.target)
        sum_ = torch.addmm(self.target, rest, self.inverse, alpha=self.rho).add_(self.dual)
        pruned = self.selection.pick(sum_.abs())
        self.sparse = sum_.masked_fill(pruned, 0.0)
        self.dual = sum_.sub_(self.sparse)
        self.changed = int((pruned != self.pruned).sum())
        self.unchanged = 0 if self.changed else self.unchanged + 1
        self.pruned = pruned
        self.steps += 1

    def _invert(self, rho: float) -> Tensor:
        shifted = self.problem.hessian.clone()
        shifted.diagonal().add_(rho)
        lower, info = torch.linalg.cholesky_ex(shifted)
        if int(info):
            raise NumericsError(
                "the Hessian is not positive semidefinite; the Gram matrix is damaged or lost precision"
            )
        return torch.cholesky_inverse(lower)
