"""Reconstruction of a sub-block: better on inputs it did not train on, or nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sparsify.errors import NumericsError, SparsifyError
from sparsify.prune.problem import Budget
from sparsify.prune.reconstruct import Training, reconstruct
from sparsify.prune.sparsegpt import sparsegpt


class Mlp(nn.Module):
    def __init__(self, width: int = 24, inner: int = 48) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.nn.functional.silu(self.up(self.norm(x))))


def task(seed: int = 0) -> tuple[Mlp, list[Tensor], list[Tensor], dict[str, Tensor]]:
    """A pruned MLP, its inputs, the dense outputs on them, and the masks."""
    torch.manual_seed(seed)
    module = Mlp()
    inputs = [torch.randn(4, 16, 24) @ (torch.randn(24, 24) / 5) for _ in range(12)]
    with torch.no_grad():
        targets = [module(x) for x in inputs]
    masks = {}
    with torch.no_grad():
        for name in ("up", "down"):
            linear = getattr(module, name)
            seen = [module.norm(x) for x in inputs]
            if name == "down":
                seen = [torch.nn.functional.silu(module.up(x)) for x in seen]
            rows = torch.cat([x.reshape(-1, x.shape[-1]) for x in seen])
            solution = sparsegpt(linear.weight.data, rows.T @ rows, Budget(0.7))
            linear.weight.copy_(solution.weight)
            masks[f"{name}.weight"] = solution.mask
    return module, inputs, targets, masks


def fresh_error(module: Mlp, dense: Mlp) -> float:
    inputs = torch.randn(64, 24, generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        return float((module(inputs) - dense(inputs)).square().mean() / dense(inputs).square().mean())


def test_lowers_the_error_on_held_out_inputs_and_keeps_zeros() -> None:
    module, inputs, targets, masks = task()
    others = {name: p.detach().clone() for name, p in module.named_parameters() if name not in masks}
    result = reconstruct(module, lambda i: module(inputs[i]), targets, masks, training=Training(epochs=6))
    assert result.after < 0.85 * result.before
    assert result.steps == 6 * 10 and result.epoch >= 1 and result.notes == ()
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        gone = parameters[name].data[~mask]
        assert bool((gone == 0).all()) and not bool(torch.signbit(gone).any())
    for name, before in others.items():
        assert torch.equal(parameters[name], before)
    assert all(p.requires_grad and p.grad is None for p in parameters.values())
    # The held-out error is the one that was reported.
    again = reconstruct(
        module, lambda i: module(inputs[i]), targets, masks, training=Training(epochs=1, lr=1e-12, seed=0)
    )
    assert again.before == pytest.approx(result.after, rel=1e-5)


def test_the_same_seed_gives_the_same_bytes() -> None:
    weights = []
    for seed in (1, 1, 2):
        module, inputs, targets, masks = task()
        reconstruct(module, lambda i, m=module, x=inputs: m(x[i]), targets, masks, training=Training(2, seed=seed))
        weights.append(module.up.weight.data.clone())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_never_worse_than_the_start() -> None:
    module, inputs, targets, masks = task()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    result = reconstruct(module, lambda i: module(inputs[i]), targets, masks, training=Training(epochs=1, lr=100.0))
    assert result.epoch == 0 and result.after == result.before
    assert [note.kind for note in result.notes] == ["reconstruction_reverted"]
    assert all(torch.equal(p, start[name]) for name, p in module.named_parameters())


def test_padding_does_not_count() -> None:
    results = []
    for junk in (0.0, 1e3):
        module, inputs, targets, masks = task()
        real = [torch.arange(16).expand(4, 16) < 12 for _ in inputs]
        inputs = [x.masked_fill(~keep[..., None], junk) for x, keep in zip(inputs, real, strict=True)]
        targets = [t.masked_fill(~keep[..., None], -junk) for t, keep in zip(targets, real, strict=True)]
        reconstruct(module, lambda i, m=module, x=inputs: m(x[i]), targets, masks, real=real, training=Training(2))
        results.append(module.up.weight.data.clone())
    torch.testing.assert_close(results[0], results[1])


def test_bad_input() -> None:
    module, inputs, targets, masks = task()

    def run(index: int) -> Tensor:
        return module(inputs[index])

    with pytest.raises(SparsifyError, match="two mini-batches"):
        reconstruct(module, run, targets[:1], masks)
    with pytest.raises(SparsifyError, match="'gate.weight' fits no parameter"):
        reconstruct(module, run, targets, {"gate.weight": masks["up.weight"]})
    with pytest.raises(SparsifyError, match="'up.weight' fits no parameter"):
        reconstruct(module, run, targets, {"up.weight": masks["down.weight"]})
    with pytest.raises(NumericsError, match="not finite"):
        reconstruct(module, run, [t * float("nan") for t in targets], masks)
    assert all(p.requires_grad for p in module.parameters())
    for bad in ({"epochs": 0}, {"lr": 0.0}, {"holdout": 1.0}):
        with pytest.raises(SparsifyError, match="cannot train"):
            Training(**bad)  # type: ignore[arg-type]
