"""torch: transformers' LlamaForCausalLM, eager or compiled, in several number formats. Runs in our own environment."""

from __future__ import annotations

import sys
from typing import Any

import torch
from serving import (
    embedding_weight,
    head_weight,
    layer_weights,
    linear_parameters,
    per_output_int8,
    random_tokens,
    serve,
    versions_of,
)
from torch import Tensor, nn

from harness.engines._cache import cache_argument, crop_to

_ROOM = 32
"""Tokens that a static cache holds beyond the context."""
_BYTES = {
    "fp32": 4.0,
    "bf16": 2.0,
    "compile-fp32": 4.0,
    "compile-bf16": 2.0,
    "int8-weight-only": 1.0,
    "int8-dynamic": 1.0,
}


def llama_config(shape: dict[str, Any]) -> Any:
    """The configuration of a shape."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape["vocab"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["intermediate"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        rms_norm_eps=shape["eps"],
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )


def skeleton(shape: dict[str, Any]) -> Any:
    """The model with norms of one and working positions, but no memory for its matrices."""
    from transformers import LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = llama_config(shape)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.weight = nn.Parameter(torch.ones(shape["hidden"]), requires_grad=False)
    return model


class WeightOnlyLinear(nn.Module):
    """int8 weights with one scale per output, bfloat16 activations: torch's own kernel for it."""

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        """Keep them."""
        super().__init__()
        self.codes, self.scales = codes, scales

    def forward(self, x: Tensor) -> Tensor:
        """X (..., inputs) to (..., outputs)."""
        rows = x.reshape(-1, x.shape[-1])
        return torch._weight_int8pack_mm(rows, self.codes, self.scales).reshape(*x.shape[:-1], -1)


def fill(model: Any, shape: dict[str, Any], kind: str) -> None:
    """Give every matrix its numbers, in the format of `kind`, in memory of its own."""
    dtype = torch.float32 if kind in ("fp32", "compile-fp32", "int8-dynamic") else torch.bfloat16
    layer = {name: made(torch.from_numpy(weight), kind, dtype) for name, weight in layer_weights(shape, 0.0)}
    for block in model.model.layers:
        for name, linear in layer.items():
            parent, _, child = name.partition(".")
            setattr(getattr(block, parent), child, copy_of(linear))
    model.lm_head = made(torch.from_numpy(head_weight(shape)), kind, dtype)
    table = torch.from_numpy(embedding_weight(shape)).to(dtype)
    model.model.embed_tokens.weight = nn.Parameter(table, requires_grad=False)
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.to(dtype)


def made(weight: Tensor, kind: str, dtype: torch.dtype) -> nn.Module:
    """A linear of one format."""
    if kind == "int8-weight-only":
        codes, scales = per_output_int8(weight.numpy())
        return WeightOnlyLinear(torch.from_numpy(codes), torch.from_numpy(scales).to(dtype))
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if kind == "int8-dynamic":
        holder = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear}, dtype=torch.qint8)
        return holder[0]
    return linear


def copy_of(linear: nn.Module) -> nn.Module:
    """The same numbers in memory of their own."""
    import copy

    return copy.deepcopy(linear)


class TorchEngine:
    """Decoding and prefill through transformers."""

    def __init__(self, model: Any, shape: dict[str, Any], kind: str) -> None:
        """Nothing is prepared yet."""
        compiled = kind.startswith("compile")
        self._model, self._shape, self._compiled = model, shape, compiled
        self.bytes: int | None = int(sum(linear_parameters(shape)) * _BYTES[kind])
        self.notes: list[str] = ["static cache"] if compiled else []
        self._forward = torch.compile(model.forward, dynamic=False) if compiled else model.forward
        self._cache_name = cache_argument(model)
        self._dtype = model.model.embed_tokens.weight.dtype
        self._cache: Any = None
        self._workload, self._context, self._batch = "", 0, 1

    def prepare(self, workload: str, batch: int, context: int) -> None:
        """Draw the prompt; for decoding fill the cache with random keys and values."""
        self._workload, self._context, self._batch = workload, context, batch
        self._ids = torch.from_numpy(random_tokens(self._shape, batch, context if workload == "prefill" else 1))
        self._cache = None if workload == "prefill" else self._filled()
        self.reset()

    def _new_cache(self) -> Any:
        from transformers import DynamicCache, StaticCache

        if self._compiled and self._workload == "decode":
            return StaticCache(config=self._model.config, max_cache_len=self._context + _ROOM)
        return DynamicCache(config=self._model.config)

    @torch.inference_mode()
    def _filled(self) -> Any:
        cache, config = self._new_cache(), self._model.config
        width = config.hidden_size // config.num_attention_heads
        stream = torch.Generator().manual_seed(3)
        size = (self._batch, config.num_key_value_heads, self._context, width)
        for layer in range(config.num_hidden_layers):
            key, value = (torch.randn(size, generator=stream).to(self._dtype) for _ in range(2))
            cache.update(key, value, layer)
        return cache

    def reset(self) -> None:
        """Shrink the cache to the context."""
        self._token, self._position = self._ids, self._context
        if self._workload == "decode" and not self._compiled:
            crop_to(self._cache, self._context)

    @torch.inference_mode()
    def step(self) -> None:
        """One token for every row, or the whole prompt, up to the next token."""
        if self._workload == "prefill":
            cache = {self._cache_name: self._new_cache()}
            logits = self._forward(input_ids=self._ids, use_cache=True, logits_to_keep=1, **cache).logits
        else:
            more: dict[str, Any] = {self._cache_name: self._cache}
            if self._compiled:  # always the same place: a static cache costs the same wherever the token goes
                position = torch.tensor([self._context])
                for layer in self._cache.layers:
                    if hasattr(layer, "cumulative_length"):
                        layer.cumulative_length.fill_(self._context)
                more |= {"position_ids": position[None].expand(self._batch, 1)}
            logits = self._forward(input_ids=self._token, use_cache=True, **more).logits
        self._token = logits[:, -1:].argmax(-1)


def open_engine(request: dict[str, Any]) -> tuple[TorchEngine, dict[str, Any]]:
    """The engine of an `open` request."""
    kind, shape = request["variant"]["kind"], request["shape"]
    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    model = skeleton(shape)
    fill(model, shape, kind)
    return TorchEngine(model, shape, kind), {"versions": versions_of("torch", "transformers")}


if __name__ == "__main__":
    sys.exit(serve(open_engine))
