"""Refine against explicit least squares in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.problem import Budget
from sparsify.prune.refine import Stopping, refine
from sparsify.prune.sparsegpt import sparsegpt
from sparsify.prune.wanda import wanda

EXACT = Stopping(iterations=400, tolerance=0.0)


def layer(rows: int, columns: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight and the Hessian of correlated inputs, a few of them giant."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    scale = torch.exp(0.5 * torch.randn(columns, generator=generator))
    scale[:2] *= 20
    inputs = (torch.randn(6 * columns, columns, generator=generator) @ mixing + 0.3) * scale
    return torch.randn(rows, columns, generator=generator), inputs.T @ inputs * (2 / 16)


def optimum(weight: Tensor, hessian: Tensor, mask: Tensor, percdamp: float) -> Tensor:
    """Row by row, the survivors S from the normal equations H_SS w'_S = H_S: w."""
    w, h = weight.double(), hessian.double()
    h = h + percdamp * torch.diag(h.diagonal())
    best = torch.zeros_like(w)
    for i in range(len(w)):
        at = mask[i].nonzero()[:, 0]
        if len(at):
            best[i, at] = torch.linalg.solve(h[at][:, at], h[at] @ w[i])
    return best


def objective(weight: Tensor, other: Tensor, hessian: Tensor, percdamp: float) -> Tensor:
    """Of each row, in float64."""
    h = hessian.double()
    change = weight.double() - other.double()
    return ((change @ (h + percdamp * torch.diag(h.diagonal()))) * change).sum(1)


@pytest.mark.parametrize("percdamp", [0.0, 0.01])
@pytest.mark.parametrize("sparsity", [0.5, 0.8])
def test_reaches_the_least_squares_optimum(sparsity: float, percdamp: float) -> None:
    weight, hessian = layer(24, 40)
    for first in (wanda(weight, hessian, Budget(sparsity)), sparsegpt(weight, hessian, Budget(sparsity))):
        refined = refine(weight, hessian, first.mask, start=first.weight, percdamp=percdamp, stopping=EXACT)
        best = optimum(weight, hessian, first.mask, percdamp)
        floor = objective(weight, best, hessian, percdamp)
        assert bool((objective(weight, refined.weight, hessian, percdamp) <= floor * 1.0005).all())
        torch.testing.assert_close(refined.weight.double(), best, rtol=5e-3, atol=5e-3)
        assert torch.equal(refined.mask, first.mask)
        gone = refined.weight[~first.mask]
        assert bool((gone == 0).all()) and not bool(torch.signbit(gone).any())


def test_optimal_brain_surgeon_is_the_best_answer_to_one_lost_weight() -> None:
    # For one pruned weight q the optimum is known in closed form: w − w_q / [H⁻¹]_qq · [H⁻¹]_:q.
    weight, hessian = layer(1, 12)
    inverse = torch.linalg.inv(hessian.double())
    for lost in range(12):
        mask = torch.ones(1, 12, dtype=torch.bool)
        mask[0, lost] = False
        expected = weight.double() - weight[0, lost].double() / inverse[lost, lost] * inverse[lost]
        refined = refine(weight, hessian, mask, percdamp=0.0, stopping=EXACT)
        torch.testing.assert_close(refined.weight.double(), expected, rtol=1e-3, atol=1e-3)


def test_every_further_step_lowers_the_objective() -> None:
    weight, hessian = layer(16, 64)
    first = sparsegpt(weight, hessian, Budget(0.7))
    last = objective(weight, first.weight, hessian, 0.01)
    for steps in range(1, 12):
        refined = refine(weight, hessian, first.mask, start=first.weight, stopping=Stopping(steps, 0.0))
        now = objective(weight, refined.weight, hessian, 0.01)
        assert bool((now <= last * (1 + 1e-6)).all())
        last = now
    assert refined.stats["refine_iterations"] == 11
    assert float(last.sum()) < 0.8 * float(objective(weight, first.weight, hessian, 0.01).sum())


def test_statistics_are_the_output_errors() -> None:
    weight, hessian = layer(16, 64)
    first = wanda(weight, hessian, Budget(0.6))
    refined = refine(weight, hessian, first.mask, start=first.weight)
    for key, other in (("error_before", first.weight), ("error_after", refined.weight)):
        assert refined.stats[key] == pytest.approx(float(objective(weight, other, hessian, 0.0).sum()), rel=1e-3)
    assert refined.stats["error_after"] < 0.7 * refined.stats["error_before"]


def test_rows_stop_on_their_own() -> None:
    weight, hessian = layer(16, 64)
    mask = wanda(weight, hessian, Budget(0.6)).mask
    done = refine(weight, hessian, mask, stopping=Stopping(200, 1e-3))
    assert done.stats["refine_converged"] == 1.0
    assert 3 < done.stats["refine_iterations"] < 100
    cut = refine(weight, hessian, mask, stopping=Stopping(3, 1e-6))
    assert cut.stats["refine_converged"] < 1.0
    # A row alone and the same row among others give the same answer.
    alone = refine(weight[3:4], hessian, mask[3:4], stopping=Stopping(200, 1e-3))
    torch.testing.assert_close(alone.weight, done.weight[3:4], rtol=1e-3, atol=1e-3)


def test_a_solution_that_is_best_already_is_returned_as_it_is() -> None:
    weight, hessian = layer(8, 32)
    mask = wanda(weight, hessian, Budget(0.5)).mask
    # The undamped optimum: any step towards the heavily damped one makes the outputs worse.
    best = optimum(weight, hessian, mask, 0.0).float().masked_fill(~mask, 0.0)
    kept = refine(weight, hessian, mask, start=best, percdamp=1.0)
    assert torch.equal(kept.weight, best)
    assert [note.kind for note in kept.notes] == ["refine_reverted"]
    assert kept.stats["error_after"] == kept.stats["error_before"]
    # With nothing to gain and nothing to lose there is nothing to report.
    again = refine(weight, hessian, mask, start=best, percdamp=0.0)
    assert again.notes == ()
    assert again.stats["error_after"] <= again.stats["error_before"]


def test_nothing_to_solve() -> None:
    weight, hessian = layer(4, 16)
    for hessian_, mask in (
        (torch.zeros(16, 16), torch.rand(4, 16) > 0.5),
        (hessian, torch.zeros(4, 16, dtype=torch.bool)),
        (hessian, torch.ones(4, 16, dtype=torch.bool)),
    ):
        refined = refine(weight, hessian_, mask)
        torch.testing.assert_close(refined.weight, weight.masked_fill(~mask, 0.0))


def test_dead_inputs_are_left_alone() -> None:
    weight, hessian = layer(6, 24)
    hessian[[3, 7]], hessian[:, [3, 7]] = 0.0, 0.0
    mask = torch.rand(6, 24, generator=torch.Generator().manual_seed(1)) > 0.4
    refined = refine(weight, hessian, mask)
    assert torch.equal(refined.weight[:, [3, 7]], weight.masked_fill(~mask, 0.0)[:, [3, 7]])


def test_bad_input() -> None:
    weight, hessian = layer(4, 16)
    mask = torch.ones(4, 16, dtype=torch.bool)
    with pytest.raises(NumericsError, match="weight holds non-finite"):
        refine(weight * float("nan"), hessian, mask)
    with pytest.raises(NumericsError, match="solution to refine"):
        refine(weight, hessian, mask, start=weight * float("inf"))
    with pytest.raises(SparsifyError, match="earlier mask"):
        refine(weight, hessian, mask[:, :8])
    with pytest.raises(SparsifyError, match="start of shape"):
        refine(weight, hessian, mask, start=weight[:2])
    with pytest.raises(SparsifyError, match="does not fit 16 inputs"):
        refine(weight, hessian[:8, :8], mask)
