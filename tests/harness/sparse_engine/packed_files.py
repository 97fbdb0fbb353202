"""Packed matrices and files for the tests of packed files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.engines.sparse.packed import write_packed

kernels = pytest.importorskip("harness.engines.sparse._kernels", reason="the kernels are not built here")
Matrix = kernels.Matrix

FORMS = [(kind, sparse) for kind in ("f32", "bf16", "i8", "i4") for sparse in (False, True)]


def make_matrix(kind: str, sparse: bool, *, outputs: int = 40, inputs: int = 64, seed: int = 0, **more: Any) -> Any:
    rng = np.random.default_rng(seed)
    kept = rng.random((outputs, inputs)) < (0.3 if sparse else 1.0)
    if kind in ("i8", "i4"):
        top = 128 if kind == "i8" else 8
        weight = (rng.integers(-top, top, (outputs, inputs)) * kept).astype(np.int8)
        shape = (outputs,) if kind == "i8" else (outputs, inputs // 32)
        more |= {"scales": (rng.random(shape) + 0.1).astype(np.float32), "group": 0 if kind == "i8" else 32}
        return Matrix.pack(weight, kind, sparse=sparse, **more)
    weight = (rng.standard_normal((outputs, inputs)) * kept).astype(np.float32)
    if kind == "bf16":
        weight = (weight.view(np.uint32) >> 16).astype(np.uint16)
    return Matrix.pack(weight, kind, sparse=sparse, **more)


def some() -> dict[str, Any]:
    return {f"layers.{i}.{kind}": make_matrix(kind, sparse, seed=i) for i, (kind, sparse) in enumerate(FORMS)}


def write(path: Path, matrices: dict[str, Any], key: str = "k/s") -> Path:
    write_packed(path, matrices.items(), names=matrices, key=key)
    return path


def same(one: Any, other: Any) -> None:
    for field in ("kind", "sparse", "outputs", "inputs", "group", "wide_scales", "input_scale", "nbytes"):
        assert getattr(one, field) == getattr(other, field), field
    assert np.array_equal(one.unpack(), other.unpack())
    x = np.random.default_rng(1).standard_normal((3, one.inputs)).astype(np.float32)
    assert np.array_equal(one.multiply(x), other.multiply(x))
