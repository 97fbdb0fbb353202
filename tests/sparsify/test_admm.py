"""ADMM against exhaustive search, an eigenbasis transcription, and the other solvers."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.admm import Ladder, admm
from sparsify.prune.problem import Budget, Solution, relative_error
from sparsify.prune.refine import Stopping, refine
from sparsify.prune.sparsegpt import sparsegpt
from sparsify.prune.wanda import wanda


def outliers(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """A layer whose inputs are correlated, nearly of low rank, and giant in a few channels."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(columns, columns, generator=generator)).Q
    inputs = torch.randn(8 * columns, columns, generator=generator) * torch.logspace(0, -1.5, columns) @ basis
    scale = torch.exp(0.5 * torch.randn(columns, generator=generator))
    scale[torch.randperm(columns, generator=generator)[: columns // 40 + 1]] *= 20
    inputs *= scale
    return 0.05 * torch.randn(rows, columns, generator=generator), inputs.T @ inputs * (2 / 16)


def error(weight: Tensor, hessian: Tensor, solution: Solution) -> float:
    return relative_error(weight, solution.weight, hessian)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("budget", [Budget(0.5), Budget(0.7), Budget(0.8), Budget(nm=(2, 4)), Budget(nm=(4, 8))])
def test_order_of_the_solvers(budget: Budget, seed: int) -> None:
    weight, hessian = outliers(96, 128, seed)
    cheap, one_shot = wanda(weight, hessian, budget), sparsegpt(weight, hessian, budget)
    searched = admm(weight, hessian, budget)
    errors = [
        error(weight, hessian, refine(weight, hessian, searched.mask, start=searched.weight)),
        error(weight, hessian, refine(weight, hessian, one_shot.mask, start=one_shot.weight)),
        error(weight, hessian, one_shot),
        error(weight, hessian, cheap),
    ]
    assert errors == sorted(errors)
    assert errors[0] < (0.8 if budget.nm is None else 0.95) * errors[1], "a better mask, not only better values"
    assert errors[1] < 0.8 * errors[2]
    assert errors[2] < 0.9 * errors[3]


@pytest.mark.parametrize("seed", range(6))
def test_close_to_the_best_of_all_masks(seed: int) -> None:
    weight, hessian = outliers(1, 10, seed)
    w, h = weight.double()[0], hessian.double()
    best = min(_loss(w, h, list(kept)) for kept in combinations(range(10), 5))
    found = admm(weight, hessian, Budget(0.5), percdamp=1e-4)
    reached = _loss(w, h, found.mask[0].nonzero()[:, 0].tolist())
    cheap = _loss(w, h, wanda(weight, hessian, Budget(0.5)).mask[0].nonzero()[:, 0].tolist())
    assert best * (1 - 1e-9) <= reached
    assert reached < max(1.5 * best, best + 0.5 * (cheap - best))


def _loss(w: Tensor, h: Tensor, kept: list[int]) -> float:
    """What the best values on `kept` leave, by the normal equations."""
    change = w.clone()
    change[kept] -= torch.linalg.solve(h[kept][:, kept], h[kept] @ w)
    return float(change @ h @ change)


@pytest.mark.parametrize("budget", [Budget(0.6), Budget(nm=(2, 4))])
def test_steps_are_the_equations_in_the_eigenbasis(budget: Budget) -> None:
    weight, hessian = outliers(12, 24, 3)
    ladder = Ladder(0.3, 1.2, levels=3, steps=2, patience=99)
    found = admm(weight, hessian, budget, ladder=ladder)
    scale = hessian.double().diagonal().sqrt()
    h = hessian.double() / scale / scale[:, None] + 0.01 * torch.eye(24, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(h)
    target = weight.double() * scale

    def project(x: Tensor) -> Tensor:
        groups = x.reshape(1, -1) if budget.nm is None else x.reshape(-1, 4)
        zeros = round(0.6 * x.numel()) if budget.nm is None else 2
        return groups.scatter(1, groups.abs().argsort(1)[:, :zeros], 0.0).reshape(x.shape)

    z = project(target)
    dual = torch.zeros_like(z)  # y, not yet divided by rho
    for rho in (0.3, 0.3, 0.6, 0.6, 1.2, 1.2):
        x = (target @ h + rho * z - dual) @ vectors / (values + rho) @ vectors.T
        z = project(x + dual / rho)
        dual = dual + rho * (x - z)
    torch.testing.assert_close(found.weight.double(), z / scale, rtol=1e-3, atol=1e-5)
    assert torch.equal(found.mask, z != 0)
    assert found.stats["admm_steps"] == 6


def test_search_ends_when_the_mask_stands_still() -> None:
    weight, hessian = outliers(32, 64, 0)
    short = admm(weight, hessian, Budget(0.7))
    assert short.stats["admm_steps"] < 60 and short.stats["admm_changed"] == 0
    # More steps of the same ladder's last ρ would change nothing.
    full = admm(weight, hessian, Budget(0.7), ladder=Ladder(patience=1000))
    assert full.stats["admm_steps"] == 60
    assert float((full.mask != short.mask).float().mean()) < 0.002
    cut = admm(weight, hessian, Budget(0.7), ladder=Ladder(levels=1, steps=2))
    assert cut.stats["admm_steps"] == 2 and cut.stats["admm_changed"] > 0


def test_weights_are_near_the_best_for_the_mask() -> None:
    weight, hessian = outliers(64, 96, 1)
    found = admm(weight, hessian, Budget(0.7))
    best = refine(weight, hessian, found.mask, start=found.weight, stopping=Stopping(200, 0.0))
    assert error(weight, hessian, found) < 1.1 * error(weight, hessian, best)


def test_going_on_from_a_sparse_model() -> None:
    weight, hessian = outliers(64, 96, 2)
    half = admm(weight, hessian, Budget(0.5))
    more = admm(half.weight, hessian, Budget(0.7), keep=half.mask)
    assert not bool((more.mask & ~half.mask).any())
    assert int((~more.mask).sum()) == round(0.7 * 64 * 96)
    values = refine(weight, hessian, more.mask, start=more.weight)
    other = sparsegpt(half.weight, hessian, Budget(0.7), keep=half.mask)
    assert error(weight, hessian, values) < error(weight, hessian, other)


def test_scale_of_the_hessian_and_units_of_the_inputs_do_not_matter() -> None:
    weight, hessian = outliers(24, 48, 0)
    found = admm(weight, hessian, Budget(0.6, scope="row"))
    # Powers of two, so that nothing is rounded differently.
    units = 2.0 ** torch.randint(-3, 4, (48,), generator=torch.Generator().manual_seed(0))
    other = admm(weight / units, 4 * hessian * units * units[:, None], Budget(0.6, scope="row"))
    assert torch.equal(found.mask, other.mask)
    torch.testing.assert_close(other.weight * units, found.weight)


def test_fewer_tokens_than_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 64, generator=generator)
    weight, hessian = torch.randn(16, 64, generator=generator), inputs.T @ inputs
    found = admm(weight, hessian, Budget(0.7))
    refined = refine(weight, hessian, found.mask, start=found.weight)
    assert error(weight, hessian, refined) < error(weight, hessian, sparsegpt(weight, hessian, Budget(0.7)))


def test_what_is_no_hessian() -> None:
    weight, hessian = outliers(8, 16, 0)
    direction = torch.linalg.eigh(hessian).eigenvectors[:, -1]
    broken = hessian - 2 * float(direction @ hessian @ direction) * torch.outer(direction, direction)
    broken.diagonal().copy_(hessian.diagonal())
    with pytest.raises(NumericsError, match="not positive semidefinite"):
        admm(weight, broken * (1 + 9 * (1 - torch.eye(16))), Budget(0.5))


@pytest.mark.parametrize("bad", [{"low": 0.0}, {"low": 3.0}, {"levels": 0}, {"steps": 0}, {"patience": 0}])
def test_bad_ladders(bad: dict[str, float]) -> None:
    with pytest.raises(SparsifyError, match="is no ladder"):
        Ladder(**bad)  # type: ignore[arg-type]
