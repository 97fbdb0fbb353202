"""SparseGPT against a transcription in plain Python and float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsify.prune.problem import Budget
from sparsify.prune.sparsegpt import factorise, sparsegpt


def layer(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    inputs = torch.randn(8 * columns, columns, generator=generator) @ (mixing + torch.eye(columns))
    return 0.3 * torch.randn(rows, columns, generator=generator), inputs.T @ inputs * (2 / 16)


def paper(
    weight: Tensor, hessian: Tensor, *, sparsity: float, nm: tuple[int, int] | None, block: int
) -> tuple[list[list[float]], int]:
    """Algorithm 1 of arXiv 2301.00774 with Bs = B (and §3.4 for N:M), number by number; `score <= threshold` and all.

    Returns:
        The weights, and how many the threshold pruned.
    """
    size = len(hessian)
    h = hessian.double()
    h = h + 0.01 * h.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    u = torch.linalg.cholesky(torch.linalg.inv(h), upper=True).tolist()
    w = weight.double().tolist()
    rows, pruned = range(len(w)), 0
    for first in range(0, size, block):
        last = min(first + block, size)
        gone: set[tuple[int, int]] = set()
        if nm is None:
            scores = {(r, j): (w[r][j] / u[j][j]) ** 2 for r in rows for j in range(first, last)}
            threshold = sorted(scores.values())[int(len(scores) * sparsity)]
            gone = {at for at, score in scores.items() if score <= threshold}
        errors = {}
        for j in range(first, last):
            if nm is not None and j % nm[1] == 0:
                for r in rows:
                    group = sorted(range(j, j + nm[1]), key=lambda c, r=r: (w[r][c] / u[c][c]) ** 2)
                    gone |= {(r, c) for c in group[: nm[1] - nm[0]]}
            for r in rows:
                error = (w[r][j] if (r, j) in gone else 0.0) / u[j][j]
                for c in range(j, last):
                    w[r][c] -= error * u[j][c]
                errors[r, j] = error
        for r in rows:
            for c in range(last, size):
                w[r][c] -= sum(errors[r, j] * u[j][c] for j in range(first, last))
        for r, j in gone:
            w[r][j] = 0.0
        pruned += len(gone)
    return w, pruned


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("sparsity", "block"), [(0.5, 16), (0.7, 16), (0.7, 48)])
def test_unstructured_is_the_papers(sparsity: float, block: int, seed: int) -> None:
    weight, hessian = layer(12, 48, seed)
    expected, pruned = paper(weight, hessian, sparsity=sparsity, nm=None, block=block)
    # Asked for as many as the paper's threshold takes, we choose the very same.
    ours = sparsegpt(weight, hessian, Budget(count=pruned), block_size=block)
    assert pruned == 48 // block * (int(12 * block * sparsity) + 1)
    torch.testing.assert_close(ours.weight.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-4)
    assert torch.equal(ours.mask, torch.tensor(expected) != 0)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("nm", [(2, 4), (4, 8), (1, 3)])
def test_patterns_are_the_papers(nm: tuple[int, int], seed: int) -> None:
    weight, hessian = layer(12, 48, seed)
    expected, _ = paper(weight, hessian, sparsity=0.5, nm=nm, block=24)
    ours = sparsegpt(weight, hessian, Budget(nm=nm), block_size=24)
    torch.testing.assert_close(ours.weight.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-4)
    assert torch.equal(ours.mask, torch.tensor(expected) != 0)


def test_a_shared_factor_changes_nothing() -> None:
    weight, hessian = layer(12, 48, 0)
    hessian[[2, 30]], hessian[:, [2, 30]] = 0.0, 0.0
    factor = factorise(hessian)
    for budget in (Budget(0.7), Budget(nm=(2, 4))):
        alone, shared = sparsegpt(weight, hessian, budget), sparsegpt(weight, factor, budget)
        assert torch.equal(alone.weight, shared.weight)
        assert alone.stats == shared.stats
