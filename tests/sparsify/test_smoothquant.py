"""SmoothQuant: where factors can be folded is found by running the block, and folding them changes no function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsify.blocks import find_structure
from sparsify.quantize.folds import Fold, find_folds
from sparsify.quantize.recorded import RecordedCall
from sparsify.quantize.smooth import Smoothed, divide_norm, norm_offset, smooth_block, smoothing_factors

SHAPE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"max_position_embeddings": 64}
GATED = {**SHAPE, "intermediate_size": 48, "num_key_value_heads": 2}
IDS = torch.arange(60).reshape(3, 20) % 97


def build(name: str) -> nn.Module:
    import transformers as t

    configs: dict[str, Callable[[], Any]] = {
        "llama": lambda: t.LlamaConfig(**GATED),
        "gemma": lambda: t.GemmaConfig(**{**GATED, "num_key_value_heads": 1, "head_dim": 8}),
        "gemma2": lambda: t.Gemma2Config(**GATED, head_dim=8),
        "qwen2": lambda: t.Qwen2Config(**GATED),
        "qwen3": lambda: t.Qwen3Config(**GATED, head_dim=16),
        "mixtral": lambda: t.MixtralConfig(**GATED, num_local_experts=3),
        "opt": lambda: t.OPTConfig(**SHAPE, ffn_dim=48, word_embed_proj_dim=32),
        "mpt": lambda: t.MptConfig(vocab_size=97, d_model=32, n_heads=4, n_layers=2, max_seq_len=64),
    }
    torch.manual_seed(0)
    model: nn.Module = t.AutoModelForCausalLM.from_config(configs[name]()).eval().requires_grad_(False)
    for path, parameter in model.named_parameters():
        # Norm weights and biases are random too: at their initial 1 and 0 a wrong fold would go unnoticed.
        around = 1.0 if parameter.ndim == 1 and "norm" in path and not path.endswith("bias") else 0.0
        around = 0.0 if name.startswith("gemma") else around
        parameter.data.copy_(around + 0.2 * torch.randn_like(parameter))
    return model


def watch(block: nn.Module) -> tuple[dict[str, Tensor], list[Any]]:
    """The largest magnitude of each input channel by linear, once the block has run, and the hooks that see to it."""
    absmax: dict[str, Tensor] = {}

    def see(name: str) -> Callable[..., None]:
        return lambda _module, args: absmax.update({name: args[0].flatten(0, -2).abs().amax(0)})

    linears = [(name, module) for name, module in block.named_modules() if isinstance(module, nn.Linear)]
    return absmax, [module.register_forward_pre_hook(see(name)) for name, module in linears]


def smooth_model(model: nn.Module, alpha: float = 0.5, frozen: tuple[str, ...] = ()) -> list[Smoothed]:
    """Smooth every block on what it is given."""
    done = []
    for name in find_structure(model).blocks:
        block = model.get_submodule(name)
        absmax, hooks = watch(block)
        with RecordedCall(block) as call, torch.no_grad():
            model(IDS, use_cache=False)
        for hook in hooks:
            hook.remove()
        folds = find_folds(block, call.replay)
        done.append(smooth_block(block, call.replay, folds, absmax, alpha=alpha, frozen=frozen))
    return done


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(IDS).logits
    return out


LINEARS = {
    "llama": 7,
    "gemma": 7,
    "gemma2": 7,
    "qwen2": 7,
    "qwen3": 7,
    "mixtral": 4,  # the experts are no linears
    "opt": 6,
    "mpt": 2,  # of a fused qkv only a part feeds the output projection, and GELU is not homogeneous
}


@pytest.mark.parametrize("name", sorted(LINEARS))
def test_smoothing_changes_no_logit(name: str) -> None:
    model = build(name)
    before = logits(model)
    weights = {path: parameter.clone() for path, parameter in model.named_parameters()}
    done = smooth_model(model)
    after = logits(model)
    assert float((after - before).abs().max()) <= 1e-5 * max(1.0, float(before.abs().max()))
    for smoothed in done:
        assert smoothed.notes == () and len(smoothed.factors) == LINEARS[name]
        assert all(float(factors.max() / factors.min()) > 1.2 for factors in smoothed.factors.values())
    changed = [path for path, parameter in model.named_parameters() if not torch.equal(parameter, weights[path])]
    assert len(changed) > 2 * LINEARS[name] - 2, "and yet it is another parametrisation"


def folds_of(model: nn.Module) -> dict[tuple[str, ...], Fold]:
    block = model.get_submodule(find_structure(model).blocks[0])
    with RecordedCall(block) as call, torch.no_grad():
        model(IDS, use_cache=False)
    saved = {name: parameter.clone() for name, parameter in block.named_parameters()}
    folds = find_folds(block, call.replay)
    assert all(torch.equal(parameter, saved[name]) for name, parameter in block.named_parameters()), "bit for bit"
    return {fold.consumers: fold for fold in folds}


def test_grouped_query_attention_repeats_channels() -> None:
    """Four heads of eight, two for keys and values: channel c of the value projection is read by two heads."""
    folds = folds_of(build("llama"))
    output = folds[("self_attn.o_proj",)]
    assert output.source == "self_attn.v_proj"
    heads = torch.arange(16).reshape(2, 8)
    assert torch.equal(output.channels, torch.cat([heads[0], heads[0], heads[1], heads[1]]))
    assert folds[("mlp.down_proj",)].source == "mlp.up_proj", "the gate is behind the activation"
    assert folds[("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")].source == "input_layernorm"
    assert folds[("mlp.gate_proj", "mlp.up_proj")].source == "post_attention_layernorm"


def test_a_relu_lets_factors_through_and_dead_channels_do_not_hide_them() -> None:
    model = build("opt")
    model.get_parameter("model.decoder.layers.0.fc1.bias").data[5] = -1e3
    assert folds_of(model)[("fc2",)].source == "fc1"
    assert torch.equal(folds_of(model)[("fc2",)].channels, torch.arange(48))


@pytest.mark.parametrize(("name", "offset"), [("llama", 0.0), ("gemma", 1.0), ("gemma2", 1.0), ("opt", 0.0)])
def test_the_scale_of_a_norm_is_found_by_trying(name: str, offset: float) -> None:
    model = build(name)
    block = model.get_submodule(find_structure(model).blocks[0])
    norms = [module for path, module in block.named_modules() if "norm" in path]
    assert len(norms) >= 2 and [norm_offset(norm) for norm in norms] == [offset] * len(norms)
    norm, inputs = norms[0], torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    expected, factors = norm(inputs), torch.linspace(0.2, 5.0, 32)
    done = divide_norm(norm, factors)
    assert done is not None
    torch.testing.assert_close(done, factors)
    torch.testing.assert_close(norm(inputs), expected / factors)


def test_a_norm_of_another_kind_is_left_alone() -> None:
    class Squared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(0.5, 2.0, 8), requires_grad=False)

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs / inputs.norm(dim=-1, keepdim=True) * self.weight.square()

    norm, before = Squared(), torch.linspace(0.5, 2.0, 8)
    assert norm_offset(norm) is None and divide_norm(norm, torch.full((8,), 2.0)) is None
    assert torch.equal(norm.weight, before)


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_rounding_the_norm_to_bfloat16_changes_the_factors_and_not_the_function(name: str) -> None:
    model = build(name)
    norm = model.get_submodule("model.layers.0.input_layernorm")
    weight = norm.get_parameter("weight")
    weight.data.copy_(weight.to(torch.bfloat16))
    inputs, wanted = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)), torch.linspace(0.2, 60.0, 32)
    expected = norm(inputs)
    done = divide_norm(norm, wanted, {"weight": torch.bfloat16})
    assert done is not None and torch.equal(weight, weight.to(torch.bfloat16).float())
    torch.testing.assert_close(norm(inputs) * done, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(done, wanted, rtol=1e-4)
    assert bool((done > 0).all()) and float((done / wanted).log().abs().median()) < 0.1


class Residual(nn.Module):
    """A block whose second norm is read by a residual sum as well as by linears."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.a, self.b, self.c = nn.Linear(16, 16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.requires_grad_(False)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.a(self.first(hidden))
        normed = self.second(hidden)
        return normed + self.c(torch.relu(self.b(normed)))


def test_a_fold_that_something_else_reads_is_undone() -> None:
    block, inputs = Residual(), 3 * torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    saved = {name: parameter.clone() for name, parameter in block.named_parameters()}
    before, absmax = block(inputs), {name: torch.rand(width) * 9 for name, width in (("a", 16), ("b", 16), ("c", 24))}
    folds = find_folds(block, lambda: block(inputs))
    assert {(fold.source, fold.consumers) for fold in folds} == {("first", ("a",)), ("second", ("b",)), ("b", ("c",))}
    done = smooth_block(block, lambda: block(inputs), folds, absmax, alpha=0.5)
    torch.testing.assert_close(block(inputs), before, rtol=1e-4, atol=1e-5)
    assert sorted(done.factors) == ["a", "c"]
    [(where, note)] = done.notes
    assert where == "second" and note.detail == "something else reads its output too; b not smoothed"
    assert torch.equal(block.second.weight, saved["second.weight"])
    assert not torch.equal(block.first.weight, saved["first.weight"])


def test_all_consumers_or_none() -> None:
    """A linear that is to be left as it is takes those that share its input along."""
    model = build("llama")
    kept = model.get_parameter("model.layers.0.self_attn.k_proj.weight").clone()
    done = smooth_model(model, frozen=("self_attn.k_proj",))[0]
    assert sorted(done.factors) == ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.o_proj"]
    assert torch.equal(model.get_parameter("model.layers.0.self_attn.k_proj.weight"), kept)
    assert [(where, note.kind) for where, note in done.notes] == [("input_layernorm", "smooth_left_out")]


def test_factors_by_hand() -> None:
    inputs, weights = torch.tensor([4.0, 1e-12, 0.0, 9.0, 2.0]), torch.tensor([1.0, 1.0, 2.0, 0.0, 8.0])
    found = smoothing_factors(inputs, weights, 0.5)
    torch.testing.assert_close(found, torch.tensor([2.0, 1e-5**0.5, 1.0, 1.0, 0.5]))
    torch.testing.assert_close(smoothing_factors(inputs[:1], weights[-1:], 0.75), torch.tensor([4**0.75 / 8**0.25]))
    assert float(smoothing_factors(torch.tensor([1e-9]), torch.tensor([1e9]), 0.9)) == pytest.approx(1e-5)


def test_smoothing_makes_inputs_even_and_keeps_zeros() -> None:
    model = build("llama")
    mask = torch.rand(48, 32, generator=torch.Generator().manual_seed(0)) < 0.5
    weight = model.get_parameter("model.layers.0.mlp.up_proj.weight")
    weight.data.mul_(mask)
    model.get_parameter("model.layers.0.post_attention_layernorm.weight").data[3] = 60.0
    seen: list[Tensor] = []
    hook = model.get_submodule("model.layers.0.mlp.up_proj").register_forward_pre_hook(lambda _m, a: seen.append(a[0]))
    logits(model)
    smooth_model(model)
    logits(model)
    hook.remove()
    before, after = (float(x.abs().max() / x.abs().flatten(0, -2).amax(0).median()) for x in (seen[0], seen[-1]))
    assert after < 0.5 * before
    assert bool(((weight != 0) == mask).all())
