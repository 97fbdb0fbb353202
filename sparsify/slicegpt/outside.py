"""What lies outside the blocks: embeddings rotated into the first basis, and the head out of the last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsify.slicegpt.fold import NormParts, centre_rows, fold_reader

_ROWS = 8192
"""Rows that are in float64 at a time: a vocabulary is long."""


def rotated_embedding(rows: Tensor, basis: Tensor, *, centred: bool, stored: torch.dtype) -> Tensor:
    """Embeddings [n, width] in the basis float64 [width, kept], on the CPU, [n, kept].

    Args:
        rows: As the dense model has them.
        basis: Of the stream in front of the first block; on the device that computes.
        centred: Whether the model removes the mean of its stream.
        stored: Dtype of the result.
    """
    parts = [
        ((centre_rows(part) if centred else part.double()).to(basis.device) @ basis).to("cpu", stored)
        for part in rows.detach().split(_ROWS)
    ]
    return torch.cat(parts)


def folded_head(
    head: Any, norm: NormParts, basis: Tensor, *, scale: float, stored: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Weight [vocabulary, kept] and bias of the head with the final norm folded in, on the CPU.

    Args:
        head: The dense model's.
        norm: In front of it.
        basis: Of the stream there, float64 [width, kept]; on the device that computes.
        scale: Factor of the weight.
        stored: Dtype of the result.
    """
    weights, biases = [], []
    whole = None if head.bias is None else head.bias.detach()
    for at in range(0, len(head.weight), _ROWS):
        part = slice(at, at + _ROWS)
        weight, bias = fold_reader(head.weight.detach()[part], None if whole is None else whole[part], norm)
        weights.append((scale * (weight.to(basis.device) @ basis)).to("cpu", stored))
        biases += [] if bias is None else [bias.to("cpu", stored)]
    return torch.cat(weights), torch.cat(biases) if biases else None
