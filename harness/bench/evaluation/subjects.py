"""The models that are evaluated: the pocket model, and a larger one with random weights that never ends an answer."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.evaluation.settings import POCKET, SHAPE


@dataclass(frozen=True)
class Subject:
    """A model and the data that it is asked.

    Attributes:
        name: `pocket` or `random-100m`.
        directory: Where it lies.
        data: Folder of real data.
    """

    name: str
    directory: Path
    data: Path


def subject_directory(name: str, work: Path) -> Path:
    """The directory of a model, made below `work` if it is the random one and not there."""
    from harness.models import model_directory

    pocket = model_directory(POCKET, offline=True)
    if name == POCKET:
        return pocket
    path = work / name
    if not (path / "config.json").is_file():
        partial = path.with_name(f"{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        make_random(partial, tokenizer_from=pocket)
        partial.rename(path)
    return path


def make_random(path: Path, *, tokenizer_from: Path, shape: dict[str, Any] | None = None) -> None:
    """Write a Llama with random weights and another model's tokenizer; its end tokens are never the likeliest.

    Args:
        path: Where; must not exist.
        tokenizer_from: The model whose tokenizer, template and end tokens it gets.
        shape: Of its config; default `SHAPE`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from harness.engines._ends import end_ids
    from harness.engines._load import load_tokenizer
    from sparsify.checkpoint import copy_companions

    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**(shape or SHAPE)))
    path.mkdir(parents=True)
    copy_companions(tokenizer_from, path)
    tokenizer = load_tokenizer(path)
    with torch.no_grad():
        # A logit of exactly 0 is below the largest of hundreds of random ones.
        ends = end_ids((model.generation_config, model.config), tokenizer)
        model.lm_head.weight[sorted({*ends, tokenizer.pad_token_id})] = 0
    model.generation_config.eos_token_id = None
    model.save_pretrained(path)
    copy_companions(tokenizer_from, path)
