"""A small random model of any family, for the tests that take them all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch


def write_random(kind: str, options: dict[str, Any], root: Path, tokenizer_from: Path) -> Path:
    """A model with every parameter away from 0 and 1, so that none can be lost unseen; `kind` as in LlamaConfig."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**options)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(root)
    for path in (*tokenizer_from.glob("*token*"), tokenizer_from / "chat_template.jinja"):
        shutil.copy(path, root)
    return root
