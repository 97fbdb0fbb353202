"""Budgets and the exact choice of what goes, against naive counting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError
from sparsify.masks import broken_groups
from sparsify.prune.admm import admm
from sparsify.prune.magnitude import magnitude
from sparsify.prune.problem import Budget, Scope, Solution, lowest
from sparsify.prune.selection import Selection, apportion
from sparsify.prune.sparsegpt import sparsegpt
from sparsify.prune.wanda import wanda

SCOPES: tuple[Scope, ...] = ("matrix", "block", "row")


def layer(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4 * columns, columns, generator=generator) * torch.rand(columns, generator=generator)
    inputs += inputs.roll(1, 1)
    return torch.randn(rows, columns, generator=generator), inputs.T @ inputs


def solve(method: str, weight: Tensor, hessian: Tensor, budget: Budget, keep: Tensor | None = None) -> Solution:
    if method == "magnitude":
        return magnitude(weight, budget, keep=keep)
    return {"wanda": wanda, "sparsegpt": sparsegpt, "admm": admm}[method](weight, hessian, budget, keep=keep)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "admm"])
def test_counts_are_exact_in_every_scope(method: str, scope: Scope) -> None:
    weight, hessian = layer(9, 301)
    if method == "sparsegpt" and scope == "matrix":
        with pytest.raises(SparsifyError, match="use scope block or row"):
            solve(method, weight, hessian, Budget(0.7, scope=scope))
        return
    for count in (0, 1, 1234, 2708, 2709):
        pruned = ~solve(method, weight, hessian, Budget(scope=scope, count=count)).mask
        assert int(pruned.sum()) == count
        if scope == "row":
            assert int(pruned.sum(1).max() - pruned.sum(1).min()) <= 1
        if scope == "block":
            for width, part in ((128, pruned[:, :128]), (256, pruned[:, :256])):
                assert abs(int(part.sum()) - count * width / 301) <= 0.5
    pruned = ~solve(method, weight, hessian, Budget(0.7, scope=scope)).mask
    assert int(pruned.sum()) == (9 * round(0.7 * 301) if scope == "row" else round(0.7 * 9 * 301))


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "admm"])
@pytest.mark.parametrize("scope", [*SCOPES, None])
def test_old_zeros_are_kept_and_charged(method: str, scope: Scope | None) -> None:
    if method == "sparsegpt" and scope == "matrix":
        return
    weight, hessian = layer(12, 260)
    # Very uneven: the first columns and rows hold far more old zeros than their share of the new budget.
    keep = torch.rand(12, 260, generator=torch.Generator().manual_seed(1)) > 0.3
    keep[:, :100] = False
    keep[:2] = False
    budget = Budget(0.7, scope=scope) if scope else Budget(count=2184)
    solution = solve(method, weight.masked_fill(~keep, 0.0), hessian, budget, keep)
    assert int((~solution.mask).sum()) == 2184 == 12 * round(0.7 * 260)
    assert not bool((solution.mask & ~keep).any())
    assert not bool(torch.signbit(solution.weight[~solution.mask]).any())
    assert solution.notes == ()


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "admm"])
def test_more_old_zeros_than_budget_is_noted(method: str) -> None:
    weight, hessian = layer(8, 64)
    keep = torch.rand(8, 64, generator=torch.Generator().manual_seed(1)) > 0.5
    weight = weight.masked_fill(~keep, 0.0)
    solution = solve(method, weight, hessian, Budget(0.25), keep)
    assert torch.equal(solution.mask, keep)
    assert [note.kind for note in solution.notes] == ["over_budget"]
    pattern = solve(method, weight, hessian, Budget(nm=(2, 4)), keep)
    assert broken_groups(pattern.weight, 2, 4) == 0 and not bool((pattern.mask & ~keep).any())
    zeros = int((~keep).reshape(-1, 4).sum(1).clamp(min=2).sum())
    assert int((~pattern.mask).sum()) == zeros
    assert pattern.notes[0].detail.startswith(f"{zeros} zeros instead of 256")


@pytest.mark.parametrize("nm", [(2, 4), (1, 4), (4, 8), (3, 5), (1, 32), (30, 32)])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "admm"])
def test_every_pattern(method: str, nm: tuple[int, int]) -> None:
    weight, hessian = layer(6, 160)
    solution = (
        sparsegpt(weight, hessian, Budget(nm=nm), block_size=160)
        if method == "sparsegpt"
        else solve(method, weight, hessian, Budget(nm=nm))
    )
    assert solution.mask.reshape(-1, nm[1]).sum(1).unique().tolist() == [nm[0]]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "admm"])
def test_dead_inputs_go_first(method: str, scope: Scope) -> None:
    if method == "sparsegpt" and scope == "matrix":
        return
    weight, hessian = layer(10, 200)
    weight[:, 150] *= 100
    dead = [*range(60), 150]  # most of the first block, and one with giant weights
    hessian[dead], hessian[:, dead] = 0.0, 0.0
    solution = solve(method, weight, hessian, Budget(0.5, scope=scope))
    assert not bool(solution.mask[:, dead].any())
    assert int((~solution.mask).sum()) == 1000
    few = solve(method, weight, hessian, Budget(0.2, scope=scope))
    assert int((~few.mask).sum()) == 400
    live = [j for j in range(200) if j not in dead]
    assert bool(few.mask[:, live].all())
    assert torch.equal(few.weight[:, dead][few.mask[:, dead]], weight[:, dead][few.mask[:, dead]])
    assert [note.kind for note in few.notes] == ["dead_inputs"]


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "admm"])
def test_all_inputs_dead_is_magnitude_pruning_and_noted(method: str) -> None:
    weight, _ = layer(6, 64)
    for budget in (Budget(0.5, scope="row"), Budget(nm=(2, 4))):
        solution = solve(method, weight, torch.zeros(64, 64), budget)
        assert torch.equal(solution.weight, magnitude(weight, budget).weight)
        assert [note.kind for note in solution.notes] == ["dead_inputs"]


def naive(scores: Tensor, groups: list[list[tuple[int, int]]], counts: list[int]) -> Tensor:
    """Sort each group in Python, prune its first ones."""
    pruned = torch.zeros(scores.shape, dtype=torch.bool)
    for group, count in zip(groups, counts, strict=True):
        for i, j in sorted(group, key=lambda at: (float(scores[at]), at))[:count]:
            pruned[i, j] = True
    return pruned


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 150),
    share=st.floats(0, 0.999),
    levels=st.integers(1, 50),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_choice_is_the_naive_one(rows: int, columns: int, share: float, levels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, levels, (rows, columns), generator=generator).float()  # many ties
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    total = round(share * rows * columns)
    found = Selection(scores, Budget(share), "matrix").pick(scores)
    assert torch.equal(found, naive(scores, [cells], [total]))
    by_row = [[(i, j) for j in range(columns)] for i in range(rows)]
    found = Selection(scores, Budget(share), "row").pick(scores)
    assert torch.equal(found, naive(scores, by_row, [round(share * columns)] * rows))
    blocks = [[(i, j) for i, j in cells if first <= j < first + 128] for first in range(0, columns, 128)]
    first = total if columns <= 128 else round(share * 128 * rows)
    found = Selection(scores, Budget(share), "block").pick(scores)
    # A whole block is compared within its rows by position, as everywhere: row after row.
    assert torch.equal(found, naive(scores, blocks, [first, total - first][: len(blocks)]))


@given(data=st.data(), rows=st.integers(1, 6), columns=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_lowest_with_a_count_for_each_row(data: st.DataObject, rows: int, columns: int) -> None:
    values = data.draw(st.lists(st.integers(0, 4), min_size=rows * columns, max_size=rows * columns))
    counts = data.draw(st.lists(st.integers(0, columns), min_size=rows, max_size=rows))
    scores = torch.tensor(values, dtype=torch.float32).reshape(rows, columns)
    expected = naive(scores, [[(i, j) for j in range(columns)] for i in range(rows)], counts)
    assert torch.equal(lowest(scores, torch.tensor(counts)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 40), (6000, 4), (5, 4)])
def test_lowest_agrees_with_a_stable_sort_in_every_dtype(shape: tuple[int, int], dtype: torch.dtype) -> None:
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).to(dtype)
    for count in (1, 2, 3):
        order = torch.argsort(scores, dim=1, stable=True)
        expected = torch.zeros(shape, dtype=torch.bool).scatter_(1, order[:, :count], True)
        assert torch.equal(lowest(scores, count), expected)
        assert torch.equal(lowest(scores, torch.full((shape[0],), count)), expected)


@given(weights=st.lists(st.integers(0, 1000), min_size=1, max_size=20), data=st.data())
@settings(max_examples=100, deadline=None)
def test_apportion(weights: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(weights)))
    parts = apportion(torch.tensor([total]), torch.tensor([weights]))[0].tolist()
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert 0 <= part <= weight
        assert abs(part - total * weight / max(1, sum(weights))) < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "outside"),
        ({"sparsity": -0.1}, "outside"),
        ({"sparsity": float("nan")}, "outside"),
        ({}, "needs a sparsity"),
        ({"count": -1}, "negative"),
        ({"nm": (4, 4)}, "is not N:M"),
        ({"nm": (0, 4)}, "is not N:M"),
        ({"nm": (2, 4), "sparsity": 0.7}, "contradicts"),
        ({"sparsity": 0.5, "scope": "column"}, "unknown scope"),
    ],
)
def test_impossible_budgets(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SparsifyError, match=message):
        Budget(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "admm"])
def test_what_no_solver_can_work_with(method: str) -> None:
    weight, hessian = layer(4, 32)
    with pytest.raises(SparsifyError, match="32 columns do not divide into groups of 5"):
        solve(method, weight, hessian, Budget(nm=(2, 5)))
    with pytest.raises(SparsifyError, match="129 zeros asked for"):
        solve(method, weight, hessian, Budget(count=129))
    with pytest.raises(SparsifyError, match="65 zeros contradict pattern 2:4, which makes 64"):
        solve(method, weight, hessian, Budget(nm=(2, 4), count=65))
    with pytest.raises(SparsifyError, match="is no matrix"):
        solve(method, weight[0], hessian, Budget(0.5))
    with pytest.raises(SparsifyError, match="earlier mask"):
        solve(method, weight, hessian, Budget(0.5), torch.ones(4, 31, dtype=torch.bool))
    bad = weight.clone()
    bad[1, 2] = float("nan")
    with pytest.raises(NumericsError, match="weight holds non-finite"):
        solve(method, bad, hessian, Budget(0.5))
    if method != "magnitude":
        with pytest.raises(SparsifyError, match="does not fit 32 inputs"):
            solve(method, weight, hessian[:16, :16], Budget(0.5))
        with pytest.raises(NumericsError, match="Hessian holds non-finite"):
            solve(method, weight, hessian * float("inf"), Budget(0.5))


def test_block_size_must_hold_whole_groups() -> None:
    weight, hessian = layer(4, 40)
    with pytest.raises(SparsifyError, match="block_size 128 is no multiple of 5"):
        sparsegpt(weight, hessian, Budget(nm=(2, 5)))
