"""What one step of a speed workload does on the torch engine. Imported only by the speed workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engines._cache import cache_argument, crop_to, new_cache
from harness.engines.torch import TorchEngine
from harness.errors import ConfigError

# Ids below this are mostly special tokens; speed does not depend on which tokens are read.
FIRST_PLAIN_TOKEN = 8


class Workload(Protocol):
    """A repeatable piece of work."""

    def reset(self) -> None:
        """Go back to the state before the first step."""

    def step(self) -> None:
        """Do one unit: one token for every row (decode), or one whole prompt (prefill)."""


def random_prompt(engine: TorchEngine, batch: int, tokens: int, seed: int) -> Tensor:
    """Seeded token ids, (batch, tokens) int64, on the engine's device."""
    stream = torch.Generator().manual_seed(seed)
    low = min(FIRST_PLAIN_TOKEN, engine.vocabulary - 1)
    return torch.randint(low, engine.vocabulary, (batch, tokens), generator=stream).to(engine.model.device)


class Decode:
    """Greedy decoding with the key/value cache: each step reads the token before and chooses the next.

    The cache holds `context` tokens at the first step; the end token does not end anything.
    """

    def __init__(self, engine: TorchEngine, *, context: int, batch: int, seed: int) -> None:
        """Fill the cache."""
        self._model, self._context = engine.model, context
        self._cache, self._name = new_cache(engine.model), cache_argument(engine.model)
        self._first = self._forward(random_prompt(engine, batch, context, seed))
        self._token = self._first

    def reset(self) -> None:
        """Shrink the cache to the context."""
        crop_to(self._cache, self._context)
        self._token = self._first

    def step(self) -> None:
        """Generate one token for every row."""
        self._token = self._forward(self._token)

    @torch.inference_mode()
    def _forward(self, ids: Tensor) -> Tensor:
        output: Any = self._model(input_ids=ids, use_cache=True, logits_to_keep=1, **{self._name: self._cache})
        token: Tensor = output.logits[:, -1:].argmax(-1)
        return token


class Prefill:
    """One forward over a whole prompt with an empty cache, up to the first token."""

    def __init__(self, engine: TorchEngine, *, context: int, batch: int, seed: int) -> None:
        """Draw the prompt."""
        self._model, self._name = engine.model, cache_argument(engine.model)
        self._ids = random_prompt(engine, batch, context, seed)

    def reset(self) -> None:
        """Nothing is kept between steps."""

    @torch.inference_mode()
    def step(self) -> None:
        """Read the prompt and choose the first token."""
        cache = new_cache(self._model)
        output: Any = self._model(input_ids=self._ids, use_cache=True, logits_to_keep=1, **{self._name: cache})
        output.logits[:, -1:].argmax(-1)


class Throughput:
    """Offline generation: each step reads a whole batch of prompts and generates `new_tokens` for every row."""

    def __init__(self, engine: TorchEngine, *, context: int, batch: int, seed: int, new_tokens: int) -> None:
        """Draw the prompts."""
        self._model, self._new_tokens, self._name = engine.model, new_tokens, cache_argument(engine.model)
        self._ids = random_prompt(engine, batch, context, seed)

    def reset(self) -> None:
        """Nothing is kept between steps."""

    @torch.inference_mode()
    def step(self) -> None:
        """Generate from an empty cache; the end token does not end anything."""
        cache, ids = new_cache(self._model), self._ids
        for _ in range(self._new_tokens):
            output: Any = self._model(input_ids=ids, use_cache=True, logits_to_keep=1, **{self._name: cache})
            ids = output.logits[:, -1:].argmax(-1)


def build_workload(
    engine: TorchEngine, *, workload: str, context: int, batch: int, new_tokens: int, seed: int
) -> Workload:
    """The workload of that name, ready for its first step."""
    if workload == "throughput":
        return Throughput(engine, context=context, batch=batch, seed=seed, new_tokens=new_tokens)
    kinds: dict[str, Callable[..., Workload]] = {"decode": Decode, "prefill": Prefill}
    if workload not in kinds:
        raise ConfigError(f"unknown workload {workload!r}; choose one of: {', '.join(kinds)}, throughput")
    return kinds[workload](engine, context=context, batch=batch, seed=seed)
