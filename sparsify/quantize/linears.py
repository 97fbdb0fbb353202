"""Quantizes the linears of one block: smoothing first, then each by its own Hessian, the sensitive ones left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.errors import NumericsError, SparsifyError
from sparsify.gram import Gram
from sparsify.prune.problem import Budget, relative_error
from sparsify.prune.sparsegpt import Factor, factorise
from sparsify.quantize.folds import find_folds
from sparsify.quantize.gptq import gptq, joint
from sparsify.quantize.grid import Grid, Quantized
from sparsify.quantize.layout import stored_linear
from sparsify.quantize.rtn import quantize_rtn
from sparsify.quantize.smooth import Smoothed, smooth_block
from sparsify.quantize.stage import grid_of, relative_weight_error, scheme_name
from sparsify.recipe import QuantizeStage
from sparsify.stage import event
from sparsify.usage import Used


@dataclass(frozen=True)
class BlockWork:
    """A block and what is known of it.

    Attributes:
        name: Its module name.
        block: The module, with float32 weights.
        run: Runs it on some of the calibration text and returns its output.
        grams: By linear within the block; linears with the same input share one.
        chosen: Linears to quantize, by module name.
        frozen: The other linears of the block.
        masks: By weight name, True where kept.
        dtypes: What the block's parameters are stored as, by name within the block.
        lap: Says what was used since it was last asked.
    """

    name: str
    block: nn.Module
    run: Callable[[], Tensor]
    grams: Mapping[str, Gram]
    chosen: tuple[str, ...]
    frozen: tuple[str, ...]
    masks: Mapping[str, Tensor]
    dtypes: Mapping[str, torch.dtype]
    lap: Callable[[], Used]

    def within(self, linear: str) -> str:
        """The name of a linear within the block."""
        return linear.removeprefix(self.name + ".")


@dataclass
class SolvedBlock:
    """What a block became.

    Attributes:
        tensors: What is stored for quantized linears, by tensor name.
        floats: Float32 values of parameters that stay float and may have changed, by parameter name.
        masks: Masks that were chosen in the same pass, by weight name.
        stats: Per linear.
        left: Linears left as they are because of their error.
        events: Fall-backs that were taken.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    floats: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    events: list[dict[str, str]] = field(default_factory=list)


def solve_block(stage: QuantizeStage, work: BlockWork) -> SolvedBlock:
    """Quantize the chosen linears of a block as `stage` says.

    Smoothing changes the block's parameters in place; nothing else does.

    Raises:
        NumericsError: A solver met values that it cannot continue from, or a linear saw no tokens.
        SparsifyError: A weight cannot be quantized as asked.
    """
    smoothed = _smooth(stage, work)
    linears = [_Linear.of(name, work, smoothed) for name in work.chosen]
    solved = SolvedBlock(events=[event(note.kind, f"{work.name}.{at}", note.detail) for at, note in smoothed.notes])
    solved.floats = {f"{work.name}.{name}": work.block.get_parameter(name).data.cpu() for name in smoothed.changed}
    inputs: dict[int, _Inputs] = {}
    work.lap()  # the pass over the text and smoothing are no linear's own
    for linear in linears:
        if id(linear.gram) not in inputs:
            # Linears with the same input mostly follow each other: one Hessian is kept at a time.
            inputs = {id(linear.gram): _Inputs(linear.hessian())}
        linear.solve(stage, inputs[id(linear.gram)])
        linear.used = work.lap()
        solved.events += [event(note.kind, linear.name, note.detail) for note in linear.result.notes]
    _leave_out(stage, linears, solved)
    for linear in linears:
        solved.stats[linear.name] = linear.stats(stage, quantized=linear.name not in solved.left)
        if linear.name in solved.left:
            solved.floats[linear.weight_name] = linear.weight.cpu()
            continue
        packed = None if stage.group_size is None else linear.dtype
        scale = linear.input_scale if stage.activations == "static" else None
        values = linear.result
        solved.tensors |= stored_linear(linear.name, values.values, values.scale, packed=packed, input_scale=scale)
        if values.mask is not None:
            solved.masks[linear.weight_name] = values.mask.cpu()
    return solved


def _smooth(stage: QuantizeStage, work: BlockWork) -> Smoothed:
    if stage.smooth is None:
        return Smoothed()
    absmax = {name: gram.absmax for name, gram in work.grams.items() if gram.absmax is not None}
    frozen = [work.within(name) for name in work.frozen]
    frozen += [work.within(name) for name in work.chosen if work.within(name) not in absmax]
    return smooth_block(
        work.block,
        work.run,
        find_folds(work.block, work.run),
        absmax,
        alpha=stage.smooth,
        frozen=frozen,
        stored=work.dtypes,
    )


def _leave_out(stage: QuantizeStage, linears: list[_Linear], solved: SolvedBlock) -> None:
    """Leave out the linears above `skip_error`, and with each those that share its input.

    vLLM runs such linears (query, key and value; gate and up) as one and takes them in one scheme only.
    """
    limit = stage.skip_error
    if limit is None:
        return
    above = [linear for linear in linears if linear.error > limit]
    for linear in linears:
        why = [other.name for other in above if other.gram is linear.gram]
        if not why:
            continue
        solved.left += (linear.name,)
        detail = f"relative output error {linear.error:.3g} exceeds {limit:g}: left unquantized"
        if linear.name not in why:
            detail = f"shares its input with {why[0]}, whose error exceeds {limit:g}: left unquantized"
        solved.events.append(event("sensitive_linear", linear.name, detail))


@dataclass
class _Inputs:
    """A Hessian, and what it was factorised to once a solver has asked."""

    hessian: Tensor
    _factor: Factor | None = None

    def factor(self, percdamp: float) -> Factor:
        """The factorised Hessian, made once for all linears that share it."""
        if self._factor is None:
            self._factor = factorise(self.hessian, percdamp)
        return self._factor


@dataclass
class _Linear:
    """A linear on its way.

    Attributes:
        weight: Float32 [out, in], smoothed.
        keep: Bool [out, in], or None without a mask.
        dtype: What the weight is stored as.
        factors: What smoothing multiplied the columns by and divided the inputs by.
        result: What it was quantized to, once `solve` is through.
        error: Relative output error of that.
        used: Time and memory that it took.
    """

    name: str
    weight: Tensor
    keep: Tensor | None
    dtype: torch.dtype
    gram: Gram
    factors: Tensor | None
    result: Quantized = field(init=False)
    error: float = 0.0
    used: Used = Used(0.0, 0, 0)

    @classmethod
    def of(cls, name: str, work: BlockWork, smoothed: Smoothed) -> _Linear:
        """The linear called `name` of a smoothed block."""
        inside = work.within(name)
        weight = work.block.get_parameter(f"{inside}.weight").data.to(torch.float32)
        mask = work.masks.get(f"{name}.weight")
        keep = None if mask is None else mask.to(weight.device)
        factors = smoothed.factors.get(inside)
        gram = work.grams.get(inside, Gram())
        dtype = work.dtypes[f"{inside}.weight"]
        return cls(name, weight, keep, dtype, gram, None if factors is None else factors.to(weight.device))

    @property
    def weight_name(self) -> str:
        """The name of its weight."""
        return f"{self.name}.weight"

    @property
    def input_scale(self) -> float:
        """Of static activations: the largest input is 127.5 steps, as in compressed-tensors' min-max observer."""
        assert self.gram.absmax is not None, "`hessian` refuses a linear without tokens"
        absmax = self.gram.absmax if self.factors is None else self.gram.absmax / self.factors
        return float(absmax.max()) / 127.5 or 1.0

    def hessian(self) -> Tensor:
        """The Hessian of the smoothed inputs: smoothing scales the rows and columns of what was measured before it."""
        hessian = self.gram.hessian(self.name)
        return hessian if self.factors is None else hessian / torch.outer(self.factors, self.factors)

    def solve(self, stage: QuantizeStage, inputs: _Inputs) -> None:
        """Quantize it and measure what that costs."""
        try:
            self.result = _quantize(stage, self, grid_of(stage, self.dtype), inputs)
        except (NumericsError, SparsifyError) as error:
            raise type(error)(f"{self.name}: {error}") from None
        self.error = relative_error(self.weight, self.result.weight, inputs.hessian)

    def stats(self, stage: QuantizeStage, *, quantized: bool) -> dict[str, Any]:
        """What the record says of it; the errors are those of quantizing it, also where it was left out for them."""
        return {
            "scheme": scheme_name(stage) if quantized else "unquantized",
            "sparsity": float((self.result.values == 0).float().mean()),
            "relative_weight_error": relative_weight_error(self.weight, self.result.weight),
            "relative_error": self.error,
            **self.result.stats,
            **self.used.as_dict(),
        }


def _quantize(stage: QuantizeStage, linear: _Linear, grid: Grid, inputs: _Inputs) -> Quantized:
    if stage.prune is not None:
        budget = Budget(stage.prune.sparsity, stage.prune.nm)
        return joint(linear.weight, inputs.factor(stage.percdamp), budget, grid, keep=linear.keep)
    if stage.method == "gptq":
        return gptq(linear.weight, inputs.factor(stage.percdamp), grid, keep=linear.keep)
    return Quantized(*quantize_rtn(linear.weight, grid))
