"""Plain weights of every kind, and what multiplying with them gives in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.engines.sparse._kernels import Matrix

KINDS = ("f32", "bf16", "i8", "i4")
# Summation in float32, in any order, of a few thousand products: far above its error, far below a wrong product.
FLOAT_BOUND = 2e-6
FEW_ROWS = 16  # above, AMX rounds the activations of bf16


@dataclass(frozen=True)
class Case:
    """A weight as it is packed, and its values in float64 (outputs, inputs)."""

    kind: str
    weight: NDArray[Any]
    scales: NDArray[np.float32] | None
    group: int
    input_scale: float
    dense: NDArray[np.float64]

    def pack(self, *, sparse: bool, threads: int = 1, **options: Any) -> Matrix:
        return Matrix.pack(
            self.weight,
            self.kind,
            sparse=sparse,
            scales=self.scales,
            group=self.group,
            input_scale=self.input_scale,
            threads=threads,
            **options,
        )

    def product(self, x: NDArray[np.float32], isa: str = "") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The product in float64, of activations as the format rounds them, and the largest error to expect."""
        rounded = self.activations(x, isa)
        return rounded @ self.dense.T, FLOAT_BOUND * (np.abs(rounded) @ np.abs(self.dense).T) + 1e-30

    def activations(self, x: NDArray[np.float32], isa: str = "") -> NDArray[np.float64]:
        if self.kind == "bf16" and isa in ("avx512_bf16", "amx") and len(x) > FEW_ROWS:
            return torch.from_numpy(x).bfloat16().double().numpy()
        if self.kind == "i8":
            return quantized(x, np.float32(127.5), np.float32(self.input_scale))
        if self.kind == "i4":
            return quantized(x.reshape(len(x), -1, self.group), np.float32(127), np.float32(0)).reshape(x.shape)
        return x.astype(np.float64)


def quantized(x: NDArray[np.float32], divisor: np.float32, fixed: np.float32) -> NDArray[np.float64]:
    """Int8 along the last axis as compressed-tensors does it: symmetric, half to even, clamped; as float64 values."""
    scale = np.abs(x).max(-1, keepdims=True) / divisor if fixed == 0 else np.full_like(x[..., :1], fixed)
    scale[scale == 0] = 1
    return np.clip(np.rint(x / scale), -128, 127).astype(np.float64) * scale.astype(np.float64)


def bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half: bfloat16 by truncation."""
    return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)


def make_case(
    kind: str,
    outputs: int,
    inputs: int,
    *,
    sparsity: float,
    seed: int = 0,
    group: int = 0,
    wide: bool = False,
    input_scale: float = 0.0,
) -> Case:
    """Random weights; `group` 0 takes the largest of 128, 32, 8 that divides the inputs."""
    rng = np.random.default_rng([seed, outputs, inputs])
    keep = rng.random((outputs, inputs)) >= sparsity
    scales = None
    if kind in ("f32", "bf16"):
        values = np.where(keep, rng.standard_normal((outputs, inputs), dtype=np.float32), np.float32(0))
        if kind == "f32":
            return Case(kind, values, None, 0, 0.0, values.astype(np.float64))
        bits = bf16_bits(values)
        return Case(kind, bits, None, 0, 0.0, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64))
    low, high = (-128, 128) if kind == "i8" else (-8, 8)
    integers = np.where(keep, rng.integers(low, high, (outputs, inputs)), 0).astype(np.int8)
    if kind == "i8":
        scales = rng.uniform(0.5, 1.5, outputs).astype(np.float32)
        return Case(kind, integers, scales, 0, input_scale, integers * scales.astype(np.float64)[:, None])
    group = group or next(size for size in (128, 32, 8) if inputs % size == 0)
    scales = rng.uniform(0.5, 1.5, (outputs, inputs // group)).astype(np.float32)
    if not wide:
        scales = (bf16_bits(scales).astype(np.uint32) << 16).view(np.float32)
    return Case(kind, integers, scales, group, 0.0, integers * np.repeat(scales.astype(np.float64), group, axis=1))


def activations(rows: int, inputs: int, *, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng([seed, rows, inputs]).standard_normal((rows, inputs), dtype=np.float32)
