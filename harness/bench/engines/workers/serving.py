"""What every engine's worker shares: the protocol, the clock, the random weights. Only standard library and numpy.

A worker reads one JSON object per line from standard input and answers with one per line on the descriptor that
standard output was at the start (libraries print to standard output themselves):

    {"op": "open", "variant": {...}, "shape": {...}, "threads": 1, "work": DIR}
    {"op": "prepare", "workload": "decode", "batch": 1, "context": 128, "warm_up": 2}
    {"op": "measure", "steps": 4, "flush": FILE or null}
    {"op": "parts", "flush": FILE or null}

The clock runs over `step` alone. Before each step `flush`, a file larger than the caches, is read from memory, so that
no engine finds its weights in a cache, however small they are.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Array = Any  # numpy's array; the peers' numpy differ in what their annotations say

STEPS_BETWEEN_RESETS = 16
"""A decode workload starts again at its context after so many tokens."""
_WARM_UP_S = 2.0


class Engine(Protocol):
    """One engine with its weights in memory.

    Attributes:
        bytes: What one step reads of its weights; None where nobody knows how it stores them.
        notes: What a reader of the results must know.
    Both are final when a workload is prepared.
    """

    bytes: int | None
    notes: list[str]

    def prepare(self, workload: str, batch: int, context: int) -> None:
        """Get ready for `decode` (one token for each of `batch` rows after `context` tokens) or `prefill`."""

    def reset(self) -> None:
        """Go back to the state before the first step."""

    def step(self) -> None:
        """One token for every row, or one whole prompt; logits of the last token are there when it returns."""


def serve(open_engine: Callable[[dict[str, Any]], tuple[Engine, dict[str, Any]]]) -> int:
    """Answer requests until standard input ends.

    Args:
        open_engine: From the `open` request to the engine, and what it tells: the `versions` of its packages.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    session: Session | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "open":
                began = time.perf_counter()
                engine, told = open_engine(request)
                session = Session(engine)
                answer = {**told, "seconds": time.perf_counter() - began, **memory()}
            elif session is None:
                raise RuntimeError("nothing is open")
            elif request["op"] == "prepare":
                answer = session.prepare(request)
            elif request["op"] == "parts":
                answer = session.parts(request["flush"])
            else:
                answer = session.measure(request["steps"], request["flush"])
        except Exception as error:  # whatever a library raises is a result of the benchmark
            import traceback

            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


class Session:
    """The engine, its workload, and the flush file."""

    def __init__(self, engine: Engine) -> None:
        """Nothing is prepared yet."""
        self._engine = engine
        self._since_reset = 0
        self._flush: Array | None = None

    def prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Set the workload up and do a few steps that do not count; of slow ones, fewer."""
        self._engine.prepare(request["workload"], request["batch"], request["context"])
        self._since_reset = 0
        warm: list[float] = []
        while len(warm) < request["warm_up"] and sum(warm) < _WARM_UP_S:
            warm += self.measure(1, None)["seconds"]
        self._engine.reset()
        self._since_reset = 0
        told = {"notes": self._engine.notes, "bytes": self._engine.bytes}
        return {"warm_up": warm, **told, **memory()}

    def measure(self, steps: int, flush: str | None) -> dict[str, Any]:
        """Time `steps` steps, each after the caches were emptied."""
        seconds, cpu = [], 0.0
        for _ in range(steps):
            if self._since_reset >= STEPS_BETWEEN_RESETS:
                self._engine.reset()
                self._since_reset = 0
            if flush is not None:
                self._empty_caches(flush)
            before, cpu_before = time.perf_counter(), time.process_time()
            self._engine.step()
            seconds.append(time.perf_counter() - before)
            cpu += time.process_time() - cpu_before
            self._since_reset += 1
        return {"seconds": seconds, "cpu": cpu}

    def parts(self, flush: str | None) -> dict[str, Any]:
        """Seconds of each part of a step, where the engine can tell; empty where it cannot."""

        def empty() -> None:
            if flush is not None:
                self._empty_caches(flush)

        tell: Callable[[Callable[[], None]], dict[str, float]] | None = getattr(self._engine, "parts", None)
        return {"parts": {} if tell is None else tell(empty)}

    def _empty_caches(self, flush: str) -> None:
        if self._flush is None:
            self._flush = np.memmap(flush, dtype=np.int64, mode="r")
        int(self._flush.sum())


def memory() -> dict[str, float]:
    """Resident megabytes of this process, and how many of them lie in huge pages; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return {"rss_mb": 0.0, "huge_mb": 0.0}
    found = {name: int(rest.split()[0]) / 1e3 for name, _, rest in (line.partition(":") for line in lines[1:])}
    return {"rss_mb": found.get("Rss", 0.0), "huge_mb": found.get("AnonHugePages", 0.0)}


def versions_of(*packages: str) -> dict[str, str]:
    """Of installed packages."""
    from importlib.metadata import version

    return {name: version(name) for name in packages}


def linear_shapes(shape: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of one layer's linears, by their name in a Llama checkpoint."""
    hidden, inner = shape["hidden"], shape["intermediate"]
    narrow = hidden // shape["heads"] * shape["kv_heads"]
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def linear_parameters(shape: dict[str, Any]) -> tuple[int, int]:
    """Weights of all layers' linears, and of the head."""
    layer = sum(n * k for n, k in linear_shapes(shape).values())
    return layer * int(shape["layers"]), int(shape["vocab"]) * int(shape["hidden"])


def random_weight(rows: int, columns: int, seed: int, sparsity: float = 0.0) -> Array:
    """Normal weights (rows, columns) float32; of them the share `sparsity` nearest to zero is zero."""
    weight = np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)
    if sparsity:
        weight *= np.abs(weight) > statistics.NormalDist().inv_cdf(0.5 + sparsity / 2)
    weight *= 1.0 / columns**0.5
    return weight


def layer_weights(shape: dict[str, Any], sparsity: float) -> Iterator[tuple[str, Array]]:
    """One layer's linears: every layer of a model gets the same numbers, in memory of its own."""
    for seed, (name, (rows, columns)) in enumerate(linear_shapes(shape).items()):
        yield name, random_weight(rows, columns, seed, sparsity)


def head_weight(shape: dict[str, Any], sparsity: float = 0.0) -> Array:
    """The head: dense, as recipes leave it unless they name it."""
    return random_weight(shape["vocab"], shape["hidden"], 100, sparsity)


def embedding_weight(shape: dict[str, Any]) -> Array:
    """The embedding table."""
    return random_weight(shape["vocab"], shape["hidden"], 101)


def per_output_int8(weight: Array) -> tuple[Array, Array]:
    """Symmetric int8 with one scale per output: codes (n, k) int8, scales (n,) float32."""
    scales = np.maximum(np.abs(weight).max(1), 1e-12) / np.float32(127)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def random_tokens(shape: dict[str, Any], batch: int, tokens: int) -> Array:
    """Token ids (batch, tokens) int64."""
    return np.random.default_rng(7).integers(8, shape["vocab"], (batch, tokens))
