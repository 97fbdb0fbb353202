"""A session of the native decoder, for speed workloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from harness.engines.sparse.native import NativeModel


class NativeSession:
    """Rows of equal length on their way through the native decoder; see `harness.engines._session.Session`."""

    def __init__(self, native: NativeModel, *, batch: int, tokens: int) -> None:
        """Start with an empty cache for `batch` rows of at most `tokens` tokens."""
        self._native = native
        self._state = native.new_state(tokens, rows=batch)
        self._rows = range(batch)

    def forward(self, ids: Tensor) -> Tensor:
        """Append tokens and choose the next."""
        tokens = ids.tolist()
        if ids.shape[1] == 1:
            chosen = self._native.greedy(self._state, self._rows, [row[0] for row in tokens], steps=1)
            return torch.from_numpy(chosen)
        logits = self._native.forward(self._state, self._rows, tokens)
        return torch.from_numpy(logits).argmax(-1, keepdim=True)

    def crop(self, tokens: int) -> None:
        """Forget the newest tokens."""
        for row in self._rows:
            self._state.truncate(row, tokens)
