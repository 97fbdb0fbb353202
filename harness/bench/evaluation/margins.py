"""Where two arms generate different tokens: how close a call it was. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


@torch.inference_mode()
def top_two(model: Any, tokens: Sequence[int]) -> tuple[float, list[int]]:
    """By how much the likeliest next token's logit is above the second's, and the two; one row, no padding, no cache.

    Args:
        model: A causal LM of transformers, float32.
        tokens: All tokens before the one in question.
    """
    logits = model(input_ids=torch.tensor([list(tokens)]), use_cache=False, logits_to_keep=1).logits[0, -1].float()
    best = logits.topk(2)
    return float(best.values[0] - best.values[1]), best.indices.tolist()
