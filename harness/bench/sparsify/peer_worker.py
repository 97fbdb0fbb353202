"""Runs llm-compressor on request; executed by the Python of its own environment, so it imports nothing of ours.

Reads one JSON object per line from standard input and answers with one per line on the descriptor that standard output
was at the start (the library prints to standard output itself). A request:

    {"model": DIR, "tokens": FILE.json, "out": DIR or null, "batch": 16,
     "steps": [{"kind": "sparsegpt", "sparsity": 0.5, "pattern": "0:0"}, {"kind": "gptq"}]}

`tokens` holds a list of token windows of equal length. The clock of `seconds` runs over `oneshot` alone; the model is
loaded and the data set built before it, and saving comes after. `peak_rss` is the most memory that the process held
during the request, `import_rss` what it held after its imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def peak_rss() -> int:
    """Peak resident set since the last reset, in bytes; 0 where the system does not say."""
    return _status("VmHWM:")


def current_rss() -> int:
    """Resident set now, in bytes; 0 where the system does not say."""
    return _status("VmRSS:")


def reset_peak() -> None:
    """Start the peak anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def modifiers(steps: list[dict[str, Any]]) -> list[Any]:
    """The library's modifiers for the steps of a request."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    # With `ignore=["lm_head"]` its pruning modifiers do prune the head, and with it a tied embedding: they call the
    # head `lm_head.`, which only the pattern matches.
    made: list[Any] = []
    for step in steps:
        target = {"targets": ["Linear"], "ignore": ["re:.*lm_head"]}
        pruned = {"sparsity": step.get("sparsity"), "mask_structure": step.get("pattern", "0:0")}
        if step["kind"] == "sparsegpt":
            made.append(SparseGPTModifier(**pruned, **target))
        elif step["kind"] == "wanda":
            made.append(WandaPruningModifier(**pruned, **target))
        elif step["kind"] == "gptq":
            made.append(GPTQModifier(scheme="W8A8", **target))
        elif step["kind"] == "rtn":
            made.append(QuantizationModifier(scheme="W8A8", **target))
        else:
            raise ValueError(f"unknown step {step['kind']}")
    return made


def run(request: dict[str, Any], import_rss: int) -> dict[str, Any]:
    """Carry out one request."""
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.core import reset_session
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reset_session()
    torch.manual_seed(0)
    reset_peak()
    began = time.perf_counter()
    windows = json.loads(Path(request["tokens"]).read_text())
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    data = Dataset.from_dict({"input_ids": windows, "attention_mask": [[1] * len(ids) for ids in windows]})
    started, cpu = time.perf_counter(), time.process_time()
    oneshot(
        model=model,
        tokenizer=tokenizer,
        dataset=data,
        recipe=modifiers(request["steps"]),
        max_seq_length=max(map(len, windows)),
        num_calibration_samples=len(windows),
        batch_size=request["batch"],
        shuffle_calibration_samples=False,
    )
    solved, cpu = time.perf_counter(), time.process_time() - cpu
    peak = peak_rss()
    if request["out"] is not None:
        if all(step["kind"] in ("sparsegpt", "wanda") for step in request["steps"]):
            # Stored as the model was, so that both sides round once.
            stored = json.loads((Path(request["model"]) / "config.json").read_text()).get("dtype", "float32")
            model.to(getattr(torch, stored))
        model.save_pretrained(request["out"])
        tokenizer.save_pretrained(request["out"])
    saved = time.perf_counter()
    return {
        "seconds": solved - started,
        "cpu_seconds": cpu,
        "whole_seconds": saved - began,
        "peak_rss": peak,
        "import_rss": import_rss,
    }


def versions() -> dict[str, str]:
    """Of the packages that matter."""
    from importlib.metadata import version

    return {name: version(name) for name in ("llmcompressor", "compressed-tensors", "transformers", "torch")}


def main() -> int:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import llmcompressor  # noqa: F401
    import llmcompressor.modifiers.gptq
    import llmcompressor.modifiers.pruning
    import llmcompressor.modifiers.quantization  # noqa: F401
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    import_rss = current_rss()
    print(json.dumps({"ready": versions(), "threads": torch.get_num_threads()}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = run(json.loads(line), import_rss)
        except Exception as error:  # whatever the library raises is a result of the benchmark
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
