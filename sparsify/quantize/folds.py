"""Where a block lets a channel be scaled in one module and scaled back in another, found by running the block.

No architecture is named here. A norm feeds the linears that are given the very tensor it returned. That a linear feeds
another one channel by channel (value to output projection, repeated heads included; up to down; the two linears around
a ReLU) is found by scaling its rows by known, different factors and looking for them in what the other is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# The factors of a probe lie in exp(LOW … LOW + SPAN): never 1, which is what an output without influence shows.
_LOW, _SPAN = 0.1, 0.7
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Fold:
    """A source whose output channels can be divided by factors that the columns of its consumers are multiplied by.

    Attributes:
        source: A norm or linear, by its name within the block.
        consumers: Linears by their names within the block; they share their input.
        channels: Int64 [in]: the output channel of the source that each input channel of the consumers carries. With
            grouped-query attention a channel of the value projection is carried by several.
    """

    source: str
    consumers: tuple[str, ...]
    channels: Tensor


def find_folds(block: nn.Module, run: Callable[[], Tensor]) -> tuple[Fold, ...]:
    """The folds of a block, linears before norms.

    That a source has other readers than the consumers (a residual sum, say) is not seen here; `smooth_block` compares
    the block's outputs before and after.

    Args:
        block: The module; its weights are scaled for a while and put back bit for bit.
        run: Runs it on some real input and returns its output.
    """
    trace = _trace(block, run)
    norms = [fold for group in trace.groups if (fold := _norm_fold(group, trace)) is not None]
    fed = {name for fold in norms for name in fold.consumers}
    groups = [group for group in trace.groups if group.names[0] not in fed]
    found: dict[tuple[str, ...], tuple[float, Fold]] = {}
    for source in trace.linears if groups else ():
        for group, inputs in zip(groups, _probe(block, run, source, groups), strict=True):
            if source in group.names or inputs is None:
                continue
            match = _match(group, inputs, block.get_submodule(source))
            if match is not None and (group.names not in found or match[0] < found[group.names][0]):
                found[group.names] = (match[0], Fold(source, group.names, match[1]))
    return (*(fold for _, fold in found.values()), *norms)


@dataclass(frozen=True)
class _Group:
    """Linears that are given the same tensor, and that tensor."""

    names: tuple[str, ...]
    inputs: Tensor


@dataclass(frozen=True)
class _Trace:
    groups: tuple[_Group, ...]
    linears: tuple[str, ...]
    outputs: tuple[tuple[str, Tensor], ...]


@torch.no_grad()
def _trace(block: nn.Module, run: Callable[[], Tensor]) -> _Trace:
    seen: list[tuple[Tensor, list[str]]] = []
    outputs: list[tuple[str, Tensor]] = []

    def given(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            for inputs, names in seen:
                if inputs is args[0]:
                    names.append(name)
                    return
            seen.append((args[0], [name]))

        return hook

    def returned(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs.append((name, output))

        return hook

    hooks = []
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear):
            hooks.append(module.register_forward_pre_hook(given(name)))
        elif _is_scale(module):
            hooks.append(module.register_forward_hook(returned(name)))
    with _removed(hooks):
        run()
    groups = tuple(_Group(tuple(names), inputs) for inputs, names in seen)
    return _Trace(groups, tuple(name for group in groups for name in group.names), tuple(outputs))


def _is_scale(module: nn.Module) -> bool:
    # Norms of every kind: a vector of weights and nothing inside.
    weight = getattr(module, "weight", None)
    return not list(module.children()) and isinstance(weight, nn.Parameter) and weight.ndim == 1


def _norm_fold(group: _Group, trace: _Trace) -> Fold | None:
    for name, output in trace.outputs:
        if output is group.inputs:
            return Fold(name, group.names, torch.arange(output.shape[-1]))
    return None


@torch.no_grad()
def _probe(block: nn.Module, run: Callable[[], Tensor], source: str, groups: Sequence[_Group]) -> list[Tensor | None]:
    """What the groups are given while the rows of `source` are scaled by `_factors`."""
    seen: dict[str, Tensor] = {}

    def given(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            seen[name] = args[0]

        return hook

    linear = block.get_submodule(source)
    hooks = [block.get_submodule(group.names[0]).register_forward_pre_hook(given(group.names[0])) for group in groups]
    with _removed(hooks), _scaled_rows(linear, _factors(linear)[0]):
        run()
    return [seen.get(group.names[0]) for group in groups]


def _factors(linear: nn.Module) -> tuple[Tensor, Tensor]:
    """A factor for each row, and its rank among them."""
    rows = linear.get_parameter("weight").shape[0]
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(rows))
    return torch.exp(_LOW + _SPAN * order / max(1, rows - 1)), order


def _match(group: _Group, inputs: Tensor, source: nn.Module) -> tuple[float, Tensor] | None:
    """(largest deviation, channel map) if each channel was multiplied by one of the factors, else None."""
    before, after = (tensor.reshape(-1, tensor.shape[-1]).double() for tensor in (group.inputs, inputs))
    energy = before.square().sum(0)
    alive = energy > 0
    ratio = (before * after).sum(0) / energy.clamp(min=torch.finfo(energy.dtype).tiny)
    deviation = ((after - ratio * before).abs().amax(0) / before.abs().amax(0).clamp(min=1e-300))[alive]
    if not bool(alive.any()) or float(deviation.max()) > _TOLERANCE or bool((ratio[alive] <= 0).any()):
        return None
    factors, order = (tensor.to(ratio.device) for tensor in _factors(source))
    # The factors are evenly spaced in their logarithms, so the nearest one is found without comparing them all.
    steps = (ratio.clamp(min=1e-9).log() - _LOW) / _SPAN * max(1, len(order) - 1)
    channels = torch.argsort(order)[steps.round().long().clamp(0, len(order) - 1)]
    if float((ratio / factors[channels].double() - 1)[alive].abs().max()) > _TOLERANCE / 10:
        return None
    if not bool(alive.all()):
        # A channel that is never active shows no factor; only the plain order says where it comes from.
        plain = torch.arange(len(ratio), device=ratio.device)
        if len(ratio) != len(factors) or not torch.equal(channels[alive], plain[alive]):
            return None
        channels = plain
    return float(deviation.max()), channels.cpu()


@contextmanager
def _scaled_rows(linear: nn.Module, factors: Tensor) -> Iterator[None]:
    saved = {name: parameter.data.clone() for name, parameter in linear.named_parameters(recurse=False)}
    for parameter in linear.parameters(recurse=False):
        shape = (-1, *(1,) * (parameter.ndim - 1))
        parameter.data.mul_(factors.to(parameter.device, parameter.dtype).reshape(shape))
    try:
        yield
    finally:
        for name, value in saved.items():
            linear.get_parameter(name).data.copy_(value)


@contextmanager
def _removed(hooks: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
