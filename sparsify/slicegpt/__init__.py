"""SliceGPT (Ashkboos et al. 2024, arXiv 2401.15024): rows and columns deleted, the function kept as well as possible.

`register` lets transformers open sliced models; nothing of torch or transformers is imported before it is called.
"""

from __future__ import annotations

import json
from pathlib import Path

PREFIX = "sliced_"
"""What the `model_type` of a sliced model has before that of its family."""

ATTENTION_SHORTCUT, MLP_SHORTCUT, SHORTCUT = "attn_shortcut", "mlp_shortcut", "shortcut"
"""Names within a block of the matrices that take the residual stream from one basis to the next; a block whose
attention and MLP stand side by side has `SHORTCUT` only."""

__all__ = ["ATTENTION_SHORTCUT", "MLP_SHORTCUT", "PREFIX", "SHORTCUT", "is_shortcut", "register", "register_for"]


def is_shortcut(name: str) -> bool:
    """Whether a linear's full name is that of a shortcut."""
    return name.rpartition(".")[2] in (ATTENTION_SHORTCUT, MLP_SHORTCUT, SHORTCUT)


def register(*model_types: str) -> None:
    """Teach transformers' `AutoConfig` and `AutoModelForCausalLM` the sliced models of these families, or of all.

    Args:
        model_types: Such as `llama`; empty = every family that can be sliced.

    Raises:
        SparsifyError: A family cannot be sliced.
    """
    from sparsify.slicegpt.families import FAMILIES
    from sparsify.slicegpt.model import register_family

    for model_type in model_types or FAMILIES:
        register_family(model_type)


def register_for(model_dir: Path) -> None:
    """Register the family of the sliced model in `model_dir`; nothing happens where there is no sliced model.

    Raises:
        SparsifyError: It says that it is sliced, but its family is unknown.
    """
    try:
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
        model_type = config.get("model_type") or ""
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError):
        return  # who opens it says what is wrong with it
    if isinstance(model_type, str) and model_type.startswith(PREFIX):
        register(model_type.removeprefix(PREFIX))
