"""What runs token ids for an engine: whole batches to completions, and scores of continuations.

Imported only by engines that use torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engines._decode import Forward, Row, decode, left_pad, positions_of
from harness.engines.base import Request

LOGLIKELIHOOD_ROWS = 16
Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context and of its continuation."""


class Runner(Protocol):
    """Runs token ids through a model."""

    def generate(
        self, requests: Sequence[Request], *, ends: frozenset[int], hit_stop: Callable[[Row], bool]
    ) -> list[Row]:
        """Complete one batch; see `harness.engines._decode.decode`."""

    def score(self, pairs: Sequence[Pair], *, context_length: int) -> list[tuple[float, bool]]:
        """Per (context, continuation): log-likelihood in nats, and whether each token was the argmax.

        A pair longer than `context_length` loses tokens at its left.
        """

    def logits(self, sequences: Sequence[Sequence[int]], *, keep: Sequence[int]) -> list[Tensor]:
        """Per sequence of token ids: logits after each of its last `keep` tokens, float32 (keep, vocabulary)."""


class ModelRunner:
    """Runs a causal LM of transformers."""

    def __init__(self, model: Any) -> None:
        """Wrap it."""
        self._model = model

    def generate(
        self, requests: Sequence[Request], *, ends: frozenset[int], hit_stop: Callable[[Row], bool]
    ) -> list[Row]:
        """Complete one batch."""
        return decode(self._model, requests, ends=ends, hit_stop=hit_stop)

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair], *, context_length: int) -> list[tuple[float, bool]]:
        """Score pairs of similar length together."""
        order = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]) + len(pairs[index][1]), reverse=True)
        out: dict[int, tuple[float, bool]] = {}
        for start in range(0, len(order), LOGLIKELIHOOD_ROWS):
            chunk = order[start : start + LOGLIKELIHOOD_ROWS]
            out.update(zip(chunk, self._score([pairs[index] for index in chunk], context_length), strict=True))
        return [out[index] for index in range(len(pairs))]

    def _score(self, pairs: Sequence[Pair], longest: int) -> list[tuple[float, bool]]:
        inputs = [[*context, *continuation][-longest - 1 : -1] for context, continuation in pairs]
        ids, mask = left_pad(inputs, self._model.device)
        keep = max(len(continuation) for _, continuation in pairs)
        logits = Forward(self._model)(ids, mask, positions_of(mask), keep=keep).float()
        scores = []
        for row, (_, continuation) in enumerate(pairs):
            target = torch.tensor(list(continuation), device=logits.device)
            chances = logits[row, -len(continuation) :].log_softmax(-1)
            total = chances.gather(1, target[:, None]).sum()
            scores.append((float(total), bool((chances.argmax(-1) == target).all())))
        return scores

    @torch.inference_mode()
    def logits(self, sequences: Sequence[Sequence[int]], *, keep: Sequence[int]) -> list[Tensor]:
        """One forward over all sequences, padded at their left."""
        ids, mask = left_pad(sequences, self._model.device)
        found = Forward(self._model)(ids, mask, positions_of(mask), keep=max(keep)).float()
        return [row[-count:] for row, count in zip(found, keep, strict=True)]
