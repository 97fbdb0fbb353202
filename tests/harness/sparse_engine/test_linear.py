"""Linears over packed weights: against torch's own, under the compiler, with fake tensors, and in wrong hands."""

from __future__ import annotations

import copy
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from harness.engines.sparse.linear import SparseLinear

kernels = pytest.importorskip("harness.engines.sparse._kernels", reason="the kernels are not built here")


def weight_of(*, outputs: int = 50, inputs: int = 36, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=stream)
    return weight * (torch.rand(outputs, inputs, generator=stream) < 0.4)


def layer(weight: Tensor | None = None, *, bias: Tensor | None = None, sparse: bool = True) -> SparseLinear:
    weight = weight_of() if weight is None else weight
    return SparseLinear(kernels.Matrix.pack(weight.numpy(), "f32", sparse=sparse), bias)


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("shape", [(36,), (1, 36), (5, 36), (2, 3, 36), (2, 40, 36), (0, 36), (2, 0, 36)])
def test_it_computes_what_torch_does(shape: tuple[int, ...], sparse: bool) -> None:
    bias = inputs(50, seed=2)
    x = inputs(*shape)
    for given in (None, bias):
        out = layer(bias=given, sparse=sparse)(x)
        assert out.shape == (*shape[:-1], 50) and out.dtype == torch.float32
        exact = linear(x.double(), weight_of().double(), None if given is None else given.double())
        torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)


def test_views_and_other_dtypes() -> None:
    made = layer()
    wide = inputs(4, 72)
    torch.testing.assert_close(made(wide[:, ::2]), linear(wide[:, ::2], weight_of()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made(inputs(36, 4).T), linear(inputs(36, 4).T, weight_of()), rtol=1e-5, atol=1e-5)
    half = inputs(4, 36).bfloat16()
    assert made(half).dtype == torch.bfloat16
    torch.testing.assert_close(made(half), linear(half.float(), weight_of()).bfloat16())


def test_what_does_not_fit_is_refused() -> None:
    made = layer()
    with pytest.raises(RuntimeError, match=r"input of shape \[2, 35\] does not fit 36 inputs"):
        made(inputs(2, 35))
    with pytest.raises(RuntimeError, match="not floating-point"):
        made(torch.zeros(2, 36, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="does not fit"):
        made(torch.tensor(1.0))
    with pytest.raises(ValueError, match="bias"):
        layer(bias=torch.zeros(49))


def test_the_threads_of_torch_are_used() -> None:
    """Any number of threads gives the same numbers: tiles are independent."""
    made, x = layer(weight_of(outputs=300)), inputs(3, 36)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(made(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_requests_from_several_threads_are_answered_right() -> None:
    made = layer(weight_of(outputs=400, inputs=256))
    given = [inputs(2, 256, seed=seed) for seed in range(8)]
    alone = [made(x) for x in given]
    wrong: list[int] = []

    def ask(index: int) -> None:
        torch.set_num_threads(2)
        wrong.extend(index for _ in range(50) if not torch.equal(made(given[index]), alone[index]))

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_operator_keeps_the_rules_of_torch() -> None:
    made = layer(bias=inputs(50))
    for x in (inputs(3, 36), inputs(2, 3, 36)):
        arguments = (x, made.bias, made._number, 50)
        torch.library.opcheck(
            torch.ops.sparsebench.packed_linear.default, arguments, test_utils=("test_schema", "test_faketensor")
        )


def test_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    made = layer()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        out = made(mode.from_tensor(inputs(2, 7, 36).bfloat16()))
    assert out.shape == (2, 7, 50) and out.dtype == torch.bfloat16 and "Fake" in type(out).__name__
    assert made(inputs(2, 36).to("meta")).shape == (2, 50)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_model_is_one_graph(dynamic: bool) -> None:
    model = nn.Sequential(layer(bias=inputs(50)), nn.SiLU(), layer(weight_of(outputs=8, inputs=50)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for rows in (3, 5):
        x = inputs(rows, 36)
        with torch.inference_mode():
            assert torch.equal(compiled(x), model(x))


def test_inductor_compiles_around_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("inductor generates C++, and no compiler is installed")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = nn.Sequential(layer(bias=inputs(50)), nn.SiLU(), layer(weight_of(outputs=8, inputs=50)))
    x = inputs(3, 36)
    with torch.inference_mode():
        found = torch.compile(model, fullgraph=True, backend="inductor")(x)
        assert torch.allclose(found, model(x), rtol=1e-5, atol=1e-6)
    assert list(tmp_path.rglob("*.cpp")), "what lies between the linears was compiled"


def test_compiled_layers_of_one_shape_keep_their_own_weights() -> None:
    class Pick(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([layer(weight_of(seed=seed)) for seed in (1, 2)])

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([each(x) for each in self.layers])

    model, x = Pick(), inputs(2, 36)
    out = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(out, model(x)) and not torch.equal(out[0], out[1])


def test_training_is_refused() -> None:
    made, x = layer(), inputs(2, 36).requires_grad_()
    assert not any(parameter.requires_grad for parameter in made.parameters())
    out = made(x)
    with pytest.raises(RuntimeError, match="for inference: train with engine torch"):
        out.sum().backward()
    with torch.no_grad():
        assert torch.equal(made(x), out)


def test_copies_share_the_weight_and_pickles_are_refused() -> None:
    made = layer(bias=inputs(50))
    other = copy.deepcopy(made)
    assert other.matrix is made.matrix and other.bias is not made.bias
    del made
    assert other(inputs(1, 36)).shape == (1, 50)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(other)


def test_a_weight_that_is_gone_is_said() -> None:
    made = layer()
    number = made._number
    del made
    with pytest.raises(RuntimeError, match="its weight is gone"):
        torch.ops.sparsebench.packed_linear(inputs(1, 36), None, number, 50)


def test_it_prints_its_form() -> None:
    assert "in_features=36, out_features=50, sparse f32" in repr(layer())


@pytest.mark.parametrize("kind", ["bf16", "i8", "i4"])
def test_other_kinds(kind: str) -> None:
    """Against float64 on the weights that the matrix really holds."""
    rng, made = np.random.default_rng(0), dict[str, Any]()
    if kind == "bf16":
        values: Any = weight_of(inputs=64).bfloat16().view(torch.int16).numpy().view(np.uint16)
    else:
        values = rng.integers(-8, 8, (50, 64)).astype(np.int8) * (rng.random((50, 64)) < 0.5).astype(np.int8)
        shape = (50,) if kind == "i8" else (50, 2)
        made = {"scales": rng.random(shape).astype(np.float32), "group": 0 if kind == "i8" else 32}
    module = SparseLinear(kernels.Matrix.pack(values, kind, sparse=True, **made))
    x = inputs(5, 64)
    exact = linear(x.double(), torch.from_numpy(module.matrix.unpack()).double())
    bound = {"bf16": 1e-2, "i8": 2e-2, "i4": 2e-2}[kind] * float(exact.abs().max())
    torch.testing.assert_close(module(x).double(), exact, rtol=0, atol=bound)
