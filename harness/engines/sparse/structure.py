"""What a causal LM of transformers is made of, in the words of the native decoder (`_kernels.Decoder`).

Imported only by the sparse engine; imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.engines.sparse._kernels import Matrix
from sparsify.slicegpt import ATTENTION_SHORTCUT, MLP_SHORTCUT, PREFIX
from sparsify.slicegpt.families import FAMILIES
from sparsify.slicegpt.norm import ScaleFreeNorm

# Rotary embeddings whose angles depend on nothing but the position.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
ACTIVATIONS = {
    "SiLU": "silu",
    "SiLUActivation": "silu",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "GELUActivation": "gelu",
    "ReLU": "relu",
}

Floats = NDArray[np.float32]
# (matrix, bias), or with the first output and the number of outputs where a matrix holds several linears.
Linear = tuple[Matrix, Floats | None] | tuple[Matrix, Floats | None, int, int]
# (weight, bias), or with an eps of its own.
Norm = tuple[Floats, Floats | None] | tuple[Floats, Floats | None, float]


class Unsupported(Exception):
    """The decoder does not know this structure; run the model in transformers with packed linears instead."""


def describe(model: Any, matrices: Mapping[str, Matrix]) -> dict[str, Any]:
    """Arguments of `_kernels.Decoder` for a model.

    Args:
        model: Norms, embeddings, biases and rotary frequencies are read; the weights of its linears are not.
        matrices: Packed weight of every linear by its module's name.

    Raises:
        Unsupported: An unknown structure, or a linear without a matrix.
    """
    kind = model.config.model_type
    if kind not in STRUCTURES:
        raise Unsupported(f"the native decoder does not know the model type {kind}")
    return STRUCTURES[kind](model, _Linears(matrices))


class _Linears:
    """Finds the matrix of a module."""

    def __init__(self, matrices: Mapping[str, Matrix]) -> None:
        self._matrices = matrices

    def one(self, name: str, module: Any) -> tuple[Matrix, Floats | None]:
        if name not in self._matrices:
            raise Unsupported(f"linear {name} has no packed matrix")
        bias = getattr(module, "bias", None)
        return self._matrices[name], None if bias is None else _vector(bias)

    def several(self, prefix: str, parent: Any, names: Mapping[str, str]) -> dict[str, Linear]:
        """The decoder's name to the module's."""
        return {ours: self.one(f"{prefix}.{its}", getattr(parent, its)) for ours, its in names.items()}

    def shortcuts(self, prefix: str, block: Any) -> dict[str, Linear]:
        """Those of a sliced block."""
        names = {"attention_shortcut": ATTENTION_SHORTCUT, "mlp_shortcut": MLP_SHORTCUT}
        return self.several(prefix, block, {ours: its for ours, its in names.items() if hasattr(block, its)})

    def fused(self, name: str, module: Any, sizes: Mapping[str, int]) -> dict[str, Linear]:
        """Linears that are one matrix, one below the other."""
        matrix, bias = self.one(name, module)
        parts: dict[str, Linear] = {}
        first = 0
        for part, size in sizes.items():
            if first % 16:
                raise Unsupported(f"{name} holds several linears that do not begin at multiples of 16 outputs")
            parts[part] = (matrix, bias, first, size)
            first += size
        return parts


def _vector(tensor: torch.Tensor) -> Floats:
    return np.array(tensor.detach().float().cpu().numpy().ravel())


def _table(tensor: torch.Tensor) -> NDArray[Any]:
    """An embedding, without a copy where it is float32 or bfloat16."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype is torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy().view(np.uint16))
    return np.asarray(tensor.float().numpy())


def _activation(module: Any) -> str:
    name = type(module).__name__
    if name not in ACTIVATIONS:
        raise Unsupported(f"activation {name}")
    return ACTIVATIONS[name]


def _rms_norm(module: Any, width: int, *, plus_one: bool) -> Norm:
    """The norm of a stream that is `width` wide."""
    if isinstance(module, ScaleFreeNorm):
        # x / sqrt(sum(x²)/D + eps) = sqrt(D/d) · x / sqrt(sum(x²)/d + eps·D/d): D is its width, d that of the stream.
        ratio = module.width / width
        return np.full(width, np.sqrt(ratio), np.float32), None, module.eps * ratio
    weight = _vector(module.weight)
    return (weight + np.float32(1.0) if plus_one else weight), None


def _layer_norm(module: Any, width: int) -> Norm:
    if isinstance(module, ScaleFreeNorm):
        return _rms_norm(module, width, plus_one=False)
    if module.weight is None:
        raise Unsupported("a layer norm without weights")
    return _vector(module.weight), None if module.bias is None else _vector(module.bias)


def _window(config: Any, index: int) -> int:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds and kinds[index] not in ("full_attention", "sliding_attention"):
        raise Unsupported(f"attention of type {kinds[index]}")
    return int(window) if window and (not kinds or kinds[index] == "sliding_attention") else 0


def _llama(model: Any, linears: _Linears) -> dict[str, Any]:
    """Llama and its kin: RMS norms, rotary embedding, gated MLP; Gemma 2 and 3 also have norms behind both blocks."""
    config, base = model.config, model.model
    if getattr(config, "use_bidirectional_attention", False):
        raise Unsupported("bidirectional attention")
    attention, mlp = base.layers[0].self_attn, base.layers[0].mlp
    rotaries = _rotaries(base.rotary_emb)
    plus_one = config.model_type.startswith("gemma")
    sandwich = config.model_type in ("gemma2", "gemma3_text")

    def norm(module: Any, width: int) -> Norm:
        return _rms_norm(module, width, plus_one=plus_one)

    def layer(index: int, module: Any) -> dict[str, Any]:
        behind = module.post_attention_layernorm
        taken, between, given = _widths(module.self_attn, module.mlp)
        return {
            **linears.shortcuts(f"model.layers.{index}", module),
            **_llama_attention(f"model.layers.{index}.self_attn", module.self_attn, config, linears),
            **_llama_mlp(f"model.layers.{index}.mlp", module.mlp, config, linears),
            "attention_norm": norm(module.input_layernorm, taken),
            "attention_output_norm": norm(behind, between) if sandwich else None,
            "mlp_norm": norm(module.pre_feedforward_layernorm if sandwich else behind, between),
            "mlp_output_norm": norm(module.post_feedforward_layernorm, given) if sandwich else None,
            **{
                ours: norm(getattr(module.self_attn, its), attention.head_dim)
                if hasattr(module.self_attn, its)
                else None
                for ours, its in {"query_norm": "q_norm", "key_norm": "k_norm"}.items()
            },
            "rotary": list(rotaries).index(config.layer_types[index]) if len(rotaries) > 1 else 0,
            "window": _window(config, index),
        }

    return {
        "hidden": config.hidden_size,
        "inner": config.intermediate_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": attention.head_dim,
        "vocabulary": config.vocab_size,
        "eps": config.rms_norm_eps,
        "activation": _activation(mlp.activation_fn if hasattr(mlp, "activation_fn") else mlp.act_fn),
        "attention_scale": attention.scaling,
        "attention_cap": getattr(config, "attn_logit_softcapping", None) or 0.0,
        "logit_cap": getattr(config, "final_logit_softcapping", None) or 0.0,
        "embedding_scale": getattr(base.embed_tokens, "scalar_embed_scale", 1.0),
        "embedding": _table(base.embed_tokens.weight),
        "final_norm": norm(base.norm, model.lm_head.in_features),
        "head": linears.one("lm_head", model.lm_head),
        "rotaries": list(rotaries.values()),
        "layers": [layer(index, module) for index, module in enumerate(base.layers)],
    }


def _rotaries(module: Any) -> dict[str, tuple[Floats, float]]:
    """Frequencies and scale as transformers computed them, by the type of layer where they differ (Gemma 3)."""
    kinds = module.rope_type if isinstance(module.rope_type, dict) else {"": module.rope_type}
    rotaries = {}
    for layer_type, kind in kinds.items():
        if kind not in ROPE_TYPES:
            raise Unsupported(f"rotary embedding of type {kind}")
        prefix = f"{layer_type}_" if layer_type else ""
        scale = float(getattr(module, f"{prefix}attention_scaling"))
        rotaries[layer_type] = (_vector(getattr(module, f"{prefix}inv_freq")), scale)
    return rotaries


def _widths(attention: Any, mlp: Any) -> tuple[int, int, int]:
    """Of the residual stream in front of attention, between, and behind the MLP."""
    first = attention.qkv_proj if hasattr(attention, "qkv_proj") else attention.q_proj
    second = mlp.gate_up_proj if hasattr(mlp, "gate_up_proj") else mlp.gate_proj
    return first.in_features, second.in_features, mlp.down_proj.out_features


def _llama_attention(prefix: str, attention: Any, config: Any, linears: _Linears) -> dict[str, Linear]:
    if not hasattr(attention, "qkv_proj"):
        names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
        return linears.several(prefix, attention, names)
    queries = config.num_attention_heads * attention.head_dim
    keys = config.num_key_value_heads * attention.head_dim
    sizes = {"query": queries, "key": keys, "value": keys}
    return {
        **linears.fused(f"{prefix}.qkv_proj", attention.qkv_proj, sizes),
        "output": linears.one(f"{prefix}.o_proj", attention.o_proj),
    }


def _llama_mlp(prefix: str, mlp: Any, config: Any, linears: _Linears) -> dict[str, Linear]:
    if not hasattr(mlp, "gate_up_proj"):
        return linears.several(prefix, mlp, {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"})
    sizes = {"gate": config.intermediate_size, "up": config.intermediate_size}
    return {
        **linears.fused(f"{prefix}.gate_up_proj", mlp.gate_up_proj, sizes),
        "down": linears.one(f"{prefix}.down_proj", mlp.down_proj),
    }


def _opt(model: Any, linears: _Linears) -> dict[str, Any]:
    """OPT: layer norms, learned positions, plain MLP."""
    config, base = model.config, model.model.decoder
    if not config.do_layer_norm_before or base.final_layer_norm is None or base.project_in is not None:
        raise Unsupported("OPT with norms behind its blocks or with a projected embedding (opt-350m)")

    def layer(index: int, module: Any) -> dict[str, Any]:
        prefix = f"model.decoder.layers.{index}"
        names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
        taken, between = module.self_attn.q_proj.in_features, module.fc1.in_features
        return {
            **linears.shortcuts(prefix, module),
            **linears.several(f"{prefix}.self_attn", module.self_attn, names),
            **linears.several(prefix, module, {"up": "fc1", "down": "fc2"}),
            **_plain_layer(
                _layer_norm(module.self_attn_layer_norm, taken), _layer_norm(module.final_layer_norm, between)
            ),
        }

    heads = config.num_attention_heads
    return {
        "hidden": config.hidden_size,
        "inner": config.ffn_dim,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": config.hidden_size // heads,
        "vocabulary": config.vocab_size,
        "eps": base.final_layer_norm.eps,
        "layer_norm": not isinstance(base.final_layer_norm, ScaleFreeNorm),
        "gated": False,
        "activation": _activation(base.layers[0].activation_fn),
        "attention_scale": base.layers[0].self_attn.scaling,
        "embedding": _table(base.embed_tokens.weight),
        "positions": np.ascontiguousarray(
            base.embed_positions.weight.detach().float().numpy()[base.embed_positions.offset :]
        ),
        "final_norm": _layer_norm(base.final_layer_norm, model.lm_head.in_features),
        "head": linears.one("lm_head", model.lm_head),
        "rotaries": [(np.empty(0, np.float32), 1.0)],
        "layers": [layer(index, module) for index, module in enumerate(base.layers)],
    }


def _mpt(model: Any, linears: _Linears) -> dict[str, Any]:
    """MPT: layer norms, ALiBi, fused queries, keys and values, plain MLP."""
    config, base = model.config, model.transformer
    if config.attn_config.clip_qkv:
        raise Unsupported("MPT with clipped queries, keys and values")

    def layer(index: int, module: Any) -> dict[str, Any]:
        prefix = f"transformer.blocks.{index}"
        sizes = dict.fromkeys(("query", "key", "value"), config.hidden_size)
        taken, between = module.attn.Wqkv.in_features, module.ffn.up_proj.in_features
        return {
            **linears.shortcuts(prefix, module),
            **linears.fused(f"{prefix}.attn.Wqkv", module.attn.Wqkv, sizes),
            **linears.several(f"{prefix}.attn", module.attn, {"output": "out_proj"}),
            **linears.several(f"{prefix}.ffn", module.ffn, {"up": "up_proj", "down": "down_proj"}),
            **_plain_layer(_layer_norm(module.norm_1, taken), _layer_norm(module.norm_2, between)),
        }

    # transformers' own tensor for two tokens: the older one is one slope below the newer.
    slopes = -base.build_mpt_alibi_tensor(config.n_heads, 2)[:, 0, 0]
    return {
        "hidden": config.hidden_size,
        "inner": base.blocks[0].ffn.up_proj.out_features,
        "heads": config.n_heads,
        "kv_heads": config.n_heads,
        "head_dim": config.hidden_size // config.n_heads,
        "vocabulary": config.vocab_size,
        "eps": config.layer_norm_epsilon,
        "layer_norm": not isinstance(base.norm_f, ScaleFreeNorm),
        "gated": False,
        "activation": "gelu",
        "attention_scale": base.blocks[0].attn.softmax_scale,
        "embedding": _table(base.wte.weight),
        "slopes": _vector(slopes),
        "final_norm": _layer_norm(base.norm_f, model.lm_head.in_features),
        "head": linears.one("lm_head", model.lm_head),
        "rotaries": [(np.empty(0, np.float32), 1.0)],
        "layers": [layer(index, module) for index, module in enumerate(base.blocks)],
    }


def _plain_layer(attention_norm: Norm, mlp_norm: Norm) -> dict[str, Any]:
    """What the simpler layers have, and what they lack."""
    return {
        "attention_norm": attention_norm,
        "mlp_norm": mlp_norm,
        "attention_output_norm": None,
        "mlp_output_norm": None,
        "query_norm": None,
        "key_norm": None,
        "rotary": 0,
        "window": 0,
    }


# Model types whose every part is known. Others may look alike and differ in a factor.
_KNOWN: dict[str, Callable[[Any, _Linears], dict[str, Any]]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text"), _llama),
    "opt": _opt,
    "mpt": _mpt,
}
STRUCTURES = {**_KNOWN, **{PREFIX + name: known for name, known in _KNOWN.items() if name in FAMILIES}}
