"""What runs token ids for an engine: whole batches to completions, and scores of continuations.

Imported only by engines that use torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engines._decode import Row, decode
from harness.engines._forward import Forward, left_pad, positions_of
from harness.engines._prefix import Kind, PrefixStore
from harness.engines.base import Request
from harness.errors import EngineError

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

    def __init__(self, model: Any, *, prefix: Kind | None = "shared", drop: bool = True) -> None:
        """Wrap it.

        Args:
            model: A causal LM of transformers.
            prefix: How a batch may hold what all prompts of its plan begin with; None computes every prompt whole.
            drop: Let finished rows leave their batch.
        """
        self._model, self._drop = model, drop
        self._prefixes = PrefixStore(model, kind=prefix)

    def generate(
        self, requests: Sequence[Request], *, ends: frozenset[int], hit_stop: Callable[[Row], bool]
    ) -> list[Row]:
        """Complete one batch."""
        prefix = self._prefixes.get(shared_tokens(requests))
        return decode(self._model, requests, ends=ends, hit_stop=hit_stop, prefix=prefix, drop=self._drop)

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


def shared_tokens(requests: Sequence[Request]) -> tuple[int, ...]:
    """What the requests say that all prompts of their plan begin with; each keeps a token of its own.

    Raises:
        EngineError: They do not begin alike.
    """
    if not requests:
        return ()
    length = min(min(request.shared_prefix, len(request.prompt_ids) - 1) for request in requests)
    tokens = requests[0].prompt_ids[:length]
    if any(request.prompt_ids[:length] != tokens for request in requests):
        raise EngineError("prompts with a shared_prefix do not begin alike; report this caller")
    return tokens
