"""SliceGPT: the function is kept where nothing is cut, sizes are the published ones, widths lose the least energy."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsify.blocks import find_structure
from sparsify.errors import NumericsError
from sparsify.slicegpt.bases import Bases
from sparsify.slicegpt.block import fold_block
from sparsify.slicegpt.families import FAMILIES
from sparsify.slicegpt.fold import centre_rows, fold_reader, parts_of_norm
from sparsify.slicegpt.model import bias_of, set_parameter, sliced_classes
from sparsify.slicegpt.pca import Covariance, principal_components, random_orthogonal
from sparsify.slicegpt.shared import shared_config, stock_tensors
from sparsify.slicegpt.sizes import sliced_width, uniform_widths, widths_by_mass

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


def bases_of(model: Any, model_type: str, kept: int) -> list[Tensor]:
    """A random basis for every cut; the last leaves the stream as it is."""
    width = model.get_input_embeddings().weight.shape[1]
    cuts = len(find_structure(model, strict=False).blocks) * FAMILIES[model_type].cuts
    return [random_orthogonal(width, cut)[:, :kept] for cut in range(cuts)] + [torch.eye(width, dtype=torch.float64)]


def rotated(model: Any, model_type: str, bases: list[Tensor]) -> Any:
    """The sliced class in these bases, its tensors from the pure functions alone."""
    family = FAMILIES[model_type]
    structure = find_structure(model, strict=False)
    config_class, model_class = sliced_classes(model_type)
    slicing = {"width": len(bases[0]), "widths": [basis.shape[1] for basis in bases]}
    config = config_class(**{**model.config.to_dict(), "tie_word_embeddings": False, "slicing": slicing})
    sliced = model_class(config).double().eval()
    with torch.no_grad():
        norm = parts_of_norm(model.get_submodule(family.final_norm), family.scale_offset)
        for index, name in enumerate(structure.blocks):
            here = bases[index * family.cuts : (index + 1) * family.cuts + 1]
            between = None if family.parallel else here[1]
            tensors = fold_block(model.get_submodule(name), family).sliced(here[0], between, here[-1])
            load(sliced.get_submodule(name), tensors)
        for name in (structure.embedding, *family.positions):
            rows = model.get_submodule(name).weight
            load(sliced.get_submodule(name), {"weight": (centre_rows(rows) if norm.centred else rows) @ bases[0]})
        head = model.get_output_embeddings()
        weight, bias = fold_reader(head.weight, bias_of(head, "weight"), norm)
        parts = {"weight": weight @ bases[-1], **({} if bias is None else {"bias": bias})}
        load(sliced.get_output_embeddings(), parts)
    return sliced


def load(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Every parameter of a module, no more and no fewer, each of its own shape."""
    own = dict(module.named_parameters())
    assert own.keys() == tensors.keys()
    for name, value in tensors.items():
        assert own[name].shape == value.shape, name
        set_parameter(module, name, value)


def with_exact_norms(model: Any, model_type: str) -> Any:
    """The stock model, its RMS norms in float64 throughout."""
    family = FAMILIES[model_type]
    norms = [n for n in (family.attention_norm, family.mlp_norm) if n]
    blocks = find_structure(model, strict=False).blocks
    for name in (family.final_norm, *(f"{block}.{norm}" for block in blocks for norm in norms)):
        if not isinstance(model.get_submodule(name), nn.LayerNorm):
            path, _, own = name.rpartition(".")
            setattr(model.get_submodule(path), own, ExactNorm(model.get_submodule(name), family.scale_offset))
    return model


IDS = torch.randint(1, 320, (3, 20), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model_type", CONFIGS)
@torch.no_grad()
def test_rotating_without_slicing_keeps_the_function(model_type: str) -> None:
    model = stock_model(model_type)
    sliced = rotated(model, model_type, bases_of(model, model_type, 32))
    expected = with_exact_norms(model, model_type)(input_ids=IDS).logits
    assert expected.std() > 0.1
    assert float((expected - sliced(input_ids=IDS).logits).abs().max()) < 1e-6


@torch.no_grad()
def test_a_sliced_model_is_the_dense_one_with_its_stream_projected_at_every_cut() -> None:
    """An independent view of the method: cutting columns in a basis is projecting on what is left of it."""
    model = stock_model("llama")
    bases = bases_of(model, "llama", 20)
    found = rotated(model, "llama", bases)(input_ids=IDS).logits
    with_exact_norms(model, "llama")
    stream = model.model.embed_tokens(IDS)
    positions = model.model.rotary_emb(stream, torch.arange(IDS.shape[1])[None])
    cuts = iter(bases)
    for layer in model.model.layers:
        basis = next(cuts)
        stream = stream @ basis @ basis.T
        arguments = {"position_embeddings": positions, "attention_mask": None}
        stream = stream + layer.self_attn(hidden_states=layer.input_layernorm(stream), **arguments)[0]
        basis = next(cuts)
        stream = stream @ basis @ basis.T
        stream = stream + layer.mlp(layer.post_attention_layernorm(stream))
    expected = model.lm_head(model.model.norm(stream))
    assert float((expected - found).abs().max()) < 1e-9


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.stock_width])
@torch.no_grad()
def test_one_basis_for_all_blocks_is_a_stock_model_that_says_the_same(model_type: str) -> None:
    """`basis: shared`: the stock class of a smaller width against the sliced class with that basis at every cut."""
    model = stock_model(model_type)
    basis = random_orthogonal(32, 7)[:, :20]
    cuts = 2 * len(model.model.layers) + 1
    expected = rotated(model, model_type, [basis] * cuts)(input_ids=IDS).logits
    family = FAMILIES[model_type]
    config = type(model.config)(**shared_config(model.config.to_dict(), model.config, 32, 20))
    stock = type(model)(config).double().eval()
    assert config.hidden_size == 20 and config.head_dim == 8
    for layer, made in zip(model.model.layers, stock.model.layers, strict=True):
        load(made, stock_tensors(fold_block(layer, family), basis, family, 32))
    load(stock.model.embed_tokens, {"weight": model.model.embed_tokens.weight @ basis})
    norm = parts_of_norm(model.model.norm, 0.0)
    load(stock.lm_head, {"weight": (32 / 20) ** 0.5 * fold_reader(model.lm_head.weight, None, norm)[0] @ basis})
    load(stock.model.norm, {"weight": torch.ones(20, dtype=torch.float64)})
    found = with_exact_norms(stock, model_type)(input_ids=IDS).logits
    # Qwen3 also norms its heads with the eps that was changed.
    assert float((expected - found).abs().max()) < (1e-4 if model_type == "qwen3" else 1e-9)


@pytest.mark.parametrize("model_type", ["llama", "opt", "phi"])
@torch.no_grad()
def test_bases_turn_a_teachers_states_into_the_students(model_type: str) -> None:
    """Without a loss of columns student and teacher have the same states, in other bases and behind another norm."""
    model = stock_model(model_type)
    bases = bases_of(model, model_type, 32)
    sliced = rotated(model, model_type, bases)
    states = with_exact_norms(model, model_type)(input_ids=IDS, output_hidden_states=True).hidden_states[1:]
    family = FAMILIES[model_type]
    norm = model.get_submodule(family.final_norm)
    kept = Bases(
        blocks=[basis.float() for basis in bases[family.cuts :: family.cuts]],
        centred=isinstance(norm, nn.LayerNorm),
        scale=(norm.scale if isinstance(norm, ExactNorm) else norm.weight).float(),
        shift=None if getattr(norm, "bias", None) is None else norm.bias.float(),
    )
    found = sliced(input_ids=IDS, output_hidden_states=True).hidden_states[1:]
    expected = kept.rotated(states)
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.float(), theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "shape", "count"),
    [
        (
            "opt",
            {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072},
            147_250_880,
        ),
        (
            "phi",
            {
                **{"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32},
                **{"intermediate_size": 10240, "vocab_size": 51200},
            },
            2_391_772_160,
        ),
    ],
)
def test_parameters_at_20_percent_are_those_that_the_reference_publishes(
    model_type: str, shape: dict[str, int], count: int
) -> None:
    """Its tests (microsoft/TransformerCompression, tests/) state these for OPT-125m and Phi-2."""
    from sparsify.skeleton import parameters_on_meta

    config_class, model_class = sliced_classes(model_type)
    cuts = shape["num_hidden_layers"] * FAMILIES[model_type].cuts + 1
    width = shape["hidden_size"]
    widths = uniform_widths(width, cuts, 0.2, 8, slice_head=False)
    config = config_class(**shape, tie_word_embeddings=False, slicing={"width": width, "widths": widths})
    with parameters_on_meta():
        model = model_class(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


# Principal components and widths


def test_principal_components_are_the_singular_vectors_of_the_signals_without_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(4, 30, 6, generator=generator, dtype=torch.float64) @ torch.diag(
        torch.arange(6, 0, -1.0).double()
    )
    real = torch.ones(4, 30, dtype=torch.bool)
    real[1, 20:] = real[3, 5:] = False
    moments = Covariance()
    moments.add(signals[:2].masked_fill(~real[:2, :, None], 1e6), real[:2])
    moments.add(signals[2:].masked_fill(~real[2:, :, None], float("nan")), real[2:])
    vectors, values = moments.basis("here", 0.01)
    _, singular, expected = torch.linalg.svd(signals[real], full_matrices=False)
    assert moments.tokens == int(real.sum()) == 85
    assert torch.allclose(values, singular.square(), rtol=1e-9)
    assert torch.allclose((vectors * expected.T).sum(0).abs(), torch.ones(6).double(), atol=1e-9)
    assert bool((vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) > 0).all())


def test_a_random_turn_is_orthogonal_and_repeats() -> None:
    turn = random_orthogonal(17, 3)
    assert torch.allclose(turn.T @ turn, torch.eye(17, dtype=torch.float64), atol=1e-12)
    assert torch.equal(turn, random_orthogonal(17, 3)) and not torch.equal(turn, random_orthogonal(17, 4))


def test_values_that_are_not_finite_are_named() -> None:
    with pytest.raises(NumericsError, match=r"block 3 saw non-finite values.*overflows on this text"):
        principal_components(torch.full((2, 2), float("nan")).double(), "block 3", 0.01)


@pytest.mark.parametrize(
    ("width", "fraction", "round_to", "left"),
    [(768, 0.2, 8, 608), (4096, 0.25, 8, 3072), (192, 0.3, 8, 128), (10, 0.05, 1, 9)],
)
def test_widths_are_rounded_down(width: int, fraction: float, round_to: int, left: int) -> None:
    assert sliced_width(width, fraction, round_to) == left
    assert uniform_widths(width, 3, fraction, round_to, slice_head=False) == [left, left, width]
    assert uniform_widths(width, 3, fraction, round_to, slice_head=True) == [left, left, left]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10_000), st.sampled_from([0.1, 0.25, 0.5]))
def test_widths_by_mass_lose_the_least_energy_of_all_widths(cuts: int, seed: int, fraction: float) -> None:
    """Against every other choice of as many columns."""
    generator = torch.Generator().manual_seed(seed)
    spectra = [torch.rand(16, generator=generator).double().sort(descending=True).values for _ in range(cuts)]
    widths = widths_by_mass(spectra, fraction, 4, slice_head=True)
    even = sliced_width(16, fraction, 4)
    assert sum(widths) == cuts * even and all(width % 4 == 0 and width >= even // 2 // 4 * 4 for width in widths)

    def lost(choice: tuple[int, ...]) -> float:
        return sum(float(s[w:].sum() / s.sum()) for s, w in zip(spectra, choice, strict=True))

    least = max(1, int(0.5 * even) // 4) * 4
    choices = [c for c in itertools.product(range(least, 17, 4), repeat=cuts) if sum(c) == cuts * even]
    assert lost(tuple(widths)) <= min(map(lost, choices)) + 1e-12
