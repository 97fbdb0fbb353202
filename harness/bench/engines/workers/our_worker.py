"""Ours: the native decoder, its linears alone (`kernels`), and the reader that measures the memory's bandwidth."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal

import numpy as np
from serving import (
    STEPS_BETWEEN_RESETS,
    Array,
    Engine,
    embedding_weight,
    head_weight,
    layer_weights,
    per_output_int8,
    random_tokens,
    serve,
    versions_of,
)

GROUP = 32
_READ_BYTES = 1 << 30
_RING_BYTES = 1_100_000_000
_HUGE = 1 << 21
_PART_STEPS = 5
SPARSE_HEAD = "sparse-head"


def kernels() -> Any:
    """The extension module."""
    return import_module("harness.engines.sparse._kernels")


def packed(weight: Array, kind: str, *, sparse: bool, threads: int) -> Any:
    """A weight (n, k) float32 as a packed matrix of one kind."""
    pack = kernels().Matrix.pack
    if kind == "f32":
        return pack(weight, kind, sparse=sparse, threads=threads)
    if kind == "bf16":
        # Round to nearest even, as torch does.
        bits = weight.view(np.uint32)
        return pack(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16), kind, sparse=sparse, threads=threads)
    if kind == "i8":
        codes, scales = per_output_int8(weight)
        return pack(codes, kind, sparse=sparse, scales=scales, threads=threads)
    grouped = weight.reshape(weight.shape[0], -1, GROUP)
    scales = np.maximum(np.abs(grouped).max(2), 1e-12) / np.float32(7)
    codes = np.rint(grouped / scales[:, :, None]).astype(np.int8).reshape(weight.shape)
    # bfloat16 scales: what a recipe writes.
    scales = (scales.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    return pack(codes, kind, sparse=sparse, scales=scales, group=GROUP, threads=threads)


class Arena:
    """Memory in huge pages for copies of packed matrices, one behind the other."""

    def __init__(self, size: int) -> None:
        """Take the memory."""
        import mmap

        self._map = mmap.mmap(-1, (size + 2 * _HUGE) // _HUGE * _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._bytes = np.frombuffer(self._map, dtype=np.uint8)
        self._used = -self._bytes.ctypes.data % _HUGE

    @staticmethod
    def room(matrix: Any) -> int:
        """Bytes that a copy takes."""
        return (int(matrix.data.size) + 63) // 64 * 64

    def copy(self, matrix: Any) -> Any:
        """The same matrix in memory of its own."""
        source = matrix.data
        target = self._bytes[self._used : self._used + source.size]
        target[:] = source
        self._used += self.room(matrix)
        return kernels().Matrix.view(
            matrix.kind,
            matrix.sparse,
            matrix.outputs,
            matrix.inputs,
            matrix.group,
            matrix.wide_scales,
            target,
            matrix.offsets.copy(),
            None if matrix.scales is None else matrix.scales.copy(),
            matrix.input_scale,
        )


class Native:
    """The native decoder on a whole model; the head is in the number format of the linears."""

    def __init__(self, model: Any, matrices: dict[str, Any], shape: dict[str, Any], cache: str) -> None:
        """Nothing is prepared yet."""
        self._model, self._matrices, self._shape = model, matrices, shape
        self.bytes: int | None = sum(matrix.nbytes for matrix in matrices.values())
        self.notes = [f"keys and values {cache}"]
        self._state: Any = None
        self._rows: list[int] = []
        self._prompt: list[int] = []
        self._first: list[int] = []
        self._tokens: list[int] = []
        self._context = 0

    def prepare(self, workload: str, batch: int, context: int) -> None:
        """Rows with room; for decoding, `context` random tokens in each: read in the first, copied to the others."""
        tokens = random_tokens(self._shape, batch, context)
        self._context, self._rows = context, list(range(batch))
        self._state = self._model.new_state(context + STEPS_BETWEEN_RESETS + 1, batch)
        self._prompt = tokens[0].tolist() if workload == "prefill" else []
        if workload == "decode":
            self._model.forward(self._state, [0], [tokens[0].tolist()])
            for row in self._rows[1:]:
                self._state.copy(0, row)
            self._first = tokens[:, -1].tolist()
        self.reset()

    def reset(self) -> None:
        """Forget what was decoded beyond the context."""
        if self._prompt:
            return
        for row in self._rows:
            self._state.truncate(row, self._context)
        self._tokens = self._first

    def step(self) -> None:
        """One token for every row, or the whole prompt, and the likeliest next token."""
        if self._prompt:
            self._state.drop(0)
            self._model.forward(self._state, [0], [self._prompt]).argmax(-1)
        else:
            self._tokens = self._model.greedy(self._state, self._rows, self._tokens, steps=1)[:, -1].tolist()

    def parts(self, empty: Callable[[], None]) -> dict[str, float]:
        """Where the time of a step goes by the decoder's own clock, and what the head takes by itself."""
        self.reset()
        self._state.timed = True
        for _ in range(_PART_STEPS):
            empty()
            self.step()
        found = {name: seconds / _PART_STEPS for name, seconds in self._state.seconds.items()}
        self._state.timed = False
        head = Kernels([self._matrices["lm_head"]], self._model.threads)
        head.prepare("decode", len(self._rows), self._context)
        spent = []
        for _ in range(_PART_STEPS):
            empty()
            before = time.perf_counter()
            head.step()
            spent.append(time.perf_counter() - before)
        return {**found, "head": statistics.median(spent)}


class Kernels:
    """The linears of as many layers as take more than a gigabyte; a step is one pass over them."""

    def __init__(self, ring: list[Any], threads: int) -> None:
        """Nothing is prepared yet."""
        self._ring, self._threads = ring, threads
        self.bytes: int | None = sum(matrix.nbytes for matrix in ring)
        self.notes = ["linears alone, without the head"]
        self._calls: list[Callable[[], Any]] = []

    def prepare(self, workload: str, batch: int, context: int) -> None:
        """Draw the activations."""
        if workload != "decode":
            raise ValueError("linears alone have no prompt")
        stream = np.random.default_rng(5)
        inputs: dict[int, Array] = {}
        outputs: dict[int, Array] = {}
        self._calls = []
        for matrix in self._ring:
            n, k = matrix.outputs, matrix.inputs
            x = inputs.setdefault(k, stream.standard_normal((batch, k), dtype=np.float32))
            out = outputs.setdefault(n, np.empty((batch, n), np.float32))
            self._calls.append(_call(matrix, x, out, self._threads))

    def reset(self) -> None:
        """Nothing is kept."""

    def step(self) -> None:
        """Every matrix once."""
        for call in self._calls:
            call()


def _call(matrix: Any, x: Array, out: Array, threads: int) -> Callable[[], Any]:
    return lambda: matrix.multiply(x, out=out, threads=threads)


class Reader:
    """Reads a gigabyte; a step is one pass."""

    def __init__(self, threads: int) -> None:
        """Fill the buffer."""
        import mmap

        memory = mmap.mmap(-1, _READ_BYTES + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(memory, dtype=np.uint8)
        start = -whole.ctypes.data % _HUGE
        self.bytes: int | None = _READ_BYTES
        self.notes: list[str] = []
        self._buffer, self._threads = whole[start : start + _READ_BYTES], threads
        self._buffer[:] = 1

    def prepare(self, workload: str, batch: int, context: int) -> None:
        """The same for every workload."""

    def reset(self) -> None:
        """Nothing is kept."""

    def step(self) -> None:
        """One pass."""
        kernels().read_bandwidth(self._buffer, self._threads)


def open_engine(request: dict[str, Any]) -> tuple[Engine, dict[str, Any]]:
    """The engine of an `open` request."""
    variant, shape, threads = request["variant"], request["shape"], request["threads"]
    told: dict[str, Any] = {"versions": versions_of("numpy"), "isa": kernels().best_isa()}
    if variant["engine"] == "reader":
        return Reader(threads), told
    sparse = variant["sparsity"] > 0
    layer = {
        name: packed(weight, variant["kind"], sparse=sparse, threads=threads)
        for name, weight in layer_weights(shape, variant["sparsity"])
    }
    weights = sum(matrix.outputs * matrix.inputs for matrix in layer.values())
    if variant["engine"] == "kernels":
        room = sum(Arena.room(matrix) for matrix in layer.values())
        copies = -(-_RING_BYTES // room)
        arena = Arena(copies * room)
        ring = [arena.copy(matrix) for _ in range(copies) for matrix in layer.values()]
        return Kernels(ring, threads), {**told, "weights": weights * copies}
    head = head_weight(shape, variant["sparsity"] if variant["option"] == SPARSE_HEAD else 0.0)
    layer["lm_head"] = packed(head, variant["kind"], sparse=variant["option"] == SPARSE_HEAD, threads=threads)
    return native(layer, shape, variant["kind"], threads, told)


def native(
    layer: dict[str, Any], shape: dict[str, Any], kind: str, threads: int, told: dict[str, Any]
) -> tuple[Native, dict[str, Any]]:
    """The decoder with the head and copies of one layer's matrices."""
    import torch
    from torch_worker import skeleton

    from harness.engines.sparse.native import NativeModel

    torch.set_num_threads(threads)
    model = skeleton(shape)
    table = torch.from_numpy(embedding_weight(shape)).to(torch.bfloat16)
    model.model.embed_tokens.weight = torch.nn.Parameter(table, requires_grad=False)
    head = layer.pop("lm_head")
    arena = Arena(sum(Arena.room(matrix) for matrix in layer.values()) * shape["layers"] + Arena.room(head))
    matrices = {
        f"model.layers.{index}.{name}": arena.copy(matrix)
        for index in range(shape["layers"])
        for name, matrix in layer.items()
    }
    matrices["lm_head"] = arena.copy(head)
    # Keys and values in two bytes beside narrow weights, as peers have them.
    cache: Literal["float32", "bfloat16"] = "float32" if kind == "f32" else "bfloat16"
    return Native(NativeModel.build(model, matrices, threads=threads, cache=cache), matrices, shape, cache), told


if __name__ == "__main__":
    sys.exit(serve(open_engine))
