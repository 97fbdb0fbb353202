"""The beginning that all prompts of a plan have in common: computed once, used by every batch.

Imported only by engines that use torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from harness.engines._attention import SharedLayer, Unsupported, can_share, use_shared_attention
from harness.engines._cache import GrowingLayer, new_cache
from harness.engines._forward import Forward, left_pad, positions_of

Kind = Literal["shared", "copied"]
"""How a batch holds the beginning: once for all rows, or a copy in every row's cache."""
LEAST_TOKENS = 32
"""A shorter beginning is computed with each prompt: apart it would cost a forward and save none."""
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Start:
    """What the first forward of a batch gets.

    Attributes:
        ids: Tokens that are not in the cache yet, int64 (rows, width), left-padded.
        mask: 1 for real tokens, int64 (rows, cached + width).
        positions: Of `ids`, among their row's tokens.
        cache: Keys and values of what comes before `ids`.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    cache: Any


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a beginning.

    Attributes:
        tokens: The beginning.
        layers: Keys and values by layer, each (1, heads, tokens, head_dim).
        kind: How batches hold it.
    """

    tokens: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]
    kind: Kind

    def start(self, model: Any, prompts: Sequence[Sequence[int]]) -> Start:
        """Begin a batch of prompts that start with these tokens and are longer."""
        return self._start_shared(model, prompts) if self.kind == "shared" else self._start_copied(model, prompts)

    def _start_shared(self, model: Any, prompts: Sequence[Sequence[int]]) -> Start:
        length, cache = len(self.tokens), new_cache(model)
        ids, mask = left_pad([prompt[length:] for prompt in prompts], model.device)
        cache.layers = [SharedLayer(*layer) for layer in self.layers]
        return Start(ids, mask, positions_of(mask) + length, cache)

    def _start_copied(self, model: Any, prompts: Sequence[Sequence[int]]) -> Start:
        """Every row's tokens stay in one piece: a shorter prompt takes less of the beginning and computes the rest."""
        length, cache = len(self.tokens), new_cache(model)
        width = max(map(len, prompts)) - length
        ids, mask = left_pad([prompt[-width:] for prompt in prompts], model.device)
        counts = [max(0, len(prompt) - width) for prompt in prompts]
        held = torch.tensor(counts, device=mask.device)[:, None] >= torch.arange(length, 0, -1, device=mask.device)
        mask = torch.cat([held.to(mask.dtype), mask], 1)
        for layer, (keys, values) in zip(cache.layers, self.layers, strict=True):
            layer.begin(keys, values, counts, room=width)
        return Start(ids, mask, positions_of(mask)[:, length:], cache)


def start_whole(model: Any, prompts: Sequence[Sequence[int]]) -> Start:
    """Begin a batch with an empty cache."""
    ids, mask = left_pad(prompts, model.device)
    return Start(ids, mask, positions_of(mask), new_cache(model))


class PrefixStore:
    """Keeps the last beginning that was asked for."""

    def __init__(self, model: Any, *, kind: Kind | None = "shared") -> None:
        """Keep nothing yet.

        Args:
            model: A causal LM of transformers.
            kind: How batches may hold a beginning; None computes every prompt whole.
        """
        self._model, self._kind = model, kind
        self._best: Kind | None = None
        self._last: Prefix | None = None

    @torch.inference_mode()
    def get(self, tokens: Sequence[int]) -> Prefix | None:
        """Keys and values of `tokens`; None where they are few or the model's cache cannot be begun with them.

        A layer with a sliding window, or of another kind than attention over all tokens, is such a cache.
        """
        if self._kind is None or len(tokens) < LEAST_TOKENS:
            return None
        if self._last is None or self._last.tokens != tuple(tokens):
            self._last = compute_prefix(self._model, tokens)
            if self._last is not None and self._kind == "shared":
                self._best = self._best or ("shared" if attends_shared(self._model) else "copied")
                self._last = replace(self._last, kind=self._best)
        return self._last


def compute_prefix(model: Any, tokens: Sequence[int]) -> Prefix | None:
    """Keys and values of `tokens`, to be copied; None where a layer does not keep all tokens."""
    cache = new_cache(model)
    if not all(isinstance(layer, GrowingLayer) for layer in cache.layers):
        return None
    ids, mask = left_pad([tokens], model.device)
    Forward(model)(ids, mask, positions_of(mask), cache=cache)
    layers = tuple((layer.keys.clone(), layer.values.clone()) for layer in cache.layers)
    return Prefix(tuple(tokens), layers, "copied")


@torch.inference_mode()
def attends_shared(model: Any) -> bool:
    """Whether a model's attention can go over one beginning for all rows: a few tokens are computed both ways.

    Where it can, the model is left with that attention.
    """
    forward = Forward(model)
    if not (can_share(model) and forward.takes_positions):
        return False
    before = model.config._attn_implementation
    tokens = [(7 * at + 3) % model.config.vocab_size for at in range(12)]
    prompts = [tokens[:9], [*tokens[:5], tokens[11]]]
    whole = _two_steps(forward, start_whole(model, prompts))
    use_shared_attention(model)
    prefix = compute_prefix(model, tokens[:5])
    try:
        if prefix is not None:
            found = _two_steps(forward, replace(prefix, kind="shared").start(model, prompts))
            if float((found - whole).abs().max()) <= _TOLERANCE * float(whole.abs().max()):
                return True
    except Unsupported:
        pass
    model.config._attn_implementation = before
    return False


def _two_steps(forward: Forward, start: Start) -> Tensor:
    """Logits behind the prompts and behind one token more, (rows, 2, vocabulary)."""
    first = forward(start.ids, start.mask, start.positions, cache=start.cache)
    mask = torch.cat([start.mask, start.mask.new_ones(len(start.ids), 1)], 1)
    second = forward(start.ids[:, -1:], mask, start.positions[:, -1:] + 1, cache=start.cache)
    return torch.cat([first, second], 1)
