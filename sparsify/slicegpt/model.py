"""Sliced models as transformers models: a class per family, made from the stock class, with its module names.

A sliced Llama is a `SlicedLlamaForCausalLM`, a subclass of `LlamaForCausalLM` whose config (`model_type: sliced_llama`)
says under `slicing` how wide the residual stream is at every cut. Whatever takes a model of transformers takes it:
loading, generation with its key/value cache, saving, training, quantizing. No remote code is involved; transformers
must have been told (`sparsify.slicegpt.register`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.errors import CheckpointError
from sparsify.slicegpt import PREFIX
from sparsify.slicegpt.families import FAMILIES, Family, family_of
from sparsify.slicegpt.norm import ScaleFreeNorm


@cache
def register_family(model_type: str) -> None:
    """Teach transformers' Auto classes the sliced models of a family.

    Raises:
        SparsifyError: The family cannot be sliced.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config_class, model_class = sliced_classes(model_type)
    AutoConfig.register(PREFIX + model_type, config_class, exist_ok=True)
    AutoModelForCausalLM.register(config_class, model_class, exist_ok=True)


@cache
def sliced_classes(model_type: str) -> tuple[type[Any], type[Any]]:
    """(config class, model class) of a family's sliced models.

    Raises:
        SparsifyError: The family cannot be sliced.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    family_of(model_type)
    stock_config: Any = CONFIG_MAPPING[model_type]
    stock_model: Any = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])

    def make(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        stock_model.__init__(self, config, *args, **kwargs)
        narrow_model(self, model_type, config.slicing)

    config_class = type(
        f"Sliced{stock_config.__name__}",
        (stock_config,),
        {"model_type": PREFIX + model_type, "__module__": __name__, "__doc__": f"{stock_config.__name__}, sliced."},
    )
    blocks = [_sliced_name(name) for name in getattr(stock_model, "_no_split_modules", None) or ()]
    model_class = type(
        f"Sliced{stock_model.__name__}",
        (stock_model,),
        {
            "__init__": make,
            "__module__": __name__,
            "__doc__": f"{stock_model.__name__} with a sliced residual stream (2401.15024).",
            "config_class": config_class,
            # The head is rotated by another matrix than the embedding.
            "_tied_weights_keys": {},
            "_no_split_modules": blocks,
        },
    )
    return config_class, model_class


def sliced_config(stock: Mapping[str, Any], slicing: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the sliced model of a stock one."""
    model_type = str(stock["model_type"])
    return {
        **stock,
        "model_type": PREFIX + model_type,
        "architectures": [sliced_classes(model_type)[1].__name__],
        "tie_word_embeddings": False,
        "slicing": dict(slicing),
    }


def narrow_model(model: Any, model_type: str, slicing: Mapping[str, Any]) -> None:
    """Give a stock model, in place, the shapes of a sliced one; weights are cut off, and mean nothing yet.

    Raises:
        CheckpointError: `slicing` does not fit the model.
    """
    family = family_of(model_type)
    blocks = _blocks_of(model)
    width, widths = _checked(slicing, len(blocks) * family.cuts + 1)
    for index, block in enumerate(blocks):
        here = widths[index * family.cuts : (index + 1) * family.cuts + 1]
        narrow_block(block, model_type, here, width)
    for name in (_name_of(model, model.get_input_embeddings()), *family.positions):
        embedding = model.get_submodule(name)
        set_parameter(model, f"{name}.weight", embedding.weight[:, : widths[0]].clone())
    final = model.get_submodule(family.final_norm)
    head = model.get_output_embeddings()
    set_parameter(head, "weight", head.weight[:, : widths[-1]].clone())
    if _shifts(final) and head.bias is None:
        head.bias = nn.Parameter(torch.zeros_like(head.weight[:, 0]))
    _replace(model, family.final_norm, width)


def narrow_block(block: Any, model_type: str, widths: Sequence[int], width: int) -> None:
    """Make a stock block a sliced one in place, see `narrow_model`.

    Args:
        block: The block.
        model_type: Of the stock model.
        widths: Of the stream in front of it, (behind attention,) and behind it.
        width: Of the stream before slicing.
    """
    family = family_of(model_type)
    norms = (family.attention_norm, family.mlp_norm or family.attention_norm)
    sides = (
        (norms[0], family.attention_reads, family.attention_writes, widths[0], widths[1]),
        (norms[1], family.mlp_reads, family.mlp_writes, widths[-2], widths[-1]),
    )
    for norm, reads, writes, taken, given in sides:
        shifts = _shifts(block.get_submodule(norm))
        for name in reads:
            weight = block.get_parameter(name)
            set_parameter(block, name, weight[..., :taken].clone())
            if shifts and bias_of(block, name) is None:
                block.get_submodule(name.rpartition(".")[0]).bias = nn.Parameter(torch.zeros_like(weight[..., 0]))
        for name in writes:
            set_parameter(block, name, block.get_parameter(name)[..., :given, :].clone())
            bias = bias_of(block, name)
            if bias is not None:
                set_parameter(block, name.replace(".weight", ".bias"), bias[:given].clone())
    for norm in dict.fromkeys(norms):
        _replace(block, norm, width)
    like = next(block.parameters())
    if family.parallel:
        block.shortcut = _shortcut(widths[0], widths[1], like)
    else:
        block.attn_shortcut = _shortcut(widths[0], widths[1], like)
        block.mlp_shortcut = _shortcut(widths[1], widths[2], like)
    block.__class__ = _sliced_block(type(block), model_type)


def bias_of(block: nn.Module, weight: str) -> Tensor | None:
    """The bias that belongs to the parameter `weight` of a block, if there is one."""
    module, _, own = weight.rpartition(".")
    return getattr(block.get_submodule(module), "bias", None) if own == "weight" else None


def set_parameter(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter by one of another shape, and tell its module how wide it is now."""
    path, _, own = name.rpartition(".")
    owner: Any = module.get_submodule(path)
    owner._parameters[own] = nn.Parameter(value, requires_grad=value.is_floating_point())
    if own != "weight":
        return
    if isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = value.shape
    elif isinstance(owner, nn.Embedding):
        owner.embedding_dim = value.shape[1]
    elif hasattr(owner, "hidden_dim"):
        # The router of Mixtral reshapes what it is given by this.
        owner.hidden_dim = value.shape[-1]


_BLOCKS: dict[tuple[type[Any], str], type[Any]] = {}


def _sliced_block(stock: type[Any], model_type: str) -> type[Any]:
    attributes = {"forward": _forward, "sliced_family": FAMILIES[model_type], "__module__": __name__}
    made = _BLOCKS.get((stock, model_type)) or type(_sliced_name(stock.__name__), (stock,), attributes)
    return _BLOCKS.setdefault((stock, model_type), made)


def _forward(self: Any, hidden_states: Tensor, **arguments: Any) -> Any:
    """A block with shortcuts (2401.15024, figure 4)."""
    family: Family = self.sliced_family
    normed = self.get_submodule(family.attention_norm)(hidden_states)
    added = family.attend(self, normed, arguments)
    if family.mlp_norm is None:
        hidden_states = self.shortcut(hidden_states) + added + family.feed(self, normed)
    else:
        hidden_states = self.attn_shortcut(hidden_states) + added
        normed = self.get_submodule(family.mlp_norm)(hidden_states)
        hidden_states = self.mlp_shortcut(hidden_states) + family.feed(self, normed)
    return (hidden_states, None) if family.tuple_output else hidden_states


def _sliced_name(stock: str) -> str:
    return f"Sliced{stock}"


def _shortcut(taken: int, given: int, like: Tensor) -> nn.Linear:
    linear = nn.Linear(taken, given, bias=False, device="meta")
    eye = torch.eye(given, taken, dtype=like.dtype, device=like.device)
    linear.weight = nn.Parameter(eye)
    return linear


def _replace(module: nn.Module, norm: str, width: int) -> None:
    from sparsify.slicegpt.fold import eps_of

    path, _, own = norm.rpartition(".")
    setattr(module.get_submodule(path), own, ScaleFreeNorm(width, eps_of(module.get_submodule(norm))))


def _shifts(norm: Any) -> bool:
    return getattr(norm, "bias", None) is not None


def _blocks_of(model: nn.Module) -> list[nn.Module]:
    from sparsify.blocks import find_structure

    return [model.get_submodule(name) for name in find_structure(model, strict=False).blocks]


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


def _checked(slicing: Any, cuts: int) -> tuple[int, list[int]]:
    fix = "the config.json of a sliced model is damaged; make the variant again"
    if not isinstance(slicing, Mapping) or not {"width", "widths"} <= slicing.keys():
        raise CheckpointError(f"config.json has no slicing with width and widths; {fix}")
    width, widths = slicing["width"], list(slicing["widths"])
    if len(widths) != cuts or not all(isinstance(w, int) and 0 < w <= width for w in widths):
        raise CheckpointError(f"slicing.widths must be {cuts} whole numbers from 1 to {width}; {fix}")
    return int(width), widths
