"""From the linears of a checkpoint to packed matrices: which form each takes, and the reading of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness.engines.sparse import load_kernels
from harness.errors import ConfigError, EngineError
from sparsify.checkpoint import Checkpoint
from sparsify.errors import CheckpointError
from sparsify.quantize.grid import INT8
from sparsify.quantize.stored import is_packed_int4, read_weight

if TYPE_CHECKING:
    from harness.engines.sparse._kernels import Matrix

DTYPES = ("float32", "bfloat16", "auto")
HEADS = ("own", "int8")
Head = Literal["own", "int8"]
# Saving less than this share of the bytes is not worth the work of expanding.
_GAIN = 0.95
_BYTES = {"f32": 4.0, "bf16": 2.0, "i8": 1.0, "i4": 0.5}
_GROUP_UNIT = 8


@dataclass(frozen=True)
class Scheme:
    """How a compressed-tensors checkpoint is quantized.

    Attributes:
        bits: 8 (W8A8) or 4 (W4A16).
        static: W8A8: inputs have one stored scale; otherwise one per token.
    """

    bits: int
    static: bool


@dataclass(frozen=True)
class Plan:
    """How the linears of a checkpoint are packed.

    Attributes:
        dtype: Of the weights that are not quantized: `float32`, `bfloat16`, or `auto` (as stored).
        head: `int8` rounds an output layer that is not quantized to int8 per channel; `own` leaves it.
        stored: The stored weight of every linear, by module name.
        scheme: Of the quantized ones.
    """

    dtype: str
    head: Head
    stored: Mapping[str, str]
    scheme: Scheme | None

    @property
    def settings(self) -> dict[str, Any]:
        """What packing depends on, beside the checkpoint."""
        return {"dtype": self.dtype, "head": self.head, "linears": sorted(self.stored)}


def plan_packing(model: nn.Module, source: Checkpoint, *, dtype: str, head: Head) -> Plan:
    """Find the linears of `model` (a skeleton is enough) in a checkpoint.

    Raises:
        ConfigError: Unknown dtype or head.
        CheckpointError: A weight is not stored.
        EngineError: The checkpoint is quantized in a way that the kernels do not know.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"engine sparse computes in float32 and stores {', '.join(DTYPES)}, not {dtype!r}")
    if head not in HEADS:
        raise ConfigError(f"unknown head {head!r}; choose one of: {', '.join(HEADS)}")
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    stored = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            names = (f"{name}.weight", *owners[id(module.weight)])
            found = next((each for each in names if each in source.tensors or f"{each}_packed" in source.tensors), None)
            if found is None:
                raise CheckpointError(f"{source.path} stores no {name}.weight; download or copy it again")
            stored[name] = found
    return Plan(dtype, head, stored, read_scheme(source))


def read_scheme(source: Checkpoint) -> Scheme | None:
    """How a checkpoint is quantized; None where it is not.

    Raises:
        EngineError: In a way that the kernels do not know.
    """
    config = source.config.get("quantization_config")
    if not config:
        return None
    try:
        if config["quant_method"] != "compressed-tensors":
            raise ValueError(f"quant_method {config['quant_method']}")
        found = {_scheme_of(group) for group in config["config_groups"].values()}
        if len(found) != 1:
            raise ValueError("several schemes in one model")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EngineError(
            f"{source.path}: engine sparse knows W8A8 (per channel, dynamic per token or static) and W4A16 (per "
            f"group), both symmetric, not this quantization ({error}); use engine torch"
        ) from None
    return found.pop()


def _scheme_of(group: Mapping[str, Any]) -> Scheme:
    weights, inputs = group["weights"], group.get("input_activations")
    kind = (weights["type"], weights["num_bits"], weights.get("symmetric", True))
    if group.get("output_activations"):
        raise ValueError("rounded outputs")
    if kind == ("int", 4, True) and inputs is None and weights["strategy"] in ("group", "channel"):
        return Scheme(4, False)
    if kind == ("int", 8, True) and inputs is not None and weights["strategy"] in ("channel", "tensor"):
        rounding = (inputs["type"], inputs["num_bits"], inputs.get("symmetric", True))
        how = (inputs["strategy"], inputs.get("dynamic", False))
        if rounding == ("int", 8, True) and how in (("token", True), ("tensor", False)):
            return Scheme(8, how[0] == "tensor")
    raise ValueError(f"{weights['num_bits']}-bit {weights['type']} per {weights['strategy']}")


def pack_linears(plan: Plan, source: Checkpoint, *, head: str | None, threads: int) -> Iterator[tuple[str, Matrix]]:
    """Read and pack one linear after the other, each in the cheaper of dense and sparse.

    Args:
        plan: How.
        source: The checkpoint.
        head: Module name of the output layer, if the model has one.
        threads: CPU threads.
    """
    for name, weight in plan.stored.items():
        yield name, _pack(plan, source, weight, is_head=name == head, threads=threads)


def _pack(plan: Plan, source: Checkpoint, name: str, *, is_head: bool, threads: int) -> Matrix:
    values = read_weight(source, name)
    if values is None or values.ndim != 2:
        raise CheckpointError(f"{source.path} stores {name} in a form that is not read here; use engine torch")
    if values.is_floating_point():
        if is_head and plan.head == "int8":
            scale = INT8.scales(values.float())
            return _pack_int8(INT8.round(values.float(), scale).to(torch.int8), scale, 0.0, threads)
        return _pack_float(values, plan.dtype, threads)
    scale = _scale(source, f"{name}_scale", values)
    if is_packed_int4(source, name):
        groups = scale.shape[1]
        group, rest = divmod(values.shape[1], groups)
        if rest or group % _GROUP_UNIT or f"{name.removesuffix('weight')}weight_g_idx" in source.tensors:
            raise EngineError(
                f"{source.path}: the {groups} groups of {name} do not lie in whole {_GROUP_UNIT}s side by side; "
                "use engine torch"
            )
        return _packed("i4", values, threads, scales=scale, group=group)
    assert plan.scheme is not None, "integers are stored only where config.json says so"
    static = 0.0
    if plan.scheme.static:
        static = float(source.read(f"{name.removesuffix('weight')}input_scale").float())
    return _pack_int8(values, scale, static, threads)


def _scale(source: Checkpoint, name: str, values: Tensor) -> Tensor:
    """Scales of a quantized weight, float32 [out, groups]."""
    if source.config.get("quantization_config") is None or name not in source.tensors:
        raise CheckpointError(f"{source.path} stores integers without {name}; download or copy it again")
    scale = source.read(name).float()
    if scale.numel() == 1:
        scale = scale.reshape(1, 1).expand(values.shape[0], 1)
    if scale.ndim != 2 or scale.shape[0] != values.shape[0]:
        raise CheckpointError(f"{source.path}: {name} has shape {list(scale.shape)}; download or copy it again")
    return scale.contiguous()


def _pack_float(values: Tensor, dtype: str, threads: int) -> Matrix:
    narrow = dtype == "bfloat16" or (dtype == "auto" and values.dtype is torch.bfloat16)
    if narrow:
        return _packed("bf16", values.to(torch.bfloat16), threads)
    return _packed("f32", values.float(), threads)


def _pack_int8(values: Tensor, scale: Tensor, static: float, threads: int) -> Matrix:
    if scale.shape[1] != 1:
        raise EngineError("int8 weights with scales per group are not known to engine sparse; use engine torch")
    return _packed("i8", values, threads, scales=scale[:, 0], input_scale=static)


def _packed(kind: str, values: Tensor, threads: int, **options: Any) -> Matrix:
    array = values.contiguous()
    numbers = array.view(torch.int16).numpy().view(np.uint16) if kind == "bf16" else array.numpy()
    # As integers, which are counted several times as fast; a negative zero counts as a weight.
    bits = numbers.view(np.int32) if kind == "f32" else numbers
    density = int(np.count_nonzero(bits)) / max(1, bits.size)
    if "scales" in options:
        options["scales"] = options["scales"].contiguous().numpy()
    matrix: Matrix = load_kernels().Matrix.pack(
        numbers, kind, sparse=is_sparse_cheaper(kind, density), threads=threads, **options
    )
    return matrix


def is_sparse_cheaper(kind: str, density: float) -> bool:
    """Whether a mask bit for every weight and the survivors are clearly fewer bytes than all weights.

    Args:
        kind: `f32`, `bf16`, `i8` or `i4`.
        density: Share of weights that are not zero.
    """
    return density * _BYTES[kind] + 1 / 8 < _GAIN * _BYTES[kind]
