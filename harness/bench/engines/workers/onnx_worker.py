"""The engines that read ONNX: ONNX Runtime, OpenVINO, DeepSparse; executed by the Python of an engine's environment."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx_model import feeds, write_graph
from serving import Array, linear_parameters, linear_shapes, serve, versions_of

Run = Callable[[], Array]


class OnnxEngine:
    """A graph per workload; what the engine makes of it is in `notes`."""

    def __init__(self, request: dict[str, Any], compiler: Callable[..., Run], style: str) -> None:
        """Nothing is prepared yet."""
        self._request, self._compiler, self._style = request, compiler, style
        self.notes: list[str] = []
        self.bytes: int | None = sum(linear_parameters(request["shape"])) * (4 if style == "float" else 1)
        self._run: Run | None = None

    def prepare(self, workload: str, batch: int, context: int) -> None:
        """Write the graph, let the engine compile it, and draw its inputs."""
        self._run = None  # the one before gives its memory back first
        shape, work = self._request["shape"], Path(self._request["work"]) / "onnx"
        tokens, past = (1, context) if workload == "decode" else (context, 0)
        sparsity = self._request["variant"]["sparsity"]
        path, inputs = write_graph(
            work, shape, sparsity=sparsity, style=self._style, batch=batch, tokens=tokens, past=past
        )
        values = feeds(inputs, shape)
        self._run = self._compiler(path, values, self._request, self.notes)
        if sparsity and any("ks_" in note or "_sparse" in note for note in self.notes):
            self.bytes = None  # sparse kernels, and how their weights are stored is the engine's secret
        logits = self._run()
        assert logits.shape == (batch, 1, shape["vocab"]), logits.shape

    def reset(self) -> None:
        """The past is an input: it never grows."""

    def step(self) -> None:
        """One token for every row, or the whole prompt, and the likeliest next token."""
        assert self._run is not None
        self._run().argmax(-1)


def onnxruntime(path: Path, values: dict[str, Array], request: dict[str, Any], notes: list[str]) -> Run:
    """ONNX Runtime's CPU provider with all optimizations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = request["threads"], 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["logits"], values)[0]


def openvino(path: Path, values: dict[str, Array], request: dict[str, Any], notes: list[str]) -> Run:
    """OpenVINO's CPU plugin; `sparse` switches its sparse weight decompression on, from half zeros upwards."""
    import openvino as ov

    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": request["threads"],
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if request["variant"]["option"] == "sparse":
        settings["CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE"] = 0.5
    core = ov.Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    products = Counter(
        str(node.get_rt_info()["primitiveType"].value)
        for node in compiled.get_runtime_model().get_ordered_ops()
        if str(node.get_rt_info()["layerType"].value) in ("FullyConnected", "MatMul")
    )
    told = ", ".join(f"{count} x {kind}" for kind, count in sorted(products.items()))
    notes[:] = [f"products run as {told}"]
    if request["variant"]["option"] == "sparse" and "sparse" not in told:
        notes.append("the option had no effect on this processor: it needs AMX")
    call = compiled.create_infer_request()
    call.infer(values)
    tensor = call.get_tensor("logits")

    def run() -> Array:
        call.infer()
        return tensor.data

    return run


def deepsparse(path: Path, values: dict[str, Array], request: dict[str, Any], notes: list[str]) -> Run:
    """DeepSparse on the graph as it is, if it recognises it."""
    from deepsparse import Engine

    notes[:] = [recognised(request)]
    engine = Engine(str(path), batch_size=None, num_cores=request["threads"])
    given = [values[name] for name in engine.input_names]
    at = engine.output_names.index("logits")
    return lambda: engine.run(given, val_inp=False)[at]


def recognised(request: dict[str, Any]) -> str:
    """What DeepSparse says of the products of one layer and the head.

    Raises:
        RuntimeError: It runs a product in its fall-back, or a sparse one with a dense kernel.
    """
    from deepsparse import model_debug_analysis

    variant = request["variant"]
    shape = {**request["shape"], "layers": 1, "name": f"{request['shape']['name']}-one-layer"}
    style = "float" if variant["kind"] == "fp32" else "integer"
    folder = Path(request["work"]) / "onnx"
    path, inputs = write_graph(folder, shape, sparsity=variant["sparsity"], style=style, batch=1, tokens=1, past=128)
    values = feeds(inputs, shape)
    found = model_debug_analysis(
        str(path),
        inp=[values[name] for name, _, _ in inputs],
        batch_size=None,
        num_cores=1,
        num_iterations=1,
        num_warmup_iterations=0,
        imposed_as=None,
        imposed_ks=None,
    )
    kernels = [layer["name"].rpartition("_")[0] for layer in found["layer_info"]]
    products = Counter(name.partition("-")[0] for name in kernels if name.startswith(("ks_", "gemm")))
    told = ", ".join(f"{count} x {kind}" for kind, count in sorted(products.items())) or "none of its own"
    wanted = len(linear_shapes(shape))
    had = sum(count for kind, count in products.items() if kind.startswith("ks_") or not variant["sparsity"])
    if had < wanted:
        raise RuntimeError(f"not recognised: {wanted} linears of a layer run as {told}")
    return f"recognised: a layer and the head run as {told}"


COMPILERS: dict[str, Callable[..., Run]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "deepsparse": deepsparse,
}


def open_engine(request: dict[str, Any]) -> tuple[OnnxEngine, dict[str, Any]]:
    """The engine of an `open` request; graphs are compiled when a workload is prepared."""
    variant = request["variant"]
    engine, kind = variant["engine"], variant["kind"]
    # Without this DeepSparse 1.8.0 takes the batch for that of images.
    os.environ["NM_DISABLE_BATCH_OVERRIDE"] = "1"
    style = "float" if kind == "fp32" else "integer" if engine == "deepsparse" else "qdq"
    return OnnxEngine(request, COMPILERS[engine], style), {"versions": versions_of(engine, "onnx")}


if __name__ == "__main__":
    sys.exit(serve(open_engine))
