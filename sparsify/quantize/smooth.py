"""SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): move the outliers of activations into the weights, exactly.

The input channels of linears are divided by factors s_j = max|x_j|^a / max|w_j|^(1-a) (equation 4 there) and the
columns of their weights multiplied by them. The division costs nothing where it can be folded into what comes before:
a norm, or a linear that feeds them channel by channel (`folds`). Zeros of the weights stay zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sparsify.prune.problem import Note
from sparsify.quantize.folds import Fold

_FLOOR = 1e-5
# Of what a channel of the block's output reaches: above what float32 rounds, far below what a wrong fold does.
_EXACT = 1e-3


@dataclass(frozen=True)
class Smoothed:
    """What smoothing a block did.

    Attributes:
        factors: By linear within the block, float32 [in]: what its columns were multiplied by, and its inputs divided
            by.
        changed: Parameters that changed beside the weights of linears (norms, biases), by name within the block.
        notes: Per fold that was left out, why.
    """

    factors: dict[str, Tensor] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    notes: tuple[tuple[str, Note], ...] = ()


def smoothing_factors(inputs: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """s_j of equation 4, at least 1e-5, and 1 for a channel without inputs or without weights.

    Args:
        inputs: Largest magnitude of each input channel, float [in].
        weights: Largest magnitude in each column over all consumers, float [in].
        alpha: Share of the difficulty that moves into the weights, 0 … 1.
    """
    factors = inputs.clamp(min=_FLOOR).pow(alpha) / weights.clamp(min=_FLOOR).pow(1 - alpha)
    return torch.where((inputs > 0) & (weights > 0), factors.clamp(min=_FLOOR), torch.ones_like(factors))


@torch.no_grad()
def smooth_block(
    block: nn.Module,
    run: Callable[[], Tensor],
    folds: Collection[Fold],
    absmax: Mapping[str, Tensor],
    *,
    alpha: float,
    frozen: Collection[str] = (),
    stored: Mapping[str, torch.dtype] | None = None,
) -> Smoothed:
    """Smooth a block in place; a fold that would change what the block computes is undone and noted.

    With grouped-query attention a channel of the value projection feeds several of the output projection: its factor
    follows from the largest input and the largest weight among them.

    Args:
        block: A block with float32 weights.
        run: Runs it on some real input and returns its output.
        folds: As `find_folds` gives them.
        absmax: Largest magnitude of each input channel, float [in], by linear within the block.
        alpha: As in `smoothing_factors`.
        frozen: Linears within the block whose weights must stay; folds that touch one are left out.
        stored: What parameters beside weights of linears are stored as, by name within the block. A norm is rounded to
            it first and the factors follow from what is stored, so that rounding it does not change the function.
    """
    before = run()
    factors: dict[str, Tensor] = {}
    changed: list[str] = []
    notes: list[tuple[str, Note]] = []
    for fold in folds:
        touched = sorted({fold.source, *fold.consumers} & set(frozen))
        if touched:
            notes.append((fold.source, Note("smooth_left_out", f"{touched[0]} is to be left as it is")))
            continue
        undo = _Backup(block, fold)
        done = _apply(block, fold, _wanted(block, fold, absmax, alpha), stored or {})
        if done is None or not _same(before, run()):
            undo.restore()
            reason = "its scale was not understood" if done is None else "something else reads its output too"
            notes.append((fold.source, Note("smooth_left_out", f"{reason}; {', '.join(fold.consumers)} not smoothed")))
            continue
        factors |= {name: done.cpu()[fold.channels] for name in fold.consumers}
        changed += undo.others
    return Smoothed(factors, tuple(changed), tuple(notes))


def divide_norm(norm: nn.Module, factors: Tensor, dtypes: Mapping[str, torch.dtype] | None = None) -> Tensor | None:
    """Divide the outputs of a norm by `factors` [features] by changing its weight (and bias).

    How the weight enters is found by trying: norms multiply by w, or by 1 + w as Gemma's do.

    Args:
        norm: A module with a vector `weight` and perhaps a `bias`.
        factors: Float [features].
        dtypes: What `weight` and `bias` are stored as.

    Returns:
        The factors that the outputs were really divided by, the weight being rounded to what it is stored as; None,
        with nothing changed, if the outputs do not depend on the weight in this way.
    """
    offset = norm_offset(norm)
    if offset is None:
        return None
    weight, bias, dtypes = norm.get_parameter("weight").data, _bias(norm), dtypes or {}
    factors = factors.to(weight.device, torch.float32)
    old = offset + weight.to(torch.float32)
    new = (old / factors - offset).to(dtypes.get("weight", weight.dtype)).to(torch.float32)
    # A scale that is 0 says nothing, and one that would be rounded to 0 or beyond must not: both stay as they are.
    usable = (old * (offset + new)) > 0
    done = torch.where(usable, old / (offset + new), torch.ones_like(old))
    weight.copy_(torch.where(usable, new, weight.to(torch.float32)))
    if bias is not None:
        bias.copy_((bias / done).to(dtypes.get("bias", bias.dtype)))
    return done


@torch.no_grad()
def norm_offset(norm: nn.Module) -> float | None:
    """The a of a norm that gives (a + w) · n(x) + bias: 0 for Llama's, 1 for Gemma's; None for any other module."""
    weight, bias = norm.get_parameter("weight").data, _bias(norm)
    kept = torch.zeros_like(weight) if bias is None else bias.clone()
    saved = weight.clone()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, weight.shape[0], generator=generator).to(weight.device, weight.dtype)
    try:
        actual = norm(inputs)
        if bias is not None:
            bias.zero_()
        weight.zero_()
        at_zero = norm(inputs)
        weight.fill_(1.0)
        unit = norm(inputs) - at_zero
    finally:
        weight.copy_(saved)
        if bias is not None:
            bias.copy_(kept)
    energy = float(unit.square().sum())
    if actual.shape != inputs.shape or energy <= 0:
        return None
    offset = round(float((at_zero * unit).sum()) / energy, 4)
    return offset if torch.allclose(actual, (offset + weight) * unit + kept, rtol=1e-4, atol=1e-5) else None


def _bias(module: nn.Module) -> Tensor | None:
    bias = getattr(module, "bias", None)
    return bias.data if isinstance(bias, Tensor) else None


def _apply(block: nn.Module, fold: Fold, factors: Tensor, stored: Mapping[str, torch.dtype]) -> Tensor | None:
    """Divide the source's channels and multiply the consumers' columns; returns the factors, None if it cannot."""
    source = block.get_submodule(fold.source)
    done: Tensor | None = factors
    if isinstance(source, nn.Linear):
        factors = factors.to(source.weight.device)
        source.weight.data.div_(factors[:, None])
        if source.bias is not None:
            source.bias.data.div_(factors)
    else:
        own = {
            name: stored[f"{fold.source}.{name}"] for name in ("weight", "bias") if f"{fold.source}.{name}" in stored
        }
        done = divide_norm(source, factors, own)
    for name in fold.consumers if done is not None else ():
        weight = block.get_parameter(f"{name}.weight").data
        assert done is not None
        weight.mul_(done.to(weight.device)[fold.channels.to(weight.device)])
    return done


def _wanted(block: nn.Module, fold: Fold, absmax: Mapping[str, Tensor], alpha: float) -> Tensor:
    """The factors of the source's output channels, float32 [channels]; 1 for one that nothing reads."""
    weights = [block.get_parameter(f"{name}.weight").data for name in fold.consumers]
    columns = torch.stack([weight.abs().amax(0).to(torch.float32).cpu() for weight in weights]).amax(0)
    inputs = absmax[fold.consumers[0]].to(torch.float32).cpu()
    count = block.get_parameter(f"{fold.source}.weight").shape[0]
    largest = [torch.zeros(count).scatter_reduce_(0, fold.channels, each, "amax") for each in (inputs, columns)]
    return smoothing_factors(largest[0], largest[1], alpha)


def _same(before: Tensor, after: Tensor) -> bool:
    # Channel by channel: a few huge channels of the residual stream must not hide what happens to the others.
    before, after = before.reshape(-1, before.shape[-1]), after.reshape(-1, after.shape[-1])
    reach = before.abs().amax(0)
    return bool(((before - after).abs().amax(0) <= _EXACT * reach + 1e-6 * reach.max()).all())


class _Backup:
    """The parameters that a fold touches, as they were."""

    def __init__(self, block: nn.Module, fold: Fold) -> None:
        names = [f"{fold.source}.{name}" for name, _ in block.get_submodule(fold.source).named_parameters()]
        names += [f"{name}.weight" for name in fold.consumers]
        self._block, self._saved = block, {name: block.get_parameter(name).data.clone() for name in names}
        linear = isinstance(block.get_submodule(fold.source), nn.Linear)
        self.others = [
            name for name in names if name.startswith(f"{fold.source}.") and not (linear and name.endswith(".weight"))
        ]

    def restore(self) -> None:
        for name, value in self._saved.items():
            self._block.get_parameter(name).data.copy_(value)
