"""Small models of every family that the native decoder knows, with weights that make a difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.engines.sparse._kernels import Matrix
from harness.engines.sparse.native import NativeModel
from sparsify.slicegpt import register as register_sliced

COMMON = {
    "vocab_size": 131,  # no multiple of a tile
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 128}
# Name: model type and what differs from COMMON.
FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-many-heads": ("llama", {"hidden_size": 80, "num_attention_heads": 20, "head_dim": 32}),
    "llama-tied-biased": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "llama-llama3": ("llama", {"rope_parameters": LLAMA3}),
    "llama-yarn": ("llama", {"rope_parameters": YARN}),
    "llama-gelu": ("llama", {"hidden_act": "gelu"}),
    "mistral-window": ("mistral", {"sliding_window": 21}),
    "qwen2": ("qwen2", {}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 13, "max_window_layers": 1}),
    "qwen3": ("qwen3", {}),
    "phi3": ("phi3", {"head_dim": 24, "hidden_size": 96, "num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
    "opt": ("opt", {"ffn_dim": 80, "word_embed_proj_dim": 48, "do_layer_norm_before": True}),
    "opt-gelu": ("opt", {"ffn_dim": 80, "word_embed_proj_dim": 48, "activation_function": "gelu"}),
    "mpt": ("mpt", {"d_model": 48, "n_heads": 3, "n_layers": 2, "max_seq_len": 256}),
    "gemma": ("gemma", {}),
    "gemma3": (
        "gemma3_text",
        {"sliding_window": 11, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    ),
    # Residual streams of a width of their own at every place, wider behind some parts and narrower behind others.
    "sliced-llama": (
        "sliced_llama",
        {"tie_word_embeddings": False, "slicing": {"width": 48, "widths": [40, 32, 40, 24, 36, 17, 48]}},
    ),
    "sliced-qwen3": ("sliced_qwen3", {"slicing": {"width": 48, "widths": [40] * 6 + [33]}}),
    "sliced-opt": (
        "sliced_opt",
        {
            **{"ffn_dim": 80, "word_embed_proj_dim": 48, "do_layer_norm_before": True, "tie_word_embeddings": False},
            "slicing": {"width": 48, "widths": [40, 32, 40, 24, 36, 17, 48]},
        },
    ),
    "sliced-mpt": (
        "sliced_mpt",
        {
            **{"d_model": 48, "n_heads": 3, "n_layers": 2, "max_seq_len": 256, "tie_word_embeddings": False},
            "slicing": {"width": 48, "widths": [33, 32, 40, 24, 48]},
        },
    ),
    "gemma2": ("gemma2", {"sliding_window": 19, "query_pre_attn_scalar": 20, "final_logit_softcapping": 3.0}),
}


def make_model(name: str, **changes: Any) -> Any:
    """A random model of the family in float32, eager attention."""
    kind, special = FAMILY[name]
    options = dict(COMMON)
    if kind in ("qwen2", "phi3"):
        del options["head_dim"]  # these derive it
    register_sliced()
    if kind.endswith("mpt"):
        options = {"vocab_size": COMMON["vocab_size"]}
    config = AutoConfig.for_model(kind, **{**options, **special, **changes})
    torch.manual_seed(sum(map(ord, name)))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh norms are 1 and fresh biases 0: neither would show that it was forgotten.
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else 0.1))
    return model


def linears(model: Any) -> dict[str, torch.nn.Linear]:
    """Every linear by name, the head included."""
    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def as_array(tensor: torch.Tensor) -> Any:
    """The tensor's own memory as numpy."""
    return tensor.detach().numpy()


def float_matrices(model: Any, *, sparse: bool = False) -> dict[str, Matrix]:
    """The model's linears, packed as they are."""
    return {name: Matrix.pack(as_array(m.weight), "f32", sparse=sparse) for name, m in linears(model).items()}


def native(model: Any, *, threads: int = 1, cache: Any = "float32") -> NativeModel:
    """The native decoder on float32 matrices."""
    return NativeModel.build(model, float_matrices(model), threads=threads, cache=cache)


def tokens_for(model: Any, count: int, seed: int = 0) -> list[int]:
    """Seeded token ids."""
    stream = np.random.default_rng(seed)
    return [int(token) for token in stream.integers(0, model.config.vocab_size, count)]


@torch.inference_mode()
def reference(model: Any, tokens: list[int]) -> Any:
    """Logits of transformers for every token, (tokens, vocabulary)."""
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
