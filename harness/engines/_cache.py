"""A key/value cache that grows in place.

transformers' `DynamicLayer` concatenates, so every token copies the whole cache; at the pocket model's shape that costs
a fifth of the run. This layer writes into spare room and hands out views. Imported only by the torch engine.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, shape (batch, heads, tokens, head_dim), in storage with spare room."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._begin = 0
        self._end = 0
        self._store: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append new tokens and return all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[2]
        if self._store is None:
            self._allocate(key_states[:, :, :0], value_states[:, :, :0], room=new + ROOM)
        elif self._end + new > self._store[0].shape[2]:
            self._allocate(*self._shown, room=new + ROOM)
        assert self._store is not None
        begin, end = self._end, self._end + new
        self._store[0][:, :, begin:end] = key_states
        self._store[1][:, :, begin:end] = value_states
        self._show(self._begin, end)
        return self._shown

    def begin(self, keys: Tensor, values: Tensor, counts: Sequence[int], *, room: int) -> None:
        """Fill an empty layer: row r gets the first `counts[r]` tokens of one row's keys and values, right-aligned.

        Args:
            keys: (1, heads, tokens, head_dim).
            values: Likewise.
            counts: At most `tokens` each; what is left of them is zero.
            room: Tokens that will follow at once.
        """
        self.lazy_initialization(keys, values)
        length = keys.shape[2]
        store = []
        for part in (keys, values):
            new = part.new_zeros(len(counts), part.shape[1], length + room + ROOM, part.shape[3])
            for row, count in enumerate(counts):
                new[row, :, length - count : length] = part[0, :, :count]
            store.append(new)
        self._store = (store[0], store[1])
        self._show(0, length)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows of the batch."""
        if self._store is not None:
            keys, values = self._shown
            self._allocate(keys[indices], values[indices], room=ROOM)

    def drop_left(self, tokens: int) -> None:
        """Forget the oldest tokens (of a batch whose rows are all padding there)."""
        self._show(self._begin + tokens, self._end)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest tokens; the count is negative, as in transformers."""
        self._show(self._begin, self._end - abs(tokens_to_remove))

    def reset(self) -> None:
        """Forget everything."""
        self._begin = self._end = 0
        self._store = None
        super().reset()

    @property
    def _shown(self) -> tuple[Tensor, Tensor]:
        assert self._store is not None
        keys, values = self._store
        return keys[:, :, self._begin : self._end], values[:, :, self._begin : self._end]

    def _show(self, begin: int, end: int) -> None:
        self._begin, self._end = begin, end
        self.keys, self.values = self._shown

    def _allocate(self, keys: Tensor, values: Tensor, *, room: int) -> None:
        """Start storage that holds these keys and values and has room for more tokens."""
        length = keys.shape[2]
        store = []
        for part in (keys, values):
            new = part.new_empty(part.shape[0], part.shape[1], length + room, part.shape[3])
            new[:, :, :length] = part
            store.append(new)
        self._store = (store[0], store[1])
        self._show(0, length)


def new_cache(model: Any) -> DynamicCache:
    """An empty cache for `model`; layers with full attention grow in place, other kinds stay transformers' own."""
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def drop_left(cache: DynamicCache, tokens: int) -> bool:
    """Forget the oldest tokens if every layer can; returns whether it was done."""
    growing = [layer for layer in cache.layers if isinstance(layer, GrowingLayer)]
    if not growing or len(growing) < len(cache.layers):
        return False
    for layer in growing:
        layer.drop_left(tokens)
    return True


def crop_to(cache: DynamicCache, length: int) -> None:
    """Forget the newest tokens until `length` are left."""
    surplus = cache.get_seq_length() - length
    if surplus > 0:
        cache.crop(-surplus)


def cache_argument(model: Any) -> str:
    """What a model's `forward` calls its cache: `cache` since transformers 5.24, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
