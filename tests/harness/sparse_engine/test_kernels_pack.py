"""Packing, unpacking, and what is refused: every corruption is an error, none a crash."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("harness.engines.sparse._kernels")

from harness.engines.sparse._kernels import Matrix

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("kernel_cases.py"))))
every_kind = pytest.mark.parametrize("kind", kit.KINDS)


def view_of(matrix: Matrix, **changes: Any) -> Matrix:
    fields = {
        name: getattr(matrix, name)
        for name in (
            *("kind", "sparse", "outputs", "inputs", "group"),
            *("wide_scales", "data", "offsets", "scales", "input_scale"),
        )
    }
    return Matrix.view(**{**fields, **changes})


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(kit.KINDS),
    sparse=st.booleans(),
    outputs=st.integers(1, 70),
    inputs=st.integers(1, 70),
    sparsity=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    wide=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_unpack_returns_what_was_packed(
    kind: str, sparse: bool, outputs: int, inputs: int, sparsity: float, wide: bool, threads: int, seed: int
) -> None:
    inputs = inputs * 8 if kind == "i4" else inputs
    case = kit.make_case(kind, outputs, inputs, sparsity=sparsity, seed=seed, wide=wide)
    matrix = case.pack(sparse=sparse, threads=threads)
    np.testing.assert_array_equal(matrix.unpack(threads=threads), case.dense.astype(np.float32))
    assert (matrix.kind, matrix.sparse, matrix.outputs, matrix.inputs) == (kind, sparse, outputs, inputs)
    assert matrix.density == pytest.approx(np.count_nonzero(case.weight) / case.weight.size if sparse else 1.0)
    same = view_of(matrix)
    np.testing.assert_array_equal(same.unpack(), matrix.unpack())
    assert (same.density, same.nbytes) == (matrix.density, matrix.nbytes)


def test_threads_pack_the_same_bytes() -> None:
    case = kit.make_case("i4", 400, 96, sparsity=0.6)
    one, three = case.pack(sparse=True), case.pack(sparse=True, threads=3)
    np.testing.assert_array_equal(one.data, three.data)
    np.testing.assert_array_equal(one.offsets, three.offsets)


@every_kind
def test_bytes_per_weight(kind: str) -> None:
    """A mask bit per weight, the survivors, int4's scales; padding below 1 % at this size."""
    case = kit.make_case(kind, 64, 4096, sparsity=0.7, group=32 if kind == "i4" else 0)
    matrix = case.pack(sparse=True)
    width = {"f32": 32, "bf16": 16, "i8": 8, "i4": 4}[kind]
    bits = 1 + matrix.density * width + (16 / 32 if kind == "i4" else 0)
    assert matrix.nbytes * 8 / (64 * 4096) == pytest.approx(bits, rel=0.01)
    dense = case.pack(sparse=False).nbytes * 8 / (64 * 4096)
    assert dense == width + (16 / 32 if kind == "i4" else 0)


def test_negative_zero_is_a_zero_and_nan_is_kept() -> None:
    weight = np.array([[-0.0, 1.0, np.nan, -0.0]], np.float32)
    matrix = Matrix.pack(weight, "f32", sparse=True)
    assert matrix.density == 0.5
    np.testing.assert_array_equal(matrix.unpack(), [[0, 1, np.nan, 0]])
    np.testing.assert_array_equal(np.signbit(Matrix.pack(weight, "f32", sparse=False).unpack())[0, [0, 3]], True)


@every_kind
def test_a_mask_keeps_zeros(kind: str) -> None:
    case = kit.make_case(kind, 20, 40, sparsity=0.5)
    mask = np.random.default_rng(3).random((20, 40)) < 0.7
    mask |= case.weight != 0
    for given_mask in (mask, mask.astype(np.uint8)):
        matrix = case.pack(sparse=True, mask=given_mask)
        assert matrix.density == mask.mean()
        np.testing.assert_array_equal(matrix.unpack(), case.dense.astype(np.float32))
    mask[np.nonzero(case.weight)[0][0], np.nonzero(case.weight)[1][0]] = False
    with pytest.raises(ValueError, match="outside the mask is not zero"):
        case.pack(sparse=True, mask=mask)
    with pytest.raises(ValueError, match="a mask needs sparse=True"):
        case.pack(sparse=False, mask=mask)


def test_scales_that_fit_bfloat16_take_half_the_room() -> None:
    narrow = kit.make_case("i4", 16, 64, sparsity=0.5, wide=False).pack(sparse=False)
    wide = kit.make_case("i4", 16, 64, sparsity=0.5, wide=True).pack(sparse=False)
    assert not narrow.wide_scales and wide.wide_scales and wide.nbytes > narrow.nbytes


def test_bad_weights_are_named() -> None:
    weight = np.zeros((4, 16), np.float32)
    integers = np.zeros((4, 16), np.int8)
    ones = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="kind must be"):
        Matrix.pack(weight, "f64", sparse=True)
    with pytest.raises(TypeError, match="weight must have dtype float32"):
        Matrix.pack(integers, "f32", sparse=True)
    with pytest.raises(TypeError, match="weight must have dtype uint16"):
        Matrix.pack(weight, "bf16", sparse=True)
    with pytest.raises(TypeError, match="weight must have dtype int8"):
        Matrix.pack(weight, "i8", sparse=True, scales=ones)
    with pytest.raises(ValueError, match="weight must be contiguous"):
        Matrix.pack(weight.T, "f32", sparse=True)
    with pytest.raises(ValueError, match="weight must be a matrix"):
        Matrix.pack(weight[0], "f32", sparse=True)
    with pytest.raises(ValueError, match="weight must be a matrix"):
        Matrix.pack(np.zeros((0, 3), np.float32), "f32", sparse=True)
    with pytest.raises(ValueError, match="need scales"):
        Matrix.pack(integers, "i8", sparse=True)
    with pytest.raises(ValueError, match=r"scales has shape \(3\) instead of \(4\)"):
        Matrix.pack(integers, "i8", sparse=True, scales=ones[:3])
    with pytest.raises(ValueError, match="only int8 and int4 have scales"):
        Matrix.pack(weight, "f32", sparse=True, scales=ones)
    for group in (0, 4, 12, 32, -8):
        with pytest.raises(ValueError, match="group must be a multiple of 8"):
            Matrix.pack(integers, "i4", sparse=True, scales=np.ones((4, 1), np.float32), group=group)
    with pytest.raises(ValueError, match="only int4 has groups"):
        Matrix.pack(weight, "f32", sparse=True, group=8)
    with pytest.raises(ValueError, match=r"scales has shape \(4, 2\) instead of \(4, 1\)"):
        Matrix.pack(integers, "i4", sparse=True, scales=np.ones((4, 2), np.float32), group=16)
    for bad in (8, -9):
        integers[2, 3] = bad
        with pytest.raises(ValueError, match="between -8 and 7"):
            Matrix.pack(integers, "i4", sparse=True, scales=np.ones((4, 1), np.float32), group=16, threads=2)
    with pytest.raises(ValueError, match=r"mask has shape \(4, 15\)"):
        Matrix.pack(weight, "f32", sparse=True, mask=np.ones((4, 15), bool))
    for bad_scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="input_scale"):
            Matrix.pack(np.zeros((4, 16), np.int8), "i8", sparse=True, scales=ones, input_scale=bad_scale)
    with pytest.raises(ValueError, match="only int8 has a static input scale"):
        Matrix.pack(weight, "f32", sparse=True, input_scale=1.0)
    with pytest.raises(ValueError, match="at most 131071 inputs"):
        Matrix.pack(np.zeros((1, 131072), np.float32), "f32", sparse=True)


@every_kind
@pytest.mark.parametrize("sparse", [True, False])
def test_every_wrong_field_is_refused(kind: str, sparse: bool) -> None:
    matrix = kit.make_case(kind, 40, 72, sparsity=0.5).pack(sparse=sparse)
    data, offsets = matrix.data.copy(), matrix.offsets.copy()
    assert (view_of(matrix, data=data, offsets=offsets).unpack() == matrix.unpack()).all()
    wrong: list[dict[str, Any]] = [
        {"sparse": not sparse},
        {"outputs": 0},
        {"outputs": -16},
        {"outputs": 32},
        {"outputs": 49},
        {"outputs": 1 << 40},
        {"outputs": (1 << 31) - 8},
        {"inputs": 0},
        {"inputs": -1},
        {"inputs": 8},
        {"inputs": 800},
        {"inputs": 1 << 40},
        {"inputs": (1 << 63) - 1},
        {"group": 7},
        {"group": 144},
        {"wide_scales": not matrix.wide_scales},
        {"data": data[:-1]},
        {"data": data[:-64]},
        {"data": data[:64]},
        {"data": data[:10]},
        {"data": np.concatenate([data, data[:64]])},
        {"offsets": offsets[:-1]},
        {"offsets": offsets + 64},
        {"offsets": offsets[::-1].copy()},
        {"offsets": np.zeros_like(offsets)},
        {"offsets": np.full_like(offsets, -1)},
        {"scales": None if kind == "i8" else np.ones(48, np.float32)},
        {"scales": np.ones(40, np.float32)},
        {"input_scale": -1.0},
        {"input_scale": float("nan")},
    ]
    for i in range(len(offsets)):
        for change in (1, -1, 64, -64, 1 << 62):
            moved = offsets.copy()
            moved[i] += change
            wrong.append({"offsets": moved})
    wrong += [{"kind": other} for other in kit.KINDS if other != kind]
    for changes in wrong:
        with pytest.raises((ValueError, TypeError)):
            view_of(matrix, **changes)


@every_kind
def test_every_flipped_mask_bit_is_refused(kind: str) -> None:
    """Unless the padding of a tile hides the change of length: then the matrix is another, but still a sound one."""
    case = kit.make_case(kind, 20, 24, sparsity=0.5)
    matrix = case.pack(sparse=True)
    x = kit.activations(2, 24)
    refused = kept = 0
    for at in range(matrix.nbytes):
        for bit in range(8):
            data = matrix.data.copy()
            data[at] ^= 1 << bit
            try:
                changed = view_of(matrix, data=data)
            except ValueError as error:
                assert "corrupt" in str(error)
                refused += 1
            else:
                changed.multiply(x)
                kept += 1
    assert refused > 0 and kept > 0


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_bytes_never_crash(data: st.DataObject) -> None:
    """What passes the check can be multiplied and unpacked on any instruction set."""
    kind = data.draw(st.sampled_from(kit.KINDS))
    case = kit.make_case(kind, data.draw(st.integers(1, 40)), 8 * data.draw(st.integers(1, 12)), sparsity=0.6)
    matrix = case.pack(sparse=data.draw(st.booleans()))
    packed, offsets = matrix.data.copy(), matrix.offsets.copy()
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        offsets[data.draw(st.integers(0, len(offsets) - 1))] = data.draw(st.integers(-(2**63), 2**63 - 1))
    try:
        changed = view_of(matrix, data=packed, offsets=offsets)
    except ValueError:
        return
    changed.unpack()
    for rows in (1, 18):
        changed.multiply(kit.activations(rows, matrix.inputs))


def test_a_view_keeps_its_arrays_alive() -> None:
    case = kit.make_case("i8", 64, 256, sparsity=0.5)
    matrix = case.pack(sparse=True)
    view = view_of(matrix, data=matrix.data.copy(), offsets=matrix.offsets.copy(), scales=matrix.scales.copy())
    x = kit.activations(1, 256)
    wanted = matrix.multiply(x)
    arrays = matrix.data, matrix.offsets, matrix.scales
    del matrix
    np.testing.assert_array_equal(view.multiply(x), wanted)
    assert all(array.size for array in arrays)
    np.testing.assert_array_equal(view_of(view).multiply(x), wanted)


def test_read_only_and_unaligned_data(tmp_path: Path) -> None:
    """Data may lie anywhere in a mapped file."""
    case = kit.make_case("i4", 48, 256, sparsity=0.5)
    matrix = case.pack(sparse=True)
    path = tmp_path / "packed"
    path.write_bytes(b"xyz" + matrix.data.tobytes())
    mapped = np.memmap(path, np.uint8, mode="r", offset=3)
    x = kit.activations(20, 256)
    np.testing.assert_array_equal(view_of(matrix, data=mapped).multiply(x), matrix.multiply(x))
