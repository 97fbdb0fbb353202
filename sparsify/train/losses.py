"""The losses of sparse fine-tuning (Kurtic et al. 2023, arXiv 2310.06927, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean next-token cross-entropy.

    Args:
        logits: [n, vocab], float32.
        targets: [n] token ids.
        weights: [n] float32, not all zero.
    """
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean KL(teacher || student) over rows, times the squared temperature.

    Args:
        student: [n, vocab] logits.
        teacher: [n, vocab] logits, without gradient.
        temperature: Divides both logits.
    """
    log_student = torch.log_softmax(student / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher / temperature, dim=-1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)
    return divergence.mean() * temperature**2


def squarehead(student: Sequence[Tensor], teacher: Sequence[Tensor], real: Tensor, eps: float) -> Tensor:
    """SquareHead: per layer MSE(student, teacher) / MSE(teacher, 0), summed over layers.

    Args:
        student: Hidden states of every block, each [batch, tokens, hidden]; the embedding output is left out.
        teacher: The teacher's, same shapes, without gradient.
        real: [batch, tokens] bool, True on tokens that are not padding.
        eps: Added to the teacher's mean square, so that a silent layer does not divide by zero.
    """
    total = torch.zeros((), dtype=torch.float32, device=real.device)
    for ours, theirs in zip(student, teacher, strict=True):
        a, b = ours[real].float(), theirs[real].float()
        total = total + (a - b).square().mean() / (b.square().mean() + eps)
    return total
