"""The torch engine: any causal LM that transformers opens, on CPU or CUDA.

Import it through `harness.engines.load_engine`; this module imports torch and transformers.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.engines._decode import Row
from harness.engines._ends import end_ids
from harness.engines._int8 import use_lean_forward
from harness.engines._load import load_model, load_tokenizer, pick_device
from harness.engines._prompt import encode_prompt
from harness.engines._run import ModelRunner, Runner
from harness.engines._session import Session, TorchSession
from harness.engines._text import TextReader, stop_at
from harness.engines.base import Completion, Request
from harness.errors import ConfigError, EngineError


class TorchEngine:
    """Executes a variant with transformers' eager model and a batch loop of our own."""

    name = "torch"

    def __init__(self, model: Any, tokenizer: Any, *, label: str, runner: Runner | None = None) -> None:
        """Wrap an open model.

        Args:
            model: A causal LM of transformers.
            tokenizer: Its tokenizer.
            label: What messages call the variant.
            runner: What runs token ids; by default `model` itself.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.label = label
        self._runner = runner or ModelRunner(model)
        self.end_ids = end_ids((model.generation_config, model.config), tokenizer)
        self._reader = TextReader(tokenizer)

    @classmethod
    def load(
        cls, variant_dir: Path, *, device: str = "cpu", dtype: str = "float32", threads: int | None = None
    ) -> TorchEngine:
        """Open a model directory.

        Args:
            variant_dir: Directory with config.json, safetensors and a tokenizer.
            device: `cpu`, `cuda` or `auto`.
            dtype: `float32`, `bfloat16`, `float16`, or `auto` (as saved).
            threads: CPU threads of torch in this process; None leaves them.

        Raises:
            ConfigError: A wrong option or no such directory.
            CheckpointError: The directory's files cannot be read.
            EngineError: No CUDA, or a missing package.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        variant_dir = Path(variant_dir)
        model = load_model(variant_dir, device=pick_device(device), dtype=dtype)
        use_lean_forward(model)
        return cls(model, load_tokenizer(variant_dir), label=variant_dir.name)

    @property
    def context_length(self) -> int:
        """Tokens that prompt and completion may have together (`max_position_embeddings`, MPT's `max_seq_len`)."""
        names = ("max_position_embeddings", "max_seq_len")
        length = next((found for name in names if (found := getattr(self.model.config, name, None))), None)
        if not length:
            raise EngineError(f"variant {self.label}: its config.json has no max_position_embeddings; add it")
        return int(length)

    @property
    def vocabulary(self) -> int:
        """Rows of the output layer."""
        return int(self.model.config.vocab_size)

    def encode(self, text: str | None = None, *, chat: Sequence[Mapping[str, str]] | None = None) -> list[int]:
        """Token ids of `text` (special tokens as the tokenizer adds them, but never a second BOS) or of `chat`.

        Args:
            text: A plain prompt.
            chat: Messages with `role` and `content`; rendered with the chat template and its generation prompt.

        Raises:
            ConfigError: The variant has no chat template, or one that fails on `chat`; or not exactly one of the two
                was given.
        """
        return encode_prompt(self.tokenizer, label=self.label, text=text, chat=chat)

    def generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete one fixed batch, in order.

        Requests that do not fit the context come back as `truncated_input` and take no part. The result depends on the
        batch, not on what ran before it.

        Raises:
            ConfigError: A request has an empty prompt or asks for no token.
            EngineError: The variant's logits are not finite, or memory ran out.
        """
        for request in requests:
            if not request.prompt_ids or request.max_new_tokens < 1:
                raise ConfigError(f"request {request.request_id} has an empty prompt or max_new_tokens below 1")
        fits = [len(request.prompt_ids) + request.max_new_tokens <= self.context_length for request in requests]
        batch = list(itertools.compress(requests, fits))
        try:
            rows = iter(self._runner.generate(batch, ends=self.end_ids, hit_stop=self._hit_stop) if batch else [])
        except EngineError as error:
            raise EngineError(f"variant {self.label}: {error}") from None
        except torch.OutOfMemoryError:
            raise EngineError(f"variant {self.label}: out of device memory; use a smaller batch") from None
        pairs = zip(requests, fits, strict=True)
        return [self._completion(request, next(rows) if fit else None) for request, fit in pairs]

    def loglikelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """Per (context, continuation) of token ids: sum of log-probabilities in nats, and whether each was the argmax.

        A pair longer than the context loses tokens at its left, as in lm-eval.

        Raises:
            ConfigError: A context or continuation is empty, or the continuation alone exceeds the context.
        """
        for context, continuation in pairs:
            if not context or not continuation or len(continuation) > self.context_length:
                raise ConfigError("log-likelihoods need a context and a continuation that fits the context length")
        return self._runner.score(pairs, context_length=self.context_length)

    def logits(self, sequences: Sequence[Sequence[int]], *, keep: Sequence[int]) -> list[torch.Tensor]:
        """Per sequence of token ids: logits after each of its last `keep` tokens, float32 (keep, vocabulary).

        Raises:
            ConfigError: A sequence is longer than the context, or has fewer tokens than `keep`.
            EngineError: Memory ran out.
        """
        for tokens, count in zip(sequences, keep, strict=True):
            if not 1 <= count <= len(tokens) <= self.context_length:
                raise ConfigError("logits need a sequence that fits the context length, and one to all of its tokens")
        try:
            return self._runner.logits(sequences, keep=keep) if sequences else []
        except torch.OutOfMemoryError:
            raise EngineError(f"variant {self.label}: out of device memory; use a smaller batch") from None

    def session(self, *, batch: int, tokens: int) -> Session:
        """A fresh key/value cache for `batch` rows of at most `tokens` tokens, to be driven token by token."""
        return TorchSession(self.model)

    def synchronise(self) -> None:
        """Wait until the device has finished what was asked of it."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)

    def _hit_stop(self, row: Row) -> bool:
        return self._reader.ends_in_stop(row.tokens, row.request.stop)

    def _completion(self, request: Request, row: Row | None) -> Completion:
        n_in = len(request.prompt_ids)
        if row is None:
            return Completion(request.request_id, "", n_in, 0, "truncated_input", 0.0)
        assert row.finish is not None
        said = row.tokens[:-1] if row.tokens[-1] in self.end_ids else row.tokens
        text = self._reader.completion(request.prompt_ids, said)
        cut = stop_at(text, request.stop)
        return Completion(
            request.request_id, text[:cut], n_in, len(row.tokens), row.finish, row.seconds, tuple(row.tokens)
        )
