"""What one step of a speed workload does on an engine. Imported only by the speed workers."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engines._session import Session
from harness.errors import ConfigError

# Ids below this are mostly special tokens; speed does not depend on which tokens are read.
FIRST_PLAIN_TOKEN = 8


class SteppedEngine(Protocol):
    """What a workload needs of an engine."""

    model: Any

    @property
    def vocabulary(self) -> int:
        """Rows of the output layer."""

    def session(self, *, batch: int, tokens: int) -> Session:
        """A fresh key/value cache for `batch` rows of at most `tokens` tokens."""


class Workload(Protocol):
    """A repeatable piece of work."""

    def reset(self) -> None:
        """Go back to the state before the first step."""

    def step(self) -> None:
        """Do one unit: one token for every row (decode), or one whole prompt (prefill)."""


def random_prompt(engine: SteppedEngine, batch: int, tokens: int, seed: int) -> Tensor:
    """Seeded token ids, (batch, tokens) int64, on the engine's device."""
    stream = torch.Generator().manual_seed(seed)
    low = min(FIRST_PLAIN_TOKEN, engine.vocabulary - 1)
    return torch.randint(low, engine.vocabulary, (batch, tokens), generator=stream).to(engine.model.device)


class Decode:
    """Greedy decoding with the key/value cache: each step reads the token before and chooses the next.

    The cache holds `context` tokens at the first step; the end token does not end anything.
    """

    def __init__(self, engine: SteppedEngine, *, context: int, batch: int, seed: int, longest: int) -> None:
        """Fill the cache."""
        self._context = context
        self._session = engine.session(batch=batch, tokens=context + longest)
        self._first = self._session.forward(random_prompt(engine, batch, context, seed))
        self._token = self._first

    def reset(self) -> None:
        """Shrink the cache to the context."""
        self._session.crop(self._context)
        self._token = self._first

    def step(self) -> None:
        """Generate one token for every row."""
        self._token = self._session.forward(self._token)


class Prefill:
    """One forward over a whole prompt with an empty cache, up to the first token."""

    def __init__(self, engine: SteppedEngine, *, context: int, batch: int, seed: int) -> None:
        """Draw the prompt."""
        self._new = lambda: engine.session(batch=batch, tokens=context)
        self._ids = random_prompt(engine, batch, context, seed)

    def reset(self) -> None:
        """Nothing is kept between steps."""

    def step(self) -> None:
        """Read the prompt and choose the first token."""
        self._new().forward(self._ids)


class Throughput:
    """Offline generation: each step reads a whole batch of prompts and generates `new_tokens` for every row."""

    def __init__(self, engine: SteppedEngine, *, context: int, batch: int, seed: int, new_tokens: int) -> None:
        """Draw the prompts."""
        self._new = lambda: engine.session(batch=batch, tokens=context + new_tokens)
        self._new_tokens = new_tokens
        self._ids = random_prompt(engine, batch, context, seed)

    def reset(self) -> None:
        """Nothing is kept between steps."""

    def step(self) -> None:
        """Generate from an empty cache; the end token does not end anything."""
        session, ids = self._new(), self._ids
        for _ in range(self._new_tokens):
            ids = session.forward(ids)


def build_workload(
    engine: SteppedEngine, *, workload: str, context: int, batch: int, new_tokens: int, seed: int, longest: int
) -> Workload:
    """The workload of that name, ready for its first step; `longest` is what a measurement adds to the context."""
    if workload == "throughput":
        return Throughput(engine, context=context, batch=batch, seed=seed, new_tokens=new_tokens)
    if workload == "decode":
        return Decode(engine, context=context, batch=batch, seed=seed, longest=longest)
    if workload == "prefill":
        return Prefill(engine, context=context, batch=batch, seed=seed)
    raise ConfigError(f"unknown workload {workload!r}; choose one of: decode, prefill, throughput")
