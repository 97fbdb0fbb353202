"""Batched decoding: left-padded rows that leave the batch when they are done. Imported only by the torch engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.engines._cache import drop_left
from harness.engines._forward import Forward
from harness.engines._prefix import Prefix, start_whole
from harness.engines.base import Finish, Request
from harness.errors import EngineError

# Dropping rows copies the cache once, so it waits until this share of the batch is finished.
DROP_SHARE = 1 / 8


@dataclass
class Row:
    """One request on its way: the tokens so far, and why it ended."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    seconds: float = 0.0


class Picker:
    """Chooses the next token of each row: greedy, or sampled from the row's own random stream."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._streams = {
            index: torch.Generator().manual_seed(request.seed)
            for index, request in enumerate(requests)
            if request.temperature > 0
        }

    def __call__(self, logits: Tensor, requests: Sequence[Request], live: Sequence[int]) -> list[int]:
        """Tokens for `logits` (rows, vocabulary); `live` says which request each row belongs to."""
        tokens: list[int] = logits.argmax(-1).tolist()
        for row, index in enumerate(live):
            if index in self._streams:
                tokens[row] = self._sample(logits[row], requests[index], self._streams[index])
        return tokens

    @staticmethod
    def _sample(logits: Tensor, request: Request, stream: torch.Generator) -> int:
        chances = torch.softmax(logits.float().cpu() / request.temperature, -1)
        ordered, tokens = chances.sort(descending=True, stable=True)
        # A token is out when those before it already hold the nucleus mass; the first always stays.
        ordered[ordered.cumsum(0) - ordered >= request.top_p] = 0
        return int(tokens[torch.multinomial(ordered, 1, generator=stream)])


@torch.inference_mode()
def decode(
    model: Any,
    requests: Sequence[Request],
    *,
    ends: frozenset[int],
    hit_stop: Callable[[Row], bool],
    prefix: Prefix | None = None,
    drop: bool = True,
) -> list[Row]:
    """Complete one batch.

    The result is a function of the batch alone: rows leave it at points that depend on nothing else. (In float32 the
    shrunken batch gives the same greedy tokens as a batch that keeps its finished rows, up to rounding at exact ties.)

    Args:
        model: A causal LM of transformers.
        requests: The batch.
        ends: Tokens that end a row.
        hit_stop: Whether a row's newest token completed a stop text.
        prefix: What all the prompts begin with, where that was computed before.
        drop: Let finished rows leave; otherwise they are computed to the end, as transformers does.

    Raises:
        EngineError: The model's logits are not finite.
    """
    start = time.perf_counter()
    rows = [Row(request) for request in requests]
    live = list(range(len(rows)))
    forward, picker = Forward(model), Picker(requests)
    prompts = [request.prompt_ids for request in requests]
    begun = start_whole(model, prompts) if prefix is None else prefix.start(model, prompts)
    ids, mask, positions, cache = begun.ids, begun.mask, begun.positions, begun.cache
    while True:
        logits = forward(ids, mask, positions, cache=cache)[:, -1]
        if not bool(torch.isfinite(logits).all()):
            raise EngineError("the model's logits are not finite; its weights are damaged or overflow this dtype")
        tokens = picker(logits, requests, live)
        for index, token in zip(live, tokens, strict=True):
            if rows[index].finish is None:
                advance(rows[index], token, ends, hit_stop, start)
        going = [at for at, index in enumerate(live) if rows[index].finish is None]
        if not going:
            return rows
        positions = positions[:, -1:] + 1
        if drop and len(going) <= len(live) * (1 - DROP_SHARE):
            chosen = torch.tensor(going, device=mask.device)
            cache.batch_select_indices(chosen)
            mask, positions = mask[chosen], positions[chosen]
            live, tokens = [live[at] for at in going], [tokens[at] for at in going]
            empty = int(mask.argmax(1).min())  # columns in which every remaining row is padding
            if empty and forward.takes_positions and drop_left(cache, empty):
                mask = mask[:, empty:]
        ids = torch.tensor(tokens, device=mask.device)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)


def advance(row: Row, token: int, ends: frozenset[int], hit_stop: Callable[[Row], bool], start: float) -> None:
    """Append a token to a row and note whether it ended it; `start` is when the batch began."""
    row.tokens.append(token)
    if token in ends or hit_stop(row):
        row.finish = "stop"
    elif len(row.tokens) >= row.request.max_new_tokens:
        row.finish = "length"
    else:
        return
    row.seconds = time.perf_counter() - start
