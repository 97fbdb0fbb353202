"""A key/value cache and the model that fills it, driven token by token: what speed workloads measure.

Imported only by engines that use torch.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engines._cache import cache_argument, crop_to, new_cache


class Session(Protocol):
    """Rows of equal length on their way through a model."""

    def forward(self, ids: Tensor) -> Tensor:
        """Append tokens, int64 (rows, new tokens), and return each row's most likely next one, int64 (rows, 1)."""

    def crop(self, tokens: int) -> None:
        """Forget the newest tokens until `tokens` are left in each row."""


class TorchSession:
    """A session of transformers' eager model."""

    def __init__(self, model: Any) -> None:
        """Start with an empty cache."""
        self._model = model
        self._cache, self._name = new_cache(model), cache_argument(model)

    @torch.inference_mode()
    def forward(self, ids: Tensor) -> Tensor:
        """Append tokens and choose the next."""
        output: Any = self._model(input_ids=ids, use_cache=True, logits_to_keep=1, **{self._name: self._cache})
        token: Tensor = output.logits[:, -1:].argmax(-1)
        return token

    def crop(self, tokens: int) -> None:
        """Shrink the cache."""
        crop_to(self._cache, tokens)
