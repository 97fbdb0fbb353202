"""A whole decoder in C++: what a Llama-like model of transformers is, told to `_kernels.Decoder`.

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
from harness.engines.base import Request
from harness.engines.sparse._kernels import Decoder, Matrix, NotFinite, State
from harness.errors import EngineError

__all__ = ["NativeModel", "State", "Unsupported"]

# Structures whose every part the decoder knows. Others may look alike and differ in a factor.
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2")
# Rotary embeddings whose angles depend on nothing but the position.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
GATES = {
    "SiLU": "silu",
    "SiLUActivation": "silu",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "GELUActivation": "gelu",
}
NOT_FINITE = "the model's logits are not finite; its weights are damaged or overflow this format"

Pair = tuple[Sequence[int], Sequence[int]]


class Unsupported(Exception):
    """The decoder does not know this structure; run the model in transformers with packed linears instead."""


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
        decoder = Decoder(**_Describer(model, matrices).describe())
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
        """Complete requests together; each result is the same in any company.

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
        state = self.new_state(capacity, max(1, len(rows)))

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
            live += take(self.forward(state, [index], [request.prompt_ids]), [index])
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


def _score(logits: NDArray[np.float32], continuation: Sequence[int]) -> tuple[float, bool]:
    if not np.isfinite(logits).all():
        raise EngineError(NOT_FINITE)
    chances = torch.from_numpy(logits).log_softmax(-1)
    target = torch.tensor(list(continuation))
    total = chances.gather(1, target[:, None]).sum()
    return float(total), bool((chances.argmax(-1) == target).all())


class _Describer:
    """Reads one model of transformers."""

    def __init__(self, model: Any, matrices: Mapping[str, Matrix]) -> None:
        self.model = model
        self.config = model.config
        self.matrices = matrices
        self.plus_one = self.config.model_type in ("gemma", "gemma2")

    def describe(self) -> dict[str, Any]:
        config, kind = self.config, self.config.model_type
        if kind not in MODEL_TYPES:
            raise Unsupported(f"the native decoder does not know the model type {kind}")
        if getattr(config, "use_bidirectional_attention", False):
            raise Unsupported("bidirectional attention")
        base = self.model.model
        attention = base.layers[0].self_attn
        gate = type(base.layers[0].mlp.activation_fn if kind == "phi3" else base.layers[0].mlp.act_fn).__name__
        if gate not in GATES:
            raise Unsupported(f"activation {gate}")
        return {
            "hidden": config.hidden_size,
            "inner": config.intermediate_size,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": attention.head_dim,
            "vocabulary": config.vocab_size,
            "eps": config.rms_norm_eps,
            "gate": GATES[gate],
            "attention_scale": attention.scaling,
            "attention_cap": getattr(config, "attn_logit_softcapping", None) or 0.0,
            "logit_cap": getattr(config, "final_logit_softcapping", None) or 0.0,
            "embedding_scale": getattr(base.embed_tokens, "scalar_embed_scale", 1.0),
            "embedding": _table(base.embed_tokens.weight),
            "final_norm": self._norm(base.norm),
            "head": self._linear("lm_head", self.model.lm_head),
            "rotaries": [self._rotary(base.rotary_emb)],
            "layers": [self._layer(index, layer) for index, layer in enumerate(base.layers)],
        }

    def _layer(self, index: int, layer: Any) -> dict[str, Any]:
        sandwich = self.config.model_type == "gemma2"
        attention = layer.self_attn
        return {
            **self._attention(f"model.layers.{index}.self_attn", attention),
            **self._mlp(f"model.layers.{index}.mlp", layer.mlp),
            "attention_norm": self._norm(layer.input_layernorm),
            "attention_output_norm": self._norm(layer.post_attention_layernorm) if sandwich else None,
            "mlp_norm": self._norm(layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm),
            "mlp_output_norm": self._norm(layer.post_feedforward_layernorm) if sandwich else None,
            "query_norm": self._norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
            "key_norm": self._norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
            "rotary": 0,
            "window": self._window(index),
        }

    def _attention(self, name: str, attention: Any) -> dict[str, tuple[Any, ...]]:
        output = {"output": self._linear(f"{name}.o_proj", attention.o_proj)}
        if hasattr(attention, "qkv_proj"):
            queries = self.config.num_attention_heads * attention.head_dim
            keys = self.config.num_key_value_heads * attention.head_dim
            fused = self._linear(f"{name}.qkv_proj", attention.qkv_proj)
            return output | _cut(fused, {"query": queries, "key": keys, "value": keys})
        parts = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
        return output | {ours: self._linear(f"{name}.{its}", getattr(attention, its)) for ours, its in parts.items()}

    def _mlp(self, name: str, mlp: Any) -> dict[str, tuple[Any, ...]]:
        down = {"down": self._linear(f"{name}.down_proj", mlp.down_proj)}
        if hasattr(mlp, "gate_up_proj"):
            inner = self.config.intermediate_size
            return down | _cut(self._linear(f"{name}.gate_up_proj", mlp.gate_up_proj), {"gate": inner, "up": inner})
        parts = {"gate": "gate_proj", "up": "up_proj"}
        return down | {ours: self._linear(f"{name}.{its}", getattr(mlp, its)) for ours, its in parts.items()}

    def _linear(self, name: str, module: Any) -> tuple[Matrix, NDArray[np.float32] | None]:
        if name not in self.matrices:
            raise Unsupported(f"linear {name} has no packed matrix")
        bias = getattr(module, "bias", None)
        return self.matrices[name], None if bias is None else _vector(bias)

    def _norm(self, module: Any) -> NDArray[np.float32]:
        if not type(module).__name__.endswith("RMSNorm"):
            raise Unsupported(f"norm {type(module).__name__}")
        weight = _vector(module.weight)
        return weight + np.float32(1.0) if self.plus_one else weight

    def _rotary(self, module: Any) -> tuple[NDArray[np.float32], float]:
        if module.rope_type not in ROPE_TYPES:
            raise Unsupported(f"rotary embedding of type {module.rope_type}")
        return _vector(module.inv_freq), float(module.attention_scaling)

    def _window(self, index: int) -> int:
        window = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None)
        if kinds and kinds[index] not in ("full_attention", "sliding_attention"):
            raise Unsupported(f"attention of type {kinds[index]}")
        return int(window) if window and (not kinds or kinds[index] == "sliding_attention") else 0


def _cut(fused: tuple[Matrix, NDArray[np.float32] | None], sizes: Mapping[str, int]) -> dict[str, tuple[Any, ...]]:
    """Parts of a matrix that is several, one below the other."""
    parts, first = {}, 0
    for name, size in sizes.items():
        if first % 16:
            raise Unsupported("a fused projection whose parts do not begin at a multiple of 16 outputs")
        parts[name] = (*fused, first, size)
        first += size
    return parts


def _vector(tensor: Any) -> NDArray[np.float32]:
    return np.array(tensor.detach().float().cpu().numpy().ravel())


def _table(tensor: Any) -> NDArray[Any]:
    """The embedding without a copy where it is float32 or bfloat16."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype is torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy().view(np.uint16))
    return np.asarray(tensor.float().numpy())
