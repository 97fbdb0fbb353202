"""A whole decoder in C++: generation and scoring without Python between a token's layers.

Imported only by the sparse engine and its benchmark; imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from harness.engines._decode import Picker, Row, advance
from harness.engines._prefix import LEAST_TOKENS
from harness.engines._run import shared_tokens
from harness.engines.base import Request
from harness.engines.sparse._kernels import Decoder, Matrix, NotFinite, State
from harness.engines.sparse.structure import Unsupported, describe
from harness.errors import EngineError

__all__ = ["NativeModel", "State", "Unsupported"]

NOT_FINITE = "the model's logits are not finite; its weights are damaged or overflow this format"

Pair = tuple[Sequence[int], Sequence[int]]


class NativeModel:
    """A decoder on packed matrices; activations are float32.

    A row's logits do not depend on the rows that are computed with it, nor on the number of threads. Calls from several
    threads are safe: states are independent of each other, and one state serves one call at a time.
    """

    def __init__(self, decoder: Decoder, *, threads: int, cache: Literal["float32", "bfloat16"] = "float32") -> None:
        """Wrap a decoder; `build` makes one from a model of transformers."""
        self.threads = threads
        self._decoder = decoder
        self._cache = cache

    @classmethod
    def build(
        cls,
        model: Any,
        matrices: Mapping[str, Matrix],
        *,
        threads: int | None = None,
        cache: Literal["float32", "bfloat16"] = "float32",
    ) -> NativeModel:
        """Describe a causal LM of transformers to the decoder.

        Args:
            model: Its norms, embedding, biases and rotary frequencies are read, the weights of its linears are not.
            matrices: Packed weight of every linear by its module's name, `lm_head` included.
            threads: Threads per call; None is torch's number.
            cache: Type of stored keys and values.

        Raises:
            Unsupported: A structure that the decoder does not know, or a linear without a matrix.
        """
        if cache not in ("float32", "bfloat16"):
            raise ValueError(f"cache must be float32 or bfloat16, not {cache!r}")
        decoder = Decoder(**describe(model, matrices))
        return cls(decoder, threads=threads or torch.get_num_threads(), cache=cache)

    def new_state(self, capacity: int, rows: int = 1) -> State:
        """Empty rows with room for `capacity` tokens each; memory is taken in pages as they fill."""
        return self._decoder.state(rows=rows, capacity=capacity, bf16=self._cache == "bfloat16")

    def forward(
        self, state: State, rows: Sequence[int], tokens: Sequence[Sequence[int]], *, keep: int = 1
    ) -> NDArray[np.float32]:
        """Append tokens to rows: one or many to each, none to the others.

        Returns:
            Logits of the last `keep` tokens of each row, in order: (len(rows) * keep, vocabulary).

        Raises:
            ValueError: An unknown or repeated row, no tokens, a token outside the vocabulary, fewer tokens than `keep`,
                or no room; no row was changed then.
        """
        lists = [list(map(int, part)) for part in tokens]
        return state.forward(list(rows), lists, keep=keep, threads=self.threads)

    def greedy(self, state: State, rows: Sequence[int], tokens: Sequence[int], *, steps: int) -> NDArray[np.int64]:
        """Feed one token to each row, then its likeliest next token, `steps` times; nothing ends a row.

        Returns:
            The chosen tokens, (len(rows), steps); the last of them is not yet in the state.

        Raises:
            ValueError: As `forward`.
            EngineError: The logits are not finite.
        """
        try:
            return state.greedy(list(rows), list(tokens), steps=steps, threads=self.threads)
        except NotFinite:
            raise EngineError(NOT_FINITE) from None

    def generate(
        self, requests: Sequence[Request], *, ends: frozenset[int], hit_stop: Callable[[Row], bool]
    ) -> list[Row]:
        """Complete requests together; each result is the same in any company that shares its beginning.

        Args:
            requests: What to complete; sampled ones draw from their own stream.
            ends: Tokens that end a row.
            hit_stop: Whether a row's newest token completed a stop text.

        Raises:
            EngineError: The logits are not finite.
        """
        start = time.perf_counter()
        rows, picker = [Row(request) for request in requests], Picker(requests)
        # The last token that a row generates is never fed.
        capacity = max((len(request.prompt_ids) + request.max_new_tokens for request in requests), default=1)
        shared = shared_tokens(requests)
        shared = shared if len(shared) >= LEAST_TOKENS else ()
        state = self.new_state(capacity, len(rows) + 1)
        if shared:
            self.forward(state, [len(rows)], [shared])

        def take(logits: NDArray[np.float32], live: Sequence[int]) -> list[int]:
            if not np.isfinite(logits).all():
                raise EngineError(NOT_FINITE)
            going = []
            for index, token in zip(live, picker(torch.from_numpy(logits), requests, live), strict=True):
                advance(rows[index], token, ends, hit_stop, start)
                if rows[index].finish is None:
                    going.append(index)
                else:
                    state.drop(index)
            return going

        live: list[int] = []
        for index, request in enumerate(requests):
            if shared:
                state.copy(len(rows), index)
            live += take(self.forward(state, [index], [request.prompt_ids[len(shared) :]]), [index])
        while live:
            live = take(self.forward(state, live, [rows[index].tokens[-1:] for index in live]), live)
        return rows

    def score(self, pairs: Sequence[Pair], *, context_length: int) -> list[tuple[float, bool]]:
        """Per (context, continuation): log-likelihood in nats, and whether greedy decoding gives the continuation.

        A pair longer than the context length loses tokens at its left, as in lm-eval. The context is always computed
        apart from the continuation, so pairs that share one compute it once, and each result is its pair's alone.

        Raises:
            EngineError: The logits are not finite.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (context, continuation) in enumerate(pairs):
            # The last token of a pair is predicted, not fed; the first of a continuation is predicted by the context.
            room = context_length + 1 - len(continuation)
            groups.setdefault(tuple(context[-room:]) if room > 0 else (), []).append(index)
        results: dict[int, tuple[float, bool]] = {}
        state = self.new_state(context_length)
        for shown, members in groups.items():
            if not shown:
                raise ValueError("log-likelihoods need a context and a continuation that fits the context length")
            first = self.forward(state, [0], [shown])
            for index in members:
                continuation = pairs[index][1]
                logits = first
                if len(continuation) > 1:
                    rest = self.forward(state, [0], [continuation[:-1]], keep=len(continuation) - 1)
                    logits = np.concatenate([first, rest])
                    state.truncate(0, len(shown))
                results[index] = _score(logits, continuation)
            state.drop(0)
        return [results[index] for index in range(len(pairs))]

    def logits(self, sequences: Sequence[Sequence[int]], *, keep: Sequence[int]) -> list[torch.Tensor]:
        """Per sequence of token ids: logits after each of its last `keep` tokens, float32 (keep, vocabulary)."""
        state = self.new_state(max(map(len, sequences)))
        found = []
        for tokens, count in zip(sequences, keep, strict=True):
            found.append(torch.from_numpy(self.forward(state, [0], [tokens], keep=count)))
            state.drop(0)
        return found


def _score(logits: NDArray[np.float32], continuation: Sequence[int]) -> tuple[float, bool]:
    if not np.isfinite(logits).all():
        raise EngineError(NOT_FINITE)
    chances = torch.from_numpy(logits).log_softmax(-1)
    target = torch.tensor(list(continuation))
    total = chances.gather(1, target[:, None]).sum()
    return float(total), bool((chances.argmax(-1) == target).all())
