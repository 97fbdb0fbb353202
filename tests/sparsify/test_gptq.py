"""Rounding, GPTQ and the joint pass against transcriptions of the papers' equations in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.problem import Budget, relative_error
from sparsify.prune.sparsegpt import sparsegpt
from sparsify.quantize.gptq import gptq, joint
from sparsify.quantize.grid import INT8, Grid, Quantized, dequantize, int4
from sparsify.quantize.rtn import quantize_rtn
from sparsify.quantize.verify import patterns


def problem(
    seed: int = 0, rows: int = 24, columns: int = 128, tokens: int = 900, decay: float = 1.5
) -> tuple[Tensor, Tensor]:
    """A weight and the Hessian of correlated inputs with outlier channels; the larger `decay`, the more correlated."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    spread = torch.exp(0.7 * torch.randn(columns, generator=generator))
    spread[torch.randperm(columns, generator=generator)[:3]] *= 15
    inputs = (torch.randn(tokens, columns, generator=generator) * torch.logspace(0, -decay, columns)) @ mix * spread
    inputs += 0.5 * 10**-decay * torch.randn(tokens, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator) / columns**0.5, inputs.T @ inputs * (2 / 8)


def reference_scale(values: Tensor, *, low: int, high: int, search: bool) -> Tensor:
    """float64 [rows, 1]: the largest magnitude on the middle of both ends; for INT4 the best of 16 smaller ones."""
    largest = values.abs().max(1, keepdim=True).values
    reach = torch.where(largest > 0, largest / ((high - low) / 2), 1.0)
    if not search:
        return reach
    candidates = torch.stack([reach * (1 - step / 40) for step in range(16)])
    errors = torch.stack([((values / c).round().clamp(low, high) * c - values).square().sum(1) for c in candidates])
    return candidates.gather(0, errors.argmin(0)[None, :, None])[0]


def brute_force(weight: Tensor, hessian: Tensor, keep: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Optimal-brain-surgeon steps from left to right, inverting the Hessian of what is left anew at each column.

    Fixing w_q changes the weights that are still free by −(w_q − quant(w_q)) / [H_F⁻¹]_qq · (H_F⁻¹)_:,q (GPTQ, equation
    2); a pruned weight is fixed at 0.

    Returns:
        The weight, and for each entry how far it was from being rounded the other way, in steps.
    """
    work, damped = weight.double() * keep, hessian.double()
    damped = damped + 0.01 * damped.diagonal().mean() * torch.eye(len(damped), dtype=torch.float64)
    out, margin, scale = torch.zeros_like(work), torch.ones_like(work), None
    for column in range(work.shape[1]):
        width = grid.group or work.shape[1]
        if column % width == 0:
            inside = slice(column, column + width)
            scale = reference_scale(work[:, inside] * keep[:, inside], low=grid.low, high=grid.high, search=grid.search)
        assert scale is not None
        inverse = torch.linalg.inv(damped[column:, column:])
        now = work[:, column]
        steps = (now[:, None] / scale)[:, 0]
        margin[:, column] = torch.where(keep[:, column], (steps - steps.floor() - 0.5).abs(), 1.0)
        out[:, column] = steps.round().clamp(grid.low, grid.high) * scale[:, 0] * keep[:, column]
        step = (now - out[:, column]) / inverse[0, 0]
        work[:, column:] -= torch.outer(step, inverse[0])
    return out, margin


@pytest.mark.parametrize("group", [None, 32, 64])
@pytest.mark.parametrize("sparse", [False, True])
def test_gptq_is_the_optimal_brain_surgeon(group: int | None, sparse: bool) -> None:
    weight, hessian = problem(columns=160 if group == 32 else 128)
    solution = sparsegpt(weight, hessian, Budget(0.5))
    weight, keep = (solution.weight, solution.mask) if sparse else (weight, torch.ones_like(weight, dtype=torch.bool))
    grid = INT8 if group is None else int4(group)
    ours = gptq(weight, hessian, grid, keep=keep)
    expected, margin = brute_force(weight, hessian, keep, grid)
    assert int((ours.values[~keep] != 0).sum()) == 0
    other = (ours.weight.double() - expected).abs() > 1e-4
    rows = other.any(1)
    # A value that float32 rounds the other way changes the rest of its row; that must be a tie, and rare.
    assert int(rows.sum()) <= 2
    assert bool((margin[rows].gather(1, other[rows].int().argmax(1, keepdim=True)) < 1e-3).all())


def test_the_size_of_update_blocks_does_not_matter() -> None:
    weight, hessian = problem()
    small, large = (gptq(weight, hessian, int4(32), block_size=size) for size in (32, 128))
    assert float((small.values != large.values).float().mean()) < 1e-3  # rounding at ties
    assert relative_error(small.weight, large.weight, hessian) < 1e-4
    with pytest.raises(SparsifyError, match="block_size 48 is no multiple of the group size 32"):
        gptq(weight, hessian, int4(32), block_size=48)


def masked_updates(weight: Tensor, hessian: Tensor, keep: Tensor) -> Tensor:
    """What others do, INT4 per row: updates multiplied by the mask, so that the rest of the compensation is lost."""
    damped = hessian.double() + 0.01 * hessian.double().diagonal().mean() * torch.eye(len(hessian)).double()
    factor = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    work, out = weight.double().clone(), torch.zeros(weight.shape, dtype=torch.float64)
    scale = reference_scale(work, low=-8, high=7, search=False)
    for column in range(work.shape[1]):
        out[:, column] = (work[:, column : column + 1] / scale).round().clamp(-8, 7)[:, 0] * scale[:, 0]
        step = (work[:, column] - out[:, column]) / factor[column, column]
        work[:, column + 1 :] -= torch.outer(step, factor[column, column + 1 :]) * keep[:, column + 1 :]
    return (out * keep).float()


def test_zero_on_visit_loses_clearly_less_than_masked_updates() -> None:
    errors: dict[str, list[float]] = {"free": [], "masked": [], "rtn": []}
    grid = Grid(-8, 7)
    for seed in range(6):
        weight, hessian = problem(seed, rows=64, columns=192, tokens=2000, decay=3)
        pruned = sparsegpt(weight, hessian, Budget(0.5))
        found = {
            "free": gptq(pruned.weight, hessian, grid, keep=pruned.mask).weight,
            "masked": masked_updates(pruned.weight, hessian, pruned.mask),
            "rtn": dequantize(*quantize_rtn(pruned.weight, grid)),
        }
        for name, quantized in found.items():
            errors[name].append(relative_error(weight, quantized, hessian))
    assert sum(errors["free"]) < 0.9 * sum(errors["masked"]) < 0.9 * sum(errors["rtn"])
    assert all(free < masked * 1.02 for free, masked in zip(errors["free"], errors["masked"], strict=True))


def quantizers() -> list[str]:
    return ["rtn", "gptq", "joint"]


def run(name: str, weight: Tensor, hessian: Tensor, budget: Budget, grid: Grid) -> tuple[Quantized, Tensor]:
    """The quantized weight and the mask that it must keep to."""
    if name == "joint":
        both = joint(weight, hessian, budget, grid)
        assert both.mask is not None
        return both, both.mask
    pruned = sparsegpt(weight, hessian, budget)
    if name == "rtn":
        return Quantized(*quantize_rtn(pruned.weight, grid)), pruned.mask
    return gptq(pruned.weight, hessian, grid, keep=pruned.mask), pruned.mask


@pytest.mark.parametrize("name", quantizers())
@pytest.mark.parametrize("grid", [INT8, int4(32), int4(64, torch.bfloat16)], ids=["int8", "g32", "g64"])
@pytest.mark.parametrize("budget", [Budget(0.5), Budget(0.7), Budget(0.5, (2, 4)), Budget(0.5, (4, 8))])
def test_no_quantizer_revives_a_weight_or_breaks_a_group(name: str, grid: Grid, budget: Budget) -> None:
    weight, hessian = problem(3, rows=30, columns=192)
    found, mask = run(name, weight, hessian, budget, grid)
    assert int((~mask).sum()) == round(budget.sparsity * mask.numel()), "exact"
    assert int((found.values[~mask] != 0).sum()) == 0
    assert not bool(torch.signbit(found.weight[~mask]).any())
    if budget.nm is not None:
        n, m = budget.nm
        assert int(((found.values != 0).reshape(-1, m).sum(1) > n).sum()) == 0
        assert (n, m) in patterns(mask)
    assert int(found.values.max()) <= grid.high and int(found.values.min()) >= grid.low


def test_gptq_without_a_mask_keeps_the_zeros_it_finds() -> None:
    weight, hessian = problem()
    weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.3] = 0.0
    assert int((gptq(weight, hessian, int4(32)).values[weight == 0] != 0).sum()) == 0
    everything = torch.ones_like(weight, dtype=torch.bool)
    assert int((gptq(weight, hessian, int4(32), keep=everything).values[weight == 0] != 0).sum()) > 0


@pytest.mark.parametrize("budget", [Budget(0.5), Budget(0.5, (2, 4))])
def test_the_joint_pass_is_sparsegpt_with_fine_steps(budget: Budget) -> None:
    """With so many steps that rounding does nothing, the mask and the weights are those of SparseGPT."""
    weight, hessian = problem(4, rows=32)
    fine = Grid(-(2**22), 2**22)
    pruned, both = sparsegpt(weight, hessian, budget), joint(weight, hessian, budget, fine)
    assert both.mask is not None and torch.equal(both.mask, pruned.mask)
    # int8 cannot hold such integers; what they should have been shows in the scale.
    torch.testing.assert_close(both.scale * 2**22, pruned.weight.abs().amax(1, keepdim=True))


def test_the_joint_pass_beats_rounding_afterwards() -> None:
    weight, hessian = problem(5, rows=96, columns=256, tokens=3000)
    budget = Budget(0.6)
    after, _ = run("rtn", weight, hessian, budget, int4(32))
    both, _ = run("joint", weight, hessian, budget, int4(32))
    assert relative_error(weight, both.weight, hessian) < 0.9 * relative_error(weight, after.weight, hessian)


def test_the_joint_pass_keeps_earlier_zeros_and_charges_them() -> None:
    weight, hessian = problem(6)
    earlier = sparsegpt(weight, hessian, Budget(0.5))
    both = joint(earlier.weight, hessian, Budget(0.7), int4(32), keep=earlier.mask)
    assert both.mask is not None and not bool((both.mask & ~earlier.mask).any())
    assert int((~both.mask).sum()) == round(0.7 * weight.numel())


def test_int4_rounding_by_hand() -> None:
    row = torch.zeros(1, 64)
    row[0, :3] = torch.tensor([7.5, -7.5, 1.4])
    row[0, 32:34] = torch.tensor([-0.75, 0.1])
    values, scale = quantize_rtn(row, Grid(-8, 7, 32))
    assert scale.tolist() == [[1.0, pytest.approx(0.1)]]
    # Half a step beyond the ends is cut off at the upper one.
    assert values[0, :3].tolist() == [7, -8, 1] and values[0, 32:34].tolist() == [-8, 1]
    assert int((values != 0).sum()) == 5
    torch.testing.assert_close(dequantize(values, scale)[0, :3], torch.tensor([7.0, -8.0, 1.0]))


def test_searched_scales_round_with_less_error() -> None:
    weight, _ = problem(rows=64)
    errors = [
        float((dequantize(*quantize_rtn(weight, grid)) - weight).square().sum()) for grid in (int4(32), Grid(-8, 7, 32))
    ]
    assert errors[0] < 0.95 * errors[1]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31), st.sampled_from([32, 64]), st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
)
def test_any_weight_rounds_within_its_grid(seed: int, group: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 128, generator=generator) * torch.exp(4 * torch.randn(5, 1, generator=generator))
    weight[torch.rand(weight.shape, generator=generator) < 0.4] = 0.0
    weight[seed % 5, :64] = 0.0
    values, scale = quantize_rtn(weight, int4(group, dtype))
    assert torch.equal(scale, scale.to(dtype).float()) and bool((scale > 0).all())
    assert bool((values[weight == 0] == 0).all())
    steps = (weight / scale.repeat_interleave(group, 1)).double()
    inside = (steps >= -8.5) & (steps <= 7.5)
    assert bool(((values - steps).abs()[inside] <= 0.5 + 1e-5).all())


def test_bad_input_is_told_apart() -> None:
    weight, hessian = problem(columns=192)
    with pytest.raises(SparsifyError, match="192 columns do not divide into groups of 128; group_size 32 or 64 would"):
        quantize_rtn(weight, int4(128))
    with pytest.raises(SparsifyError, match="192 columns do not divide into groups of 128"):
        gptq(weight, hessian, int4(128))
    with pytest.raises(SparsifyError, match="50 columns do not divide into groups of 32; none of"):
        quantize_rtn(weight[:, :50], int4(32))
    broken = weight.clone()
    broken[0, 0] = float("nan")
    for solver in (gptq, lambda w, h, g: joint(w, h, Budget(0.5), g)):
        with pytest.raises(NumericsError, match="the weight holds non-finite"):
            solver(broken, hessian, INT8)
        with pytest.raises(NumericsError, match="the Hessian holds non-finite"):
            solver(weight, hessian * float("inf"), INT8)


def test_a_singular_hessian_raises_the_damping_and_says_so() -> None:
    weight, _ = problem()
    inputs = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    hessian = inputs.T @ inputs
    hessian[0, 0] -= 0.05 * float(hessian.diagonal().mean()) + float(hessian[0, 0])
    found = gptq(weight, hessian, INT8)
    assert found.stats["damping"] > 0.01 and {note.kind for note in found.notes} == {"damping_raised"}
    with pytest.raises(NumericsError, match="not positive definite even with damping 1"):
        gptq(weight, -torch.eye(128), INT8)


def test_inputs_that_are_always_zero_leave_their_columns_rounded() -> None:
    weight, hessian = problem()
    hessian[7], hessian[:, 7] = 0.0, 0.0
    found = gptq(weight, hessian, INT8)
    assert found.stats["dead_columns"] == 1.0
    torch.testing.assert_close(found.weight[:, 7], weight[:, 7], rtol=0, atol=float(found.scale.max()) / 1.99)
    both = joint(weight, hessian, Budget(0.5), INT8)
    assert both.mask is not None and not bool(both.mask[:, 7].any()), "pruned first, and charged"
    assert int((~both.mask).sum()) == weight.numel() // 2
