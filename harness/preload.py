"""Imported once by the server that worker processes are forked from; importing is all it is for."""

from __future__ import annotations

import contextlib
import importlib
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

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
