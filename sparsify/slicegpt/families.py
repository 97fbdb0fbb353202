"""What slicing must know about a family of models: a dozen names in place of a class per model.

Names are those of modules within a block, or of its parameters where they end in `.weight`; a reader is a matrix that a
norm's output is multiplied by, a writer one whose output is added to the residual stream.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.errors import SparsifyError


def _submodule_mlp(block: Any, hidden: Tensor) -> Tensor:
    output: Tensor = block.mlp(hidden)
    return output


@dataclass(frozen=True)
class Family:
    """The parts of a family's blocks.

    Attributes:
        attention: The module that is called with `hidden_states` and the model's keyword arguments, and answers with a
            tuple that begins with what is added to the residual stream.
        attention_norm, mlp_norm: Norms in front of attention and MLP; `mlp_norm` is None where attention and MLP stand
            side by side and read one norm (Phi).
        attention_reads, attention_writes, mlp_reads, mlp_writes: Parameters.
        mlp: Runs the MLP of a block, without the residual.
        final_norm: Full name of the norm in front of the head.
        positions: Full names of learned position embeddings, added to those of the tokens.
        scale_offset: What is added to a norm's weight (Gemma stores the scale minus one).
        dropout: The attribute that holds the probability of the dropout on what is added, or a Dropout.
        tuple_output: Whether a block answers with a tuple.
        renamed: The block's keyword arguments that attention knows by other names, the first that it has.
        stock_width: Whether the model class takes any hidden size beside its number of heads (`head_dim`), so that
            one basis for all blocks gives a stock model.
    """

    attention: str
    attention_norm: str
    mlp_norm: str | None
    attention_reads: tuple[str, ...]
    attention_writes: tuple[str, ...]
    mlp_reads: tuple[str, ...]
    mlp_writes: tuple[str, ...]
    final_norm: str
    mlp: Callable[[Any, Tensor], Tensor] = _submodule_mlp
    positions: tuple[str, ...] = ()
    scale_offset: float = 0.0
    dropout: str = ""
    tuple_output: bool = False
    renamed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stock_width: bool = False

    @property
    def parallel(self) -> bool:
        """Whether attention and MLP stand side by side."""
        return self.mlp_norm is None

    @property
    def cuts(self) -> int:
        """Places in a block at which the residual stream changes its basis."""
        return 1 if self.parallel else 2

    def attend(self, block: Any, normed: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        """What attention adds to the residual stream, given the norm's output and the block's other arguments."""
        module = block.get_submodule(self.attention)
        if not self.renamed:
            return self.dropped(block, module(hidden_states=normed, **arguments)[0])
        known = inspect.signature(module.forward).parameters
        named = {
            next((own for own in self.renamed.get(name, ()) if own in known), name): value
            for name, value in arguments.items()
        }
        return self.dropped(block, module(hidden_states=normed, **named)[0])

    def feed(self, block: Any, normed: Tensor) -> Tensor:
        """What the MLP adds to the residual stream, given the norm's output."""
        return self.dropped(block, self.mlp(block, normed))

    def dropped(self, block: Any, added: Tensor) -> Tensor:
        """Dropout as the stock block has it."""
        found = getattr(block, self.dropout) if self.dropout else 0.0
        share = found.p if isinstance(found, nn.Dropout) else float(found)
        return nn.functional.dropout(added, share, block.training) if share else added


def _opt_mlp(block: Any, hidden: Tensor) -> Tensor:
    output: Tensor = block.fc2(block.activation_fn(block.fc1(hidden)))
    return output


def _mpt_mlp(block: Any, hidden: Tensor) -> Tensor:
    ffn = block.ffn
    output: Tensor = ffn.down_proj(ffn.act(ffn.up_proj(hidden)))
    return output


def _mixtral_mlp(block: Any, hidden: Tensor) -> Tensor:
    # transformers' own makes its output as wide as its input, which the last block's is not.
    experts, flat = block.mlp.experts, hidden.reshape(-1, hidden.shape[-1])
    _, weights, chosen = block.mlp.gate(flat)
    output = flat.new_zeros(flat.shape[0], experts.down_proj.shape[1])
    for expert in range(experts.gate_up_proj.shape[0]):
        token, place = torch.where(chosen == expert)
        gate, up = nn.functional.linear(flat[token], experts.gate_up_proj[expert]).chunk(2, dim=-1)
        said = nn.functional.linear(experts.act_fn(gate) * up, experts.down_proj[expert])
        output = output.index_add(0, token, (said * weights[token, place, None]).to(output.dtype))
    return output.reshape(*hidden.shape[:-1], -1)


def _weights(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.weight" for name in names)


_LLAMA = Family(
    attention="self_attn",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    attention_reads=_weights("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_writes=_weights("self_attn.o_proj"),
    mlp_reads=_weights("mlp.gate_proj", "mlp.up_proj"),
    mlp_writes=_weights("mlp.down_proj"),
    final_norm="model.norm",
    stock_width=True,
)


def _like_llama(**changes: Any) -> Family:
    return Family(**{**_LLAMA.__dict__, **changes})


FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _like_llama(scale_offset=1.0, stock_width=False),
    "phi3": _like_llama(
        attention_reads=_weights("self_attn.qkv_proj"),
        mlp_reads=_weights("mlp.gate_up_proj"),
        dropout="resid_attn_dropout",
        stock_width=False,
    ),
    "mixtral": _like_llama(
        mlp_reads=("mlp.gate.weight", "mlp.experts.gate_up_proj"),
        mlp_writes=("mlp.experts.down_proj",),
        mlp=_mixtral_mlp,
        stock_width=False,
    ),
    "phi": Family(
        attention="self_attn",
        attention_norm="input_layernorm",
        mlp_norm=None,
        attention_reads=_weights("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_writes=_weights("self_attn.dense"),
        mlp_reads=_weights("mlp.fc1"),
        mlp_writes=_weights("mlp.fc2"),
        final_norm="model.final_layernorm",
        dropout="resid_dropout",
    ),
    "opt": Family(
        attention="self_attn",
        attention_norm="self_attn_layer_norm",
        mlp_norm="final_layer_norm",
        attention_reads=_weights("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_writes=_weights("self_attn.out_proj"),
        mlp_reads=_weights("fc1"),
        mlp_writes=_weights("fc2"),
        mlp=_opt_mlp,
        final_norm="model.decoder.final_layer_norm",
        positions=("model.decoder.embed_positions",),
        dropout="dropout",
    ),
    "mpt": Family(
        attention="attn",
        attention_norm="norm_1",
        mlp_norm="norm_2",
        attention_reads=_weights("attn.Wqkv"),
        attention_writes=_weights("attn.out_proj"),
        mlp_reads=_weights("ffn.up_proj"),
        mlp_writes=_weights("ffn.down_proj"),
        mlp=_mpt_mlp,
        final_norm="transformer.norm_f",
        dropout="dropout_rate",
        tuple_output=True,
        renamed={"layer_past": ("cache", "past_key_values", "past_key_value")},
    ),
}


def family_of(model_type: str) -> Family:
    """The family of a model type.

    Raises:
        SparsifyError: It cannot be sliced, or is not known; the message says why.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    reasons = {
        **dict.fromkeys(
            ("gemma2", "gemma3_text", "gemma3", "olmo2"),
            "has norms behind attention and MLP: their scales stand between what is written and the residual stream, "
            "and cannot be folded into a matrix",
        ),
        "gpt2": "keeps its weights in Conv1D, the other way round",
    }
    if model_type.startswith("sliced_"):
        raise SparsifyError("the model is sliced already; slice the dense model by the whole fraction at once")
    why = reasons.get(model_type, "is not among the families whose parts are known here")
    raise SparsifyError(f"a {model_type} model cannot be sliced: it {why}; there are {', '.join(FAMILIES)}")


def check_config(model_type: str, config: Any) -> None:
    """Refuse a model of a known family that is built in a way that cannot be sliced.

    Raises:
        SparsifyError: OPT with norms behind its blocks or projected embeddings (opt-350m).
    """
    if model_type != "opt":
        return
    projected = config.word_embed_proj_dim != config.hidden_size
    if projected or not config.do_layer_norm_before or getattr(config, "_remove_final_layer_norm", False):
        raise SparsifyError(
            "this OPT model has norms behind its blocks, projected embeddings or no last norm (as opt-350m has): the "
            "residual stream cannot be rotated through them; use another size"
        )
