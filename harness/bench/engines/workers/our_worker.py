"""Ours: the native decoder, its linears alone (`kernels`), and the reader that measures the memory's bandwidth."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from serving import Array, Engine, layer_weights, per_output_int8, serve, versions_of

GROUP = 32
_READ_BYTES = 1 << 30
_RING_BYTES = 1_100_000_000
_HUGE = 1 << 21


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


class Kernels:
    """The linears of as many layers as take more than a gigabyte; a step is one pass over them."""

    def __init__(self, ring: list[Any], threads: int) -> None:
        """Nothing is prepared yet."""
        self._ring, self._threads = ring, threads
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
        return Reader(threads), {**told, "bytes": _READ_BYTES}
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
        told |= {"bytes": sum(matrix.nbytes for matrix in ring), "weights": weights * copies}
        return Kernels(ring, threads), told
    raise ValueError(f"no engine {variant['engine']}")


if __name__ == "__main__":
    sys.exit(serve(open_engine))
