"""Distances of two models at the positions of a text, and of two greedy continuations.

KL and agreement are those of "Accuracy is not all you need" (Dutta et al. 2024, arXiv 2407.09141), in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Numbers of float64 that one step over the positions works on; several such blocks are in memory at a time.
_BLOCK = 2**22


def kl_nats(dense: Tensor, variant: Tensor) -> Tensor:
    """KL(dense || variant) of the next token at each position, in nats.

    Args:
        dense: Logits (positions, vocabulary), any float dtype.
        variant: Those of the other model on the same tokens.

    Returns:
        float64 (positions,), at least 0; NaN where logits are NaN, infinite where the variant excludes a token that
        the dense model allows.
    """
    import torch

    step = max(1, _BLOCK // dense.shape[-1])
    parts = []
    for start in range(0, len(dense), step):
        p, q = (logits[start : start + step].double().log_softmax(-1) for logits in (dense, variant))
        # A token that the dense model excludes adds 0, although its log-probability is infinite.
        terms = torch.where(p == -torch.inf, 0.0, p.exp() * (p - q))
        parts.append(terms.sum(-1))
    # Rounding may leave a sum of nearly equal distributions just below 0.
    return torch.cat(parts).clamp(min=0.0)


def first_difference(dense: Sequence[int], variant: Sequence[int]) -> int | None:
    """Index of the first token in which two continuations differ, their ends included; None where they are equal."""
    for index, (one, other) in enumerate(zip(dense, variant, strict=False)):
        if one != other:
            return index
    return None if len(dense) == len(variant) else min(len(dense), len(variant))


def survival(firsts: Sequence[int | None], tokens: int) -> list[float]:
    """Share of continuations that are still equal after 1, 2, ... `tokens` tokens.

    Continuations that end equally stay equal: nothing is censored below `tokens`, which all of them were allowed.
    """
    if not firsts:
        return []
    parted = [0] * (tokens + 1)
    for first in firsts:
        if first is not None and first < tokens:
            parted[first + 1] += 1
    left, shares = len(firsts), []
    for count in parted[1:]:
        left -= count
        shares.append(left / len(firsts))
    return shares
