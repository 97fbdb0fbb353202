"""The pruning solvers against independent references and hand-made cases."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError
from sparsify.masks import broken_groups
from sparsify.prune.magnitude import magnitude
from sparsify.prune.problem import Budget, Solution, lowest, relative_error
from sparsify.prune.sparsegpt import inverse_factor, sparsegpt
from sparsify.prune.wanda import wanda


def correlated(rows: int, columns: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight and the Hessian of inputs that are correlated and of uneven scale."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    scale = torch.exp(torch.randn(columns, generator=generator))
    inputs = (torch.randn(4 * columns, columns, generator=generator) @ mixing + 0.3) * scale
    return torch.randn(rows, columns, generator=generator), inputs.T @ inputs * (2 / 16)


def eliminate(weight: Tensor, hessian: Tensor, sparsity: float, percdamp: float = 0.01) -> Tensor:
    """SparseGPT written out in float64 as Optimal Brain Surgeon: invert, prune a column, eliminate it, go on.

    No Cholesky factor and no lazy blocks; one block holds all columns.
    """
    work, h = weight.double().clone(), hessian.double().clone()
    h += percdamp * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)
    inverse = torch.linalg.inv(h)
    pivots = torch.empty(len(h), dtype=h.dtype)
    eliminated = inverse.clone()
    for j in range(len(h)):
        pivots[j] = eliminated[j, j]
        eliminated = eliminated - torch.outer(eliminated[:, j], eliminated[j]) / eliminated[j, j]
    scores = work.square() / pivots
    order = scores.flatten().sort().indices[: round(sparsity * work.numel())]
    pruned = torch.zeros(work.numel(), dtype=torch.bool).index_fill_(0, order, True).reshape(work.shape)
    for j in range(work.shape[1]):
        error = torch.where(pruned[:, j], work[:, j], 0.0) / inverse[j, j]
        work -= torch.outer(error, inverse[j])
        work[:, j] = work[:, j].masked_fill(pruned[:, j], 0.0)
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        inverse[j] = inverse[:, j] = 0.0
        inverse[j, j] = 1.0
    return work


def reference_rule(weight: Tensor, hessian: Tensor, sparsity: float, block_size: int) -> Tensor:
    """The mask of IST-DASLab/sparsegpt, `<=` and all, True where pruned."""
    w, h = weight.clone(), hessian.clone()
    h += 0.01 * h.diagonal().mean() * torch.eye(len(h))
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    pruned = torch.zeros_like(w, dtype=torch.bool)
    for i1 in range(0, w.shape[1], block_size):
        i2 = min(i1 + block_size, w.shape[1])
        w1, u1 = w[:, i1:i2].clone(), u[i1:i2, i1:i2]
        err1 = torch.zeros_like(w1)
        scores = w1**2 / u1.diagonal().reshape(1, -1) ** 2
        mask1 = scores <= scores.flatten().sort()[0][int(scores.numel() * sparsity)]
        for i in range(i2 - i1):
            q = w1[:, i].clone()
            q[mask1[:, i]] = 0
            err = (w1[:, i] - q) / u1[i, i]
            w1[:, i:] -= err.unsqueeze(1) @ u1[i, i:].unsqueeze(0)
            err1[:, i] = err
        pruned[:, i1:i2] = mask1
        w[:, i2:] -= err1 @ u[i1:i2, i2:]
    return pruned


def assert_exact_zeros(solution: Solution) -> None:
    gone = solution.weight[~solution.mask]
    assert bool((gone == 0).all())
    assert not bool(torch.signbit(gone).any()), "-0.0 breaks byte comparisons"


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
def test_sparsegpt_is_optimal_brain_surgeon(sparsity: float) -> None:
    weight, hessian = correlated(20, 36)
    solution = sparsegpt(weight, hessian, Budget(sparsity), block_size=64)
    expected = eliminate(weight, hessian, sparsity)
    assert torch.equal(solution.mask, expected != 0)
    torch.testing.assert_close(solution.weight.double(), expected, rtol=2e-3, atol=2e-3)


def test_lazy_blocks_change_nothing_but_the_mask_rule() -> None:
    weight, hessian = correlated(24, 48)
    # With N:M the mask does not depend on blocks, so any block size gives the same answer.
    whole = sparsegpt(weight, hessian, Budget(0.5, (2, 4)), block_size=48)
    lazy = sparsegpt(weight, hessian, Budget(0.5, (2, 4)), block_size=8)
    assert torch.equal(whole.mask, lazy.mask)
    torch.testing.assert_close(whole.weight, lazy.weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("sparsity", "block_size"), [(0.5, 16), (0.7, 16), (0.7, 100), (0.5, 100)])
def test_mask_against_the_reference_rule(sparsity: float, block_size: int) -> None:
    weight, hessian = correlated(64, 48, seed=3)
    ours = ~sparsegpt(weight, hessian, Budget(sparsity), block_size=block_size).mask
    theirs = reference_rule(weight, hessian, sparsity, block_size)
    # `<=` takes int(k) + 1 per block; after a block that differs, the compensated weights differ a little too.
    widths = [min(start + block_size, 48) - start for start in range(0, 48, block_size)]
    assert int(theirs.sum()) == sum(int(64 * width * sparsity) + 1 for width in widths)
    assert int(ours.sum()) == round(64 * 48 * sparsity)
    first = slice(0, widths[0])
    overshoot = int(64 * widths[0] * sparsity) + 1 - round(64 * widths[0] * sparsity)
    assert int((ours[:, first] & ~theirs[:, first]).sum()) == 0
    assert int((theirs[:, first] & ~ours[:, first]).sum()) == overshoot
    assert float((ours != theirs).float().mean()) < 0.01


def test_factor_is_the_references() -> None:
    _, hessian = correlated(2, 40)
    factor, damping, notes = inverse_factor(hessian, 0.01)
    damped = (hessian + 0.01 * hessian.diagonal().mean() * torch.eye(40)).double()
    expected = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    torch.testing.assert_close(factor.double(), expected, rtol=1e-3, atol=1e-4)
    assert (damping, notes) == (0.01, [])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("budget", [Budget(0.5), Budget(0.7), Budget(0.5, (2, 4))])
def test_better_solvers_lose_less(budget: Budget, seed: int) -> None:
    weight, hessian = correlated(48, 64, seed=seed)
    solutions = (sparsegpt(weight, hessian, budget), wanda(weight, hessian, budget), magnitude(weight, budget))
    errors = [relative_error(weight, solution.weight, hessian) for solution in solutions]
    assert errors[0] < errors[1] < errors[2]


@given(
    rows=st.integers(1, 12),
    columns=st.integers(2, 40),
    sparsity=st.floats(0.05, 0.95),
    block_size=st.integers(1, 50),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_counts_are_exact(rows: int, columns: int, sparsity: float, block_size: int, seed: int) -> None:
    weight, hessian = correlated(rows, columns, seed=seed)
    weight[:, :: max(1, columns // 3)] = 0.25  # ties
    target = round(sparsity * rows * columns)
    ours = sparsegpt(weight, hessian, Budget(sparsity), block_size=block_size)
    assert int((~ours.mask).sum()) == target
    assert int((~magnitude(weight, Budget(sparsity)).mask).sum()) == target
    by_row = wanda(weight, hessian, Budget(sparsity))
    assert (~by_row.mask).sum(1).tolist() == [round(sparsity * columns)] * rows
    for solution in (ours, by_row):
        assert_exact_zeros(solution)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
def test_patterns(n: int, m: int) -> None:
    weight, hessian = correlated(16, 48)
    budget = Budget(1 - n / m, (n, m))
    for solution in (
        magnitude(weight, budget),
        wanda(weight, hessian, budget),
        sparsegpt(weight, hessian, budget, block_size=16),
    ):
        assert broken_groups(solution.weight, n, m) == 0
        assert solution.mask.reshape(16, -1, m).sum(-1).unique().tolist() == [n]
        assert_exact_zeros(solution)


def test_magnitude_and_wanda_by_hand() -> None:
    weight = torch.tensor([[1.0, -5.0, 2.0, 3.0], [-0.1, 0.2, 9.0, -8.0]])
    assert (~magnitude(weight, Budget(0.5)).mask).tolist() == [[True, False, True, False], [True, True, False, False]]
    hessian = torch.diag(torch.tensor([100.0, 0.01, 1.0, 1.0]))
    assert (~wanda(weight, hessian, Budget(0.5)).mask).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]


def test_columns_must_divide_into_groups() -> None:
    weight, hessian = correlated(4, 10)
    with pytest.raises(SparsifyError, match="10 columns do not divide into groups of 4"):
        sparsegpt(weight, hessian, Budget(0.5, (2, 4)))


def test_dead_columns_go_first_and_are_charged() -> None:
    weight, hessian = correlated(16, 32)
    dead = [3, 4, 20]
    hessian[dead], hessian[:, dead] = 0.0, 0.0
    for budget in (Budget(0.5), Budget(0.5, (2, 4))):
        solution = sparsegpt(weight, hessian, budget, block_size=16)
        assert not bool(solution.mask[:, dead].any())
        assert int((~solution.mask).sum()) == 16 * 16
        assert solution.stats["dead_columns"] == 3
        assert_exact_zeros(solution)
    live = [j for j in range(32) if j not in dead]
    error = relative_error(weight[:, live], solution.weight[:, live], hessian[live][:, live])
    assert error < 0.2


def test_more_dead_columns_than_budget_use_up_the_budget() -> None:
    weight, hessian = correlated(8, 16)
    hessian[:8], hessian[:, :8] = 0.0, 0.0
    solution = sparsegpt(weight, hessian, Budget(0.25), block_size=4)
    assert int((~solution.mask).sum()) == 32
    assert bool(solution.mask[:, 8:].all()), "no weight of a live input goes while dead ones are left"
    spared = solution.mask[:, :8]
    assert torch.equal(solution.weight[:, :8][spared], weight[:, :8][spared])
    assert [note.kind for note in solution.notes] == ["dead_inputs"]


def test_earlier_zeros_stay_and_are_charged() -> None:
    weight, hessian = correlated(32, 64)
    first = sparsegpt(weight, hessian, Budget(0.5))
    for second in (
        sparsegpt(first.weight, hessian, Budget(0.7), block_size=16, keep=first.mask),
        magnitude(first.weight, Budget(0.7), keep=first.mask),
    ):
        assert not bool((second.mask & ~first.mask).any())
        assert int((~second.mask).sum()) == round(0.7 * weight.numel())
        assert_exact_zeros(second)
    nm = sparsegpt(first.weight, hessian, Budget(0.5, (2, 4)), keep=first.mask)
    assert broken_groups(nm.weight, 2, 4) == 0
    assert not bool((nm.mask & ~first.mask).any())
    without = sparsegpt(first.weight, hessian, Budget(0.7), block_size=16)
    assert bool((without.mask & ~first.mask).any()), (
        "a second pass without `keep` revives zeros: `keep` is what holds them"
    )


def test_damping_ladder_names_each_step() -> None:
    weight, hessian = correlated(8, 16)
    direction = torch.linalg.eigh(hessian).eigenvectors[:, 0]
    mean = float(hessian.diagonal().mean())
    indefinite = hessian - 0.3 * mean * torch.outer(direction, direction)
    solution = sparsegpt(weight, indefinite, Budget(0.5), percdamp=0.01)
    assert solution.stats["damping"] == 1.0
    assert [note.detail.split(":")[0] for note in solution.notes] == ["0.01 to 0.1", "0.1 to 1"]
    assert {note.kind for note in solution.notes} == {"damping_raised"}
    with pytest.raises(NumericsError, match="damping 1"):
        sparsegpt(weight, indefinite - 50 * mean * torch.outer(direction, direction), Budget(0.5))


def test_singular_hessian_is_damped_not_replaced() -> None:
    weight, _ = correlated(8, 32)
    few = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    hessian = few.T @ few
    solution = sparsegpt(weight, hessian, Budget(0.5), percdamp=1e-12)
    assert solution.notes and solution.stats["damping"] < 1e-3
    assert relative_error(weight, solution.weight, hessian) < 0.1 * relative_error(
        weight, magnitude(weight, Budget(0.5)).weight, hessian
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_is_refused(bad: float) -> None:
    weight, hessian = correlated(4, 8)
    weight[0, 0] = bad
    with pytest.raises(NumericsError, match="non-finite"):
        magnitude(weight, Budget(0.5))
    with pytest.raises(NumericsError, match="non-finite"):
        wanda(torch.ones(4, 8), hessian * bad, Budget(0.5))


@given(scores=st.lists(st.integers(0, 3), min_size=1, max_size=30), data=st.data())
def test_lowest_is_exact_under_ties(scores: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(scores)))
    chosen = lowest(torch.tensor([scores], dtype=torch.float32), count)[0].tolist()
    assert sum(chosen) == count
    inside = [score for score, taken in zip(scores, chosen, strict=True) if taken]
    outside = [score for score, taken in zip(scores, chosen, strict=True) if not taken]
    assert not inside or not outside or max(inside) <= min(outside)
