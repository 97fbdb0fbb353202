"""One call of a causal LM on padded rows. Imported only by engines that use torch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.engines._cache import cache_argument


def left_pad(sequences: Sequence[Sequence[int]], device: Any) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (rows, longest) int64, real tokens at the right."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = torch.tensor(sequence, dtype=torch.int64)
        mask[row, width - len(sequence) :] = 1
    return ids.to(device), mask.to(device)


def positions_of(mask: Tensor) -> Tensor:
    """Position of every token among its row's real tokens, shape of `mask`; padding gets 0."""
    return (mask.cumsum(1) - 1).clamp(min=0)


class Forward:
    """Calls a causal LM with only the arguments that it knows."""

    def __init__(self, model: Any) -> None:
        known = inspect.signature(model.forward).parameters
        self.model = model
        self.takes_positions = "position_ids" in known
        self.takes_keep = "logits_to_keep" in known
        self.cache_argument = cache_argument(model)

    def __call__(
        self, ids: Tensor, mask: Tensor | None, positions: Tensor, *, cache: Any = None, keep: int = 1
    ) -> Tensor:
        """Logits of the last `keep` tokens, (rows, keep, vocabulary)."""
        extra: dict[str, Any] = {}
        if self.takes_positions:
            extra["position_ids"] = positions
        if self.takes_keep:
            extra["logits_to_keep"] = keep
        if cache is not None:
            extra[self.cache_argument] = cache
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask, use_cache=cache is not None, **extra).logits
        return logits[:, -keep:]
