"""Imported once by the server that worker processes are forked from; importing is all it is for."""

from __future__ import annotations

import contextlib
import importlib

from harness.pool import die_with_parent
from harness.quiet import quieten

# The server looks after its parent only when it serves. Until then, it would keep the output of a program that ended
# at once, with an error say, and whoever reads that through a pipe would wait for seconds.
die_with_parent()
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

die_with_parent(False)
