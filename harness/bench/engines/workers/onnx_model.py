"""The whole Llama forward as an ONNX graph with fixed shapes, for the engines that read ONNX. No torch, no exporter.

All matrices lie in one file that the graphs of one (shape, format, sparsity) share. Keys and values of the past come in
and those of the new tokens go out, so that no engine copies a cache. int8 has two styles: `qdq` is QuantizeLinear and
DequantizeLinear around MatMul, as every quantizer writes it; `integer` is what SparseML made of it for DeepSparse:
QuantizeLinear, MatMulInteger, Cast, Mul.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from serving import Array, embedding_weight, head_weight, layer_weights, per_output_int8

_OPSET = 13
_IR = 8
_ALIGN = 4096
_ACTIVATION_SCALE = 0.04
_ACTIVATION_ZERO = 128
_THETA = 10000.0
_TYPES = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8, "int64": TensorProto.INT64}


class WeightFile:
    """Matrices in one file, written once: name -> where, type and dimensions."""

    def __init__(self, path: Path) -> None:
        """Look whether it is there."""
        self._path, self._index = path, path.with_suffix(".json")
        self.entries: dict[str, dict[str, Any]] = {}

    def ready(self) -> bool:
        """Whether it was written to its end; then `entries` is known."""
        import json

        if not self._index.exists():
            return False
        self.entries = json.loads(self._index.read_text("utf-8"))
        return True

    def write(self, tensors: Iterator[tuple[str, Array]]) -> None:
        """Write all tensors."""
        import json

        with self._path.open("wb") as stream:
            for name, tensor in tensors:
                stream.seek(-stream.tell() % _ALIGN, 1)
                self.entries[name] = {
                    "offset": stream.tell(),
                    "length": tensor.nbytes,
                    "type": str(tensor.dtype),
                    "dims": list(tensor.shape),
                }
                stream.write(np.ascontiguousarray(tensor).data)
        self._index.write_text(json.dumps(self.entries), "utf-8")

    def proto(self, name: str) -> TensorProto:
        """The initializer that points into the file."""
        entry = self.entries[name]
        tensor = TensorProto(name=name, data_type=_TYPES[entry["type"]], dims=entry["dims"])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._path.name), ("offset", entry["offset"]), ("length", entry["length"])):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def tensors(shape: dict[str, Any], sparsity: float, style: str) -> Iterator[tuple[str, Array]]:
    """Everything that goes into the weight file; a layer's matrices are those of the first, its outputs turned round.

    No two layers hold the same bytes: an engine could find that out and keep one copy. As in SparseML, `integer` has
    one scale per matrix, which is multiplied with that of the activations; `qdq` has one per output.
    """
    yield "embedding", embedding_weight(shape)
    layer = dict(layer_weights(shape, sparsity))
    everything = [
        (f"{index}.{name}", np.roll(weight, index, axis=0))
        for name, weight in layer.items()
        for index in range(shape["layers"])
    ]
    del layer
    for name, weight in (*everything, ("head", head_weight(shape))):
        if style == "integer":
            scale = np.abs(weight).max() / np.float32(127)
            yield f"{name}.weight", np.rint(weight / scale).astype(np.int8).T
            yield f"{name}.scale", np.asarray(scale * _ACTIVATION_SCALE, np.float32)
        elif style == "qdq":
            codes, scales = per_output_int8(weight)
            yield f"{name}.weight", codes.T
            yield f"{name}.scale", scales
        else:
            yield f"{name}.weight", weight.T


@dataclass
class Graph:
    """A graph in the making."""

    weights: WeightFile
    style: str
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)
    _count: int = 0

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; the name of its (first) result."""
        self._count += 1
        names = [f"{kind}_{self._count}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{self._count}", **attributes))
        return names[0]

    def constant(self, value: Any, dtype: Any, name: str) -> str:
        """A small tensor."""
        if name not in self._known:
            self._known.add(name)
            self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def stored(self, name: str) -> str:
        """A tensor of the weight file."""
        if name not in self._known:
            self._known.add(name)
            self.initializers.append(self.weights.proto(name))
        return name

    def activation(self, x: str) -> str:
        """What the linears that share an input read."""
        if self.style == "float":
            return x
        scale = self.constant(_ACTIVATION_SCALE, np.float32, "activation_scale")
        zero = self.constant(_ACTIVATION_ZERO, np.uint8, "activation_zero")
        codes = self.add("QuantizeLinear", x, scale, zero)
        return codes if self.style == "integer" else self.add("DequantizeLinear", codes, scale, zero)

    def linear(self, x: str, name: str) -> str:
        """One linear on an `activation`."""
        weight = self.stored(f"{name}.weight")
        if self.style == "float":
            return self.add("MatMul", x, weight)
        if self.style == "qdq":
            scale = self.stored(f"{name}.scale")
            size = self.weights.entries[f"{name}.scale"]["dims"][0]
            zero = self.constant(np.zeros(size), np.int8, f"weight_zero_{size}")
            return self.add("MatMul", x, self.add("DequantizeLinear", weight, scale, zero, axis=1))
        zero = self.constant(_ACTIVATION_ZERO, np.uint8, "activation_zero")
        summed = self.add("MatMulInteger", x, weight, zero, self.constant(0, np.int8, "weight_zero"))
        return self.add("Mul", self.add("Cast", summed, to=TensorProto.FLOAT), self.stored(f"{name}.scale"))

    def norm(self, x: str, width: int, eps: float) -> str:
        """RMSNorm with weights of one."""
        mean = self.add("ReduceMean", self.add("Mul", x, x), axes=[-1], keepdims=1)
        root = self.add("Sqrt", self.add("Add", mean, self.constant(eps, np.float32, "eps")))
        return self.add("Mul", self.add("Div", x, root), self.constant(np.ones(width), np.float32, "norm"))

    def reshape(self, x: str, *dims: int) -> str:
        """`x` with these dimensions."""
        return self.add("Reshape", x, self.constant(dims, np.int64, "dims_" + "_".join(map(str, dims))))

    def rotate(self, x: str, half: int) -> str:
        """Rotary embedding of (batch, heads, tokens, width) with the constants `cos` and `sin`."""
        ends = [(0, half), (half, 2 * half)]
        axis = self.constant([3], np.int64, "axis3")
        low, high = (
            self.add(
                "Slice",
                x,
                self.constant([start], np.int64, f"at{start}"),
                self.constant([end], np.int64, f"at{end}"),
                axis,
            )
            for start, end in ends
        )
        turned = self.add("Concat", self.add("Neg", high), low, axis=3)
        return self.add("Add", self.add("Mul", x, "cos"), self.add("Mul", turned, "sin"))


def write_graph(
    folder: Path, shape: dict[str, Any], *, sparsity: float, style: str, batch: int, tokens: int, past: int
) -> tuple[Path, list[tuple[str, tuple[int, ...], str]]]:
    """The graph of one workload, with its weights; both are made if they are not there.

    Args:
        folder: Where files go.
        shape: Of the model.
        sparsity: Of the linears.
        style: float, qdq or integer.
        batch: Rows.
        tokens: New tokens of each.
        past: Tokens before them.

    Returns:
        The file, and its inputs in order: name, dimensions, numpy type.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{shape['name']}-{style}-{sparsity * 100:.0f}"
    weights = WeightFile(folder / f"{stem}.bin")
    if not weights.ready():
        weights.write(tensors(shape, sparsity, style))
    graph = Graph(weights, style)
    inputs, outputs = _forward(graph, shape, batch, tokens, past)
    made = helper.make_graph(
        graph.nodes,
        "llama",
        [helper.make_tensor_value_info(name, _TYPES[kind], dims) for name, dims, kind in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs],
        graph.initializers,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    path = folder / f"{stem}-b{batch}-t{tokens}-p{past}.onnx"
    onnx.save(model, str(path))
    return path, inputs


def _forward(
    graph: Graph, shape: dict[str, Any], batch: int, tokens: int, past: int
) -> tuple[list[tuple[str, tuple[int, ...], str]], list[tuple[str, tuple[int, ...]]]]:
    hidden, heads, kv_heads = shape["hidden"], shape["heads"], shape["kv_heads"]
    width, shared = hidden // heads, heads // kv_heads
    inputs: list[tuple[str, tuple[int, ...], str]] = [("ids", (batch, tokens), "int64")]
    # Constants, not inputs: DeepSparse 1.8.0 runs a graph with inputs that have no rows of their own in its slow path.
    frequencies = _THETA ** (-np.arange(0, width, 2) / width)
    angles = np.outer(np.arange(past, past + tokens), np.concatenate([frequencies, frequencies]))
    graph.constant(np.cos(angles), np.float32, "cos")
    graph.constant(np.sin(angles), np.float32, "sin")
    causal = np.triu(np.full((tokens, past + tokens), -1e9, np.float32), past + 1)
    outputs: list[tuple[str, tuple[int, ...]]] = []
    x = graph.add("Gather", graph.stored("embedding"), "ids", axis=0)
    for index in range(shape["layers"]):
        normed = graph.activation(graph.norm(x, hidden, shape["eps"]))
        query, key, value = (
            graph.add(
                "Transpose",
                graph.reshape(graph.linear(normed, f"{index}.self_attn.{name}_proj"), batch, tokens, count, width),
                perm=[0, 2, 1, 3],
            )
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        query, key = graph.rotate(query, width // 2), graph.rotate(key, width // 2)
        for letter, new in (("k", key), ("v", value)):
            graph.nodes.append(helper.make_node("Identity", [new], [f"new_{letter}_{index}"]))
            outputs.append((f"new_{letter}_{index}", (batch, kv_heads, tokens, width)))
        if past:
            for letter in "kv":
                inputs.append((f"past_{letter}_{index}", (batch, kv_heads, past, width), "float32"))
            key = graph.add("Concat", f"past_k_{index}", key, axis=2)
            value = graph.add("Concat", f"past_v_{index}", value, axis=2)
        # Heads that share keys are further rows of one product.
        query = graph.reshape(query, batch, kv_heads, shared * tokens, width)
        scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
        scores = graph.add("Mul", scores, graph.constant(1 / math.sqrt(width), np.float32, "attention_scale"))
        if tokens > 1:
            scores = graph.add("Add", scores, graph.constant(np.tile(causal, (shared, 1)), np.float32, "mask"))
        mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
        mixed = graph.add("Transpose", graph.reshape(mixed, batch, heads, tokens, width), perm=[0, 2, 1, 3])
        mixed = graph.activation(graph.reshape(mixed, batch, tokens, hidden))
        x = graph.add("Add", x, graph.linear(mixed, f"{index}.self_attn.o_proj"))
        normed = graph.activation(graph.norm(x, hidden, shape["eps"]))
        gate, up = (graph.linear(normed, f"{index}.mlp.{name}_proj") for name in ("gate", "up"))
        gated = graph.add("Mul", graph.add("Mul", gate, graph.add("Sigmoid", gate)), up)
        x = graph.add("Add", x, graph.linear(graph.activation(gated), f"{index}.mlp.down_proj"))
    x = graph.norm(x, hidden, shape["eps"])
    if tokens > 1:
        last = graph.constant([tokens - 1], np.int64, "last")
        x = graph.add("Gather", x, last, axis=1)
    logits = graph.linear(graph.activation(x), "head")
    graph.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    return inputs, [("logits", (batch, 1, shape["vocab"])), *outputs]


def feeds(inputs: list[tuple[str, tuple[int, ...], str]], shape: dict[str, Any]) -> dict[str, Array]:
    """Values for a graph's inputs: random tokens, keys and values."""
    stream = np.random.default_rng(11)
    found: dict[str, Array] = {}
    for name, dims, kind in inputs:
        if kind == "int64":
            found[name] = stream.integers(8, shape["vocab"], dims)
        else:
            found[name] = stream.standard_normal(dims, dtype=np.float32)
    return found
