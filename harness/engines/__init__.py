"""Engines: what executes a variant, one file each behind the `Engine` protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.engines.base import (
    Completion,
    Engine,
    Finish,
    LogitsEngine,
    Request,
    TextAnswer,
    TextEngine,
    TextRequest,
)
from harness.errors import ConfigError

ENGINES = ("torch", "sparse")  # what speed panels time as well; vllm only runs suites

__all__ = [
    "ENGINES",
    "Completion",
    "Engine",
    "Finish",
    "LogitsEngine",
    "Request",
    "TextAnswer",
    "TextEngine",
    "TextRequest",
    "load_engine",
    "load_logits_engine",
    "resolve_engine",
    "why_not",
]


def load_engine(name: str, variant_dir: Path, **options: Any) -> Engine:
    """Open a variant with an engine; the engine's libraries are imported only here.

    Args:
        name: One of `ENGINES`, or `vllm`.
        variant_dir: A model directory.
        options: What the engine's `load` takes (`device`, `dtype`, `threads`; sparse also `head`, `memory`, `native`;
            vllm in their place `tensor_parallel_size`, `gpu_memory_utilization`, `max_model_len`).

    Raises:
        ConfigError: No such engine, or no such directory.
        EngineError: The engine cannot run here.
        CheckpointError: The directory's files cannot be read.
    """
    if name == "torch":
        from harness.engines.torch import TorchEngine

        return TorchEngine.load(variant_dir, **options)
    if name == "vllm":
        from harness.engines.vllm import VllmEngine

        return VllmEngine.load(variant_dir, **options)
    if name == "sparse":
        from harness.engines.sparse import load_kernels

        load_kernels()  # before anything heavy is imported for nothing
        from harness.engines.sparse.engine import SparseEngine

        return SparseEngine.load(variant_dir, **options)
    raise ConfigError(f"unknown engine {name!r}; choose one of: {', '.join((*ENGINES, 'vllm'))}")


def load_logits_engine(name: str, variant_dir: Path, **options: Any) -> LogitsEngine:
    """As `load_engine`, for what needs the logits of every token.

    Raises:
        ConfigError: The engine has only text to give.
    """
    engine: Any = load_engine(name, variant_dir, **options)
    if not callable(getattr(engine, "logits", None)):
        raise ConfigError(f"engine {name} does not give the logits of a token; use engine torch or sparse")
    found: LogitsEngine = engine
    return found


def why_not(name: str, *, device: str = "cpu") -> str | None:
    """Why an engine cannot run on this machine, or None; opens nothing."""
    if name == "vllm":
        from importlib.util import find_spec

        return None if find_spec("vllm") else "engine vllm needs package vllm; pip install 'sparsebench[vllm]'"
    if name != "sparse":
        return None
    if device != "cpu":
        return f"engine sparse runs on the CPU, not on {device}"
    from harness.engines.sparse import kernels_problem

    return kernels_problem()


def resolve_engine(name: str, *, device: str = "cpu") -> str:
    """The engine that `auto` stands for on this machine: sparse where it can run, else torch; others are themselves."""
    if name != "auto":
        return name
    return "torch" if why_not("sparse", device=device) else "sparse"
