"""Makes our variants on request, in a process of its own: the counterpart of `peer_worker`, with the same protocol.

A request: {"model": DIR, "recipe": {...}, "name": NAME, "corpora": {NAME: FILE}, "out": DIR, "store": DIR}. The clock
of `seconds` runs over the whole of `sparsify.run.make_variant`: loading, tokenising, calibrating, solving, verifying
and writing are inside it; only imports are outside.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from harness.bench.sparsify.peer_worker import current_rss, peak_rss, reset_peak


def run(request: dict[str, Any], import_rss: int) -> dict[str, Any]:
    """Carry out one request."""
    from sparsify.recipe import parse_recipe
    from sparsify.run import MakeOptions, make_variant

    recipe = parse_recipe(request["recipe"], name=request["name"], where=request["name"])
    options = MakeOptions(
        store=Path(request["store"]),
        name=request["name"],
        base="dense",
        resolve_corpus=lambda name: Path(request["corpora"][name]),
    )
    reset_peak()
    began, cpu = time.perf_counter(), time.process_time()
    info = make_variant(Path(request["model"]), recipe, Path(request["out"]), options=options)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "stage_seconds": [stage["seconds"] for stage in info.stages],
        "events": dict(Counter(event.kind for event in info.events)),
        "recipe_sha256": info.recipe.hash if info.recipe else None,
        "peak_rss": peak_rss(),
        "import_rss": import_rss,
    }


def main() -> int:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import torch
    import transformers

    import sparsify.finetune
    import sparsify.prune.stage
    import sparsify.quantize.stage  # noqa: F401

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    import_rss = current_rss()
    versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
    print(json.dumps({"ready": versions, "threads": torch.get_num_threads()}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = run(json.loads(line), import_rss)
        except Exception as error:  # a method that fails is a result of the benchmark
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
