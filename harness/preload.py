"""Imported once by the server that worker processes are forked from; importing is all it is for."""

from __future__ import annotations

import contextlib
import importlib

from harness.quiet import quieten

quieten()

for _name in (
    "torch",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "compressed_tensors",
    "harness.engines.torch",
    "harness.engines.sparse.engine",
    "harness.evaluate.lm",
    "harness.evaluate.code",
    "rouge_score.rouge_scorer",
    "sparsify.prune.stage",
    "sparsify.finetune",
    "sparsify.quantize.stage",
):
    with contextlib.suppress(ImportError):
        importlib.import_module(_name)

with contextlib.suppress(ImportError):
    from suites.instruct.checkers import load

    load()
