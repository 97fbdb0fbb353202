"""Products with packed weights against float64, on every instruction set that this processor has."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("harness.engines.sparse._kernels")

from harness.engines.sparse._kernels import Matrix, best_isa, isas, read_bandwidth

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("kernel_cases.py"))))

ROWS = (1, 3, 8, 16, 17, 50, 130)
# Outputs and inputs: below one tile or step, ragged in both, and large enough for several panels.
SHAPES = ((1, 1), (16, 64), (37, 131), (100, 72), (33, 1160), (40, 2304))
every_isa = pytest.mark.parametrize("isa", isas())
every_kind = pytest.mark.parametrize("kind", kit.KINDS)


def fit(kind: str, inputs: int) -> int:
    return -(-inputs // 8) * 8 if kind == "i4" else inputs


@every_isa
@every_kind
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product(isa: str, kind: str, sparse: bool, shape: tuple[int, int]) -> None:
    outputs, inputs = shape[0], fit(kind, shape[1])
    case = kit.make_case(kind, outputs, inputs, sparsity=0.7, wide=outputs % 2 == 1)
    matrix = case.pack(sparse=sparse)
    for rows in ROWS:
        x = kit.activations(rows, inputs)
        wanted, bound = case.product(x, isa)
        got = matrix.multiply(x, isa=isa)
        assert got.shape == (rows, outputs)
        assert (np.abs(got - wanted) <= bound).all(), (rows, np.abs(got - wanted).max())


@every_isa
@every_kind
@pytest.mark.parametrize("sparse", [True, False])
def test_more_rows_than_one_pass_takes(isa: str, kind: str, sparse: bool) -> None:
    case = kit.make_case(kind, 70, 1160, sparsity=0.7)
    x = kit.activations(1037, 1160)
    wanted, bound = case.product(x, isa)
    assert (np.abs(case.pack(sparse=sparse).multiply(x, isa=isa) - wanted) <= bound).all()


@every_isa
@every_kind
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
def test_every_sparsity(isa: str, kind: str, sparsity: float) -> None:
    case = kit.make_case(kind, 48, 640, sparsity=sparsity)
    matrix = case.pack(sparse=True)
    for rows in (1, 5, 20):
        x = kit.activations(rows, 640)
        wanted, bound = case.product(x, isa)
        assert (np.abs(matrix.multiply(x, isa=isa) - wanted) <= bound).all()


@every_isa
@every_kind
def test_empty_rows_columns_and_tiles(isa: str, kind: str) -> None:
    case = kit.make_case(kind, 70, 264, sparsity=0.3)
    case.weight[16:32] = 0  # a whole tile
    case.weight[40] = 0
    case.weight[:, 100:140] = 0
    dense = case.dense.copy()
    dense[16:32] = dense[40] = dense[:, 100:140] = 0
    matrix = case.pack(sparse=True)
    for rows in (1, 30):
        x = kit.activations(rows, 264)
        wanted = case.activations(x, isa) @ dense.T
        got = matrix.multiply(x, isa=isa)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3 * np.abs(wanted).max())
        assert not got[:, 16:32].any() and not got[:, 40].any()


@every_isa
@pytest.mark.parametrize("group", [8, 16, 24, 32, 64, 1536])
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_int4_groups(isa: str, group: int, wide: bool, sparse: bool) -> None:
    case = kit.make_case("i4", 40, 1536, sparsity=0.6, group=group, wide=wide)
    matrix = case.pack(sparse=sparse)
    assert matrix.wide_scales == wide
    for rows in (1, 11, 19):
        x = kit.activations(rows, 1536)
        wanted, bound = case.product(x, isa)
        assert (np.abs(matrix.multiply(x, isa=isa) - wanted) <= bound).all()


@pytest.mark.parametrize("input_scale", [0.0, 0.02])
def test_int8_is_the_same_on_every_instruction_set(input_scale: float) -> None:
    """Integers are exact, so there is nothing to differ in; 0.02 makes the static scale clamp."""
    case = kit.make_case("i8", 50, 1100, sparsity=0.5, input_scale=input_scale)
    matrix = case.pack(sparse=True)
    for rows in (1, 7, 16, 40):
        x = kit.activations(rows, 1100)
        wanted, bound = case.product(x)
        results = [matrix.multiply(x, isa=isa) for isa in isas()]
        assert (np.abs(results[0] - wanted) <= bound).all()
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])


@every_isa
def test_int8_at_its_extremes(isa: str) -> None:
    """No intermediate sum saturates: the largest weights times the largest activations, of one sign, many inputs."""
    weight = np.full((16, 20000), -128, np.int8)
    matrix = Matrix.pack(weight, "i8", sparse=False, scales=np.ones(16, np.float32), input_scale=1.0)
    x = np.full((1, 20000), -128, np.float32)
    assert (matrix.multiply(x, isa=isa) == 128 * 128 * 20000).all()
    assert (matrix.multiply(np.repeat(x, 20, 0), isa=isa) == 128 * 128 * 20000).all()


@every_isa
def test_half_to_even(isa: str) -> None:
    matrix = Matrix.pack(np.eye(8, dtype=np.int8), "i8", sparse=True, scales=np.ones(8, np.float32), input_scale=1.0)
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 200, -200, 127.4]], np.float32)
    assert matrix.multiply(x, isa=isa).tolist() == [[0, 2, 2, 0, -2, 127, -128, 127]]


@every_isa
@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows(isa: str, kind: str, bad: float) -> None:
    """In its own row only. No weight in between hides it in the integer kinds, whose scale it spoils."""
    matrix = kit.make_case(kind, 32, 64, sparsity=0.0).pack(sparse=True)
    for rows in (3, 20):
        x = kit.activations(rows, 64)
        good = matrix.multiply(x, isa=isa)
        x[1, 5] = bad
        got = matrix.multiply(x, isa=isa)
        rest = np.arange(rows) != 1
        np.testing.assert_array_equal(got[rest], good[rest])
        affected = got[1, :8] if kind == "i4" else got[1]
        assert not np.isfinite(affected).any()


@every_isa
@every_kind
@pytest.mark.parametrize("sparse", [True, False])
def test_a_row_does_not_depend_on_its_batch(isa: str, kind: str, sparse: bool) -> None:
    matrix = kit.make_case(kind, 40, fit(kind, 333), sparsity=0.7).pack(sparse=sparse)
    x = kit.activations(16, matrix.inputs)
    alone = np.concatenate([matrix.multiply(x[i : i + 1], isa=isa) for i in range(16)])
    for rows in range(2, 17):
        np.testing.assert_array_equal(matrix.multiply(x[:rows], isa=isa), alone[:rows])


@every_isa
@every_kind
def test_threads_do_not_change_a_bit(isa: str, kind: str) -> None:
    matrix = kit.make_case(kind, 90, 600, sparsity=0.6).pack(sparse=True)
    for rows in (1, 40):
        x = kit.activations(rows, 600)
        one = matrix.multiply(x, isa=isa)
        for threads in (2, 3, 50):
            np.testing.assert_array_equal(matrix.multiply(x, isa=isa, threads=threads), one)


def test_concurrent_calls() -> None:
    """Several Python threads at once, each with threads of its own inside."""
    matrices = [kit.make_case(kind, 96, 512, sparsity=0.7).pack(sparse=True) for kind in kit.KINDS]
    inputs = [kit.activations(rows, 512) for rows in (1, 9, 33)]
    wanted = [[matrix.multiply(x) for x in inputs] for matrix in matrices]
    wrong: list[str] = []

    def work(start: int) -> None:
        for turn in range(60):
            i, j = (start + turn) % len(matrices), turn % len(inputs)
            got = matrices[i].multiply(inputs[j], threads=1 + turn % 3)
            if not np.array_equal(got, wanted[i][j]):
                wrong.append(f"{matrices[i].kind} {len(inputs[j])}")

    workers = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@every_isa
def test_bias_and_output(isa: str) -> None:
    case = kit.make_case("f32", 37, 50, sparsity=0.5)
    matrix = case.pack(sparse=True)
    bias = np.arange(37, dtype=np.float32)
    for rows in (2, 25):
        x = kit.activations(rows, 50)
        out = np.full((rows + 2, 37), 7, np.float32)
        result = matrix.multiply(x, bias=bias, out=out[1:-1], isa=isa, threads=2)
        assert np.shares_memory(result, out)
        np.testing.assert_array_equal(out[1:-1], matrix.multiply(x, isa=isa) + bias)
        assert (out[0] == 7).all() and (out[-1] == 7).all()


def test_no_rows() -> None:
    matrix = kit.make_case("f32", 5, 6, sparsity=0.5).pack(sparse=True)
    assert matrix.multiply(np.empty((0, 6), np.float32)).shape == (0, 5)


def test_bad_arguments_are_named() -> None:
    matrix = kit.make_case("f32", 5, 6, sparsity=0.5).pack(sparse=True)
    x = kit.activations(2, 6)
    with pytest.raises(TypeError, match="x must have dtype float32"):
        matrix.multiply(x.astype(np.float64))
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\) instead of \(any, 6\)"):
        matrix.multiply(np.ascontiguousarray(x[:, :5]))
    with pytest.raises(ValueError, match="x must be contiguous"):
        matrix.multiply(np.asfortranarray(x))
    with pytest.raises(ValueError, match=r"bias has shape \(4\)"):
        matrix.multiply(x, bias=np.zeros(4, np.float32))
    with pytest.raises(ValueError, match=r"out has shape \(5, 2\)"):
        matrix.multiply(x, out=np.zeros((5, 2), np.float32))
    with pytest.raises(ValueError, match="out must be contiguous"):
        matrix.multiply(x, out=np.zeros((2, 10), np.float32)[:, ::2])
    read_only = np.zeros((2, 5), np.float32)
    read_only.flags.writeable = False
    with pytest.raises(TypeError, match="out must be a writable"):
        matrix.multiply(x, out=read_only)
    for threads in (0, -1):
        with pytest.raises(ValueError, match="threads must be"):
            matrix.multiply(x, threads=threads)
    with pytest.raises(ValueError, match="isa must be"):
        matrix.multiply(x, isa="sse9")
    with pytest.raises(ValueError, match=r"x has shape \(6\)"):
        matrix.multiply(x[0])


def test_out_may_not_overlap_what_is_read() -> None:
    matrix = kit.make_case("f32", 6, 6, sparsity=0.5).pack(sparse=True)
    x = kit.activations(2, 6)
    with pytest.raises(ValueError, match="overlap"):
        matrix.multiply(x, out=x)


def test_the_environment_chooses_the_instruction_set() -> None:
    assert isas()[0] == "scalar" and best_isa() in isas()
    code = "from harness.engines.sparse._kernels import best_isa; print(best_isa())"
    for isa in isas():
        environment = {**os.environ, "SPARSEBENCH_ISA": isa}
        answer = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert answer.stdout.strip() == isa


def test_read_bandwidth_is_a_rate() -> None:
    assert 0.01 < read_bandwidth(np.ones(1 << 22, np.uint8), threads=2) < 1e5
