"""SliceGPT: the function is kept where nothing is cut, sizes are the published ones, and the result is a real model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsify.blocks import find_structure
from sparsify.slicegpt.block import fold_block
from sparsify.slicegpt.families import FAMILIES
from sparsify.slicegpt.fold import centre_rows, fold_reader, parts_of_norm
from sparsify.slicegpt.model import bias_of, set_parameter, sliced_classes
from sparsify.slicegpt.pca import random_orthogonal

COMMON = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ROPE = {**COMMON, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**ROPE, "rms_norm_eps": 1e-3},
    "mistral": {**ROPE, "sliding_window": 8},
    "qwen2": ROPE,
    "qwen3": {**ROPE, "head_dim": 8},
    "gemma": {**ROPE, "head_dim": 8, "pad_token_id": 0},
    "phi3": {**ROPE, "pad_token_id": 0},
    "phi": {**ROPE, "partial_rotary_factor": 0.5},
    "mixtral": {**ROPE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "opt": {**COMMON, "ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 32},
    "mpt": {"vocab_size": 320, "d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 4, "max_seq_len": 64},
}


class ExactNorm(nn.Module):
    """A stock RMS norm in float64 throughout: transformers' own falls back to float32."""

    def __init__(self, stock: Any, offset: float) -> None:
        super().__init__()
        parts = parts_of_norm(stock, offset)
        self.scale, self.eps = parts.scale, parts.eps

    def forward(self, hidden: Tensor) -> Tensor:
        return self.scale * hidden / (hidden.square().mean(-1, keepdim=True) + self.eps).sqrt()


def stock_model(model_type: str, seed: int = 0) -> Any:
    """A random float64 model whose norms have scales and shifts, and biases that are not 0."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **CONFIGS[model_type], initializer_range=0.2)
    # Grouped products of experts know no float64.
    how = {"experts_implementation": "eager"} if model_type == "mixtral" else {}
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float64, **how).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def rotated(model: Any, model_type: str, kept: int | None = None) -> Any:
    """The sliced class with random bases, its tensors from the pure functions alone."""
    family = FAMILIES[model_type]
    structure = find_structure(model, strict=False)
    width = model.get_input_embeddings().weight.shape[1]
    cuts = len(structure.blocks) * family.cuts + 1
    bases = [random_orthogonal(width, cut)[:, : kept or width] for cut in range(cuts - 1)]
    bases.append(torch.eye(width, dtype=torch.float64))
    config_class, model_class = sliced_classes(model_type)
    slicing = {"width": width, "widths": [basis.shape[1] for basis in bases]}
    config = config_class(**{**model.config.to_dict(), "tie_word_embeddings": False, "slicing": slicing})
    sliced = model_class(config).double().eval()
    with torch.no_grad():
        norm = parts_of_norm(model.get_submodule(family.final_norm), family.scale_offset)
        for index, name in enumerate(structure.blocks):
            here = bases[index * family.cuts : (index + 1) * family.cuts + 1]
            given = here[-1]
            between = given if family.parallel else here[1]
            tensors = fold_block(model.get_submodule(name), family).sliced(here[0], between, given)
            load(sliced.get_submodule(name), tensors)
        for name in (structure.embedding, *family.positions):
            rows = model.get_submodule(name).weight
            load(sliced.get_submodule(name), {"weight": (centre_rows(rows) if norm.centred else rows) @ bases[0]})
        head = model.get_output_embeddings()
        weight, bias = fold_reader(head.weight, bias_of(head, "weight"), norm)
        load(sliced.get_output_embeddings(), {"weight": weight, **({} if bias is None else {"bias": bias})})
    return sliced


def load(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Every parameter of a module, no more and no fewer, each of its own shape."""
    own = dict(module.named_parameters())
    assert own.keys() == tensors.keys()
    for name, value in tensors.items():
        assert own[name].shape == value.shape, name
        set_parameter(module, name, value)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_rotating_without_slicing_keeps_the_function(model_type: str) -> None:
    model = stock_model(model_type)
    sliced = rotated(model, model_type)
    # What rotates is compared in float64: stock RMS norms compute in float32.
    family = FAMILIES[model_type]
    names = [
        family.final_norm,
        *(
            f"{block}.{norm}"
            for block in find_structure(model, strict=False).blocks
            for norm in (family.attention_norm, family.mlp_norm)
            if norm
        ),
    ]
    for name in names:
        if not isinstance(model.get_submodule(name), nn.LayerNorm):
            path, _, own = name.rpartition(".")
            setattr(model.get_submodule(path), own, ExactNorm(model.get_submodule(name), family.scale_offset))
    ids = torch.randint(1, 320, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(input_ids=ids).logits, sliced(input_ids=ids).logits
    assert expected.std() > 0.1
    assert float((expected - found).abs().max()) < 1e-6
