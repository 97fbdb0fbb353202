"""One basis for all blocks: no shortcuts are left, and the result is a model of the stock class with a smaller width.

This is not in the paper, whose basis of its own per cut costs two matrices per block that no stock class has. With the
same basis everywhere, shortcuts are identities. What is left to say to a stock RMS norm is that the mean square was
over the original width D and is over d now: x / sqrt(sum(x²)/D + eps) = sqrt(D/d) · x / sqrt(sum(x²)/d + eps · D/d).
Stock transformers opens it. (Qwen3 norms its queries and keys with the same eps, which then differs by a part of eps.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsify.errors import SparsifyError
from sparsify.slicegpt.block import FoldedBlock
from sparsify.slicegpt.families import FAMILIES, Family
from sparsify.slicegpt.sizes import sliced_width

if TYPE_CHECKING:
    from sparsify.recipe import SliceStage


def shared_width(config: Any, family: Family, width: int, stage: SliceStage) -> int:
    """The width that is left, a multiple of `round_to` and of the number of heads, which stock classes ask for.

    Raises:
        SparsifyError: The family has no stock class of another width.
    """
    if not family.stock_width:
        able = ", ".join(name for name, known in FAMILIES.items() if known.stock_width)
        raise SparsifyError(
            f"basis: shared needs a model class that takes any width, as those of {able} do; use basis: block"
        )
    return sliced_width(width, stage.fraction, math.lcm(stage.round_to, int(config.num_attention_heads)))


def stock_tensors(folded: FoldedBlock, basis: Tensor, family: Family, width: int) -> dict[str, Tensor]:
    """The parameters of a stock block of width d, float64 but for those that do not touch the stream.

    Args:
        folded: The block.
        basis: Float64 [width, d].
        family: Of the model.
        width: Before slicing.
    """
    kept = basis.shape[1]
    scale = math.sqrt(width / kept)
    reads = {**folded.attention.reading(basis), **folded.mlp.reading(basis)}
    tensors = {name: value if name.endswith(".bias") else scale * value for name, value in reads.items()}
    tensors |= {**folded.attention.writing(basis), **folded.mlp.writing(basis), **folded.others}
    ones = torch.full((kept,), 1 - family.scale_offset, dtype=torch.float64)
    for norm in (family.attention_norm, family.mlp_norm):
        tensors[f"{norm}.weight"] = ones.clone()
    return tensors


def shared_config(stored: Mapping[str, Any], config: Any, width: int, kept: int) -> dict[str, Any]:
    """The config.json of the stock model of width `kept`."""
    heads = int(config.num_attention_heads)
    return {
        **stored,
        "hidden_size": kept,
        "head_dim": getattr(config, "head_dim", None) or width // heads,
        "rms_norm_eps": float(config.rms_norm_eps) * width / kept,
        "tie_word_embeddings": False,
    }
