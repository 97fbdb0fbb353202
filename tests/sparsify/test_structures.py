"""Families of decoders, small and random: streamed block by block, pruned, written and opened again."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsify.blocks import find_structure, linear_weight, load_skeleton, load_tokenizer
from sparsify.calibration import draw_sequences, make_batches
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.masks import load_masks
from sparsify.recipe import Calibration, parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.skeleton import StreamedWeights
from sparsify.stream import BlockStream
from sparsify.variant import VariantInfo

write_random = runpy.run_path(str(Path(__file__).with_name("random_model.py")))["write_random"]
CALIBRATION = {"source": "text", "samples": 8, "seq": 24}
COMMON = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ROPE = {**COMMON, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", ROPE),
    "llama-scaled-rope": (
        "Llama",
        {
            **ROPE,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "mistral": ("Mistral", {**ROPE, "sliding_window": 8}),
    "qwen2": ("Qwen2", ROPE),
    "qwen3": ("Qwen3", {**ROPE, "head_dim": 8}),
    "gemma": ("Gemma", {**ROPE, "head_dim": 8, "pad_token_id": 0}),
    "gemma2": ("Gemma2", {**ROPE, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8, "pad_token_id": 0}),
    "opt": ("OPT", {**COMMON, "ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 24}),
    "mpt": (
        "Mpt",
        {"vocab_size": 320, "d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 64},
    ),
    "mixtral": ("Mixtral", {**ROPE, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
FUSED = {
    "mpt": "attn.Wqkv",
    "mixtral": "block_sparse_moe.experts.3.w2",
    "opt": "fc1",
}


def build(family: str, root: Path, tokenizer_from: Path) -> Path:
    return write_random(*FAMILIES[family], root, tokenizer_from)


@dataclass
class Family:
    name: str
    directory: Path
    variant: Path
    info: VariantInfo


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(
    request: pytest.FixtureRequest, model_dir: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Family:
    root = tmp_path_factory.mktemp(request.param)
    directory = build(request.param, root / "model", model_dir)
    prune = {"prune": {"method": "wanda", "sparsity": 0.6, "calibration": CALIBRATION}}
    options = MakeOptions(store=root / "store", name="v", base="tiny", resolve_corpus=lambda _source: corpus)
    recipe = parse_recipe({"stages": [prune]}, name="test", where="test")
    return Family(request.param, directory, root / "v", make_variant(directory, recipe, root / "v", options=options))


def opened(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(directory), dtype=torch.float32).eval()


def batches(directory: Path, corpus: Path) -> Any:
    settings = Calibration.model_validate(CALIBRATION)
    return make_batches(draw_sequences(corpus, load_tokenizer(directory), settings), batch_tokens=60)


@torch.no_grad()
def test_streamed_blocks_say_what_the_whole_model_says(family: Family, corpus: Path) -> None:
    """One block in memory at a time, in several batches with padding, against the model as transformers runs it."""
    skeleton = load_skeleton(family.directory)
    structure = find_structure(skeleton)
    weights = StreamedWeights(skeleton, open_checkpoint(family.directory))
    stream = BlockStream(skeleton, structure, batches(family.directory, corpus), weights=weights)
    assert len(stream.hidden) > 1 and not all(bool(batch.real.all()) for batch in batches(family.directory, corpus))
    for index in range(len(structure.blocks)):
        loaded = [p.numel() for p in skeleton.parameters() if p.device.type != "meta"]
        assert not loaded, "nothing is in memory between blocks"
        stream.load(index)
        present = {name for name, p in skeleton.named_parameters() if p.device.type != "meta"}
        assert present and all(name.startswith(structure.blocks[index] + ".") for name in present)
        stream.advance(index)
    whole = opened(family.directory)
    for batch, logits in stream.logits():
        expected = whole(batch.ids, use_cache=False).logits
        assert torch.allclose(logits[batch.real], expected[batch.real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_variant_opens_and_says_what_the_pruned_model_in_memory_says(family: Family) -> None:
    in_memory, masks = opened(family.directory), load_masks(family.variant)
    structure = find_structure(in_memory)
    assert {f"{name}.weight" for name in structure.all_linears} == set(masks)
    for name in structure.all_linears:
        linear_weight(in_memory, name).masked_fill_(~masks[f"{name}.weight"], 0.0)
    ids = torch.arange(40).reshape(2, 20)
    ours, theirs = opened(family.variant)(ids).logits, in_memory(ids).logits
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, opened(family.directory)(ids).logits)


def test_sparsity_is_exact_and_nothing_else_changed(family: Family) -> None:
    before, after, masks = (
        open_checkpoint(family.directory),
        open_checkpoint(family.variant),
        load_masks(family.variant),
    )
    assert before.tensors.keys() == after.tensors.keys()
    for name in before.tensors:
        old, new = before.read(name), after.read(name)
        if name not in masks:
            assert torch.equal(old, new), name
            continue
        assert torch.equal(new == 0, ~masks[name])
        assert bool(((~masks[name]).sum(1) - 0.6 * old.shape[1]).abs().max() < 1), "Wanda compares within a row"
        assert not bool(torch.signbit(new[new == 0]).any())
        assert torch.equal(new, torch.where(masks[name], old, torch.zeros_like(old)))
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    assert pruned == round(0.6 * sum(mask.numel() for mask in masks.values()))
    inner = FUSED.get(family.name, "mlp.down_proj")
    assert any(name.endswith(inner + ".weight") for name in masks)
    assert not any(part in name for name in masks for part in ("head", "embed", "wte", "project"))
    assert family.info.masks is not None and family.info.masks.revived == 0


@torch.no_grad()
def test_grams_are_those_of_the_whole_model(family: Family, corpus: Path) -> None:
    """Against float64 sums over the inputs that the linears of the whole model see, sequence by sequence."""
    if family.name == "mixtral":
        pytest.skip("test_experts_see_the_tokens_routed_to_them")
    skeleton = load_skeleton(family.directory)
    structure = find_structure(skeleton)
    weights = StreamedWeights(skeleton, open_checkpoint(family.directory))
    text = batches(family.directory, corpus)
    stream = BlockStream(skeleton, structure, text, weights=weights)
    stream.advance(0)
    grams = stream.grams(1)
    whole, sums = opened(family.directory), {}

    def record(name: str) -> Callable[..., None]:
        def hook(_module: object, args: tuple[Tensor, ...]) -> None:
            rows = args[0].reshape(-1, args[0].shape[-1]).double()
            sums[name] = sums.get(name, 0) + rows.T @ rows

        return hook

    for name in structure.linears[1]:
        whole.get_submodule(name).register_forward_pre_hook(record(name.removeprefix(structure.blocks[1] + ".")))
    tokens = 0
    for batch in text:
        for ids, real in zip(batch.ids, batch.real, strict=True):
            whole(ids[real][None], use_cache=False)
            tokens += int(real.sum())
    assert grams.keys() == sums.keys()
    for name, gram in grams.items():
        assert gram.tokens == tokens and gram.total is not None
        assert torch.allclose(gram.total.double(), sums[name], rtol=1e-4, atol=1e-4 * float(sums[name].abs().max()))
    shared = {len({id(grams[name]) for name in grams if name.endswith(f"{part}_proj")}) for part in ("q", "k", "v")}
    assert shared <= {0, 1}
    if "self_attn.q_proj" in grams:
        assert grams["self_attn.q_proj"] is grams["self_attn.k_proj"] is grams["self_attn.v_proj"]
    if "mlp.gate_proj" in grams:
        assert grams["mlp.gate_proj"] is grams["mlp.up_proj"]
    order = stream.groups(1)
    assert sorted(name for names in order for name in names) == sorted(grams)


@torch.no_grad()
def test_experts_see_the_tokens_routed_to_them(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    """Token by token in float64 from the router's own choice, for both inputs of every expert."""
    directory = build("mixtral", tmp_path / "model", model_dir)
    skeleton = load_skeleton(directory)
    structure = find_structure(skeleton)
    text = batches(directory, corpus)
    stream = BlockStream(skeleton, structure, text, weights=StreamedWeights(skeleton, open_checkpoint(directory)))
    grams = stream.grams(0)
    whole = opened(directory)
    experts = whole.get_submodule("model.layers.0.mlp.experts")
    seen: list[tuple[Tensor, Tensor]] = []
    experts.register_forward_pre_hook(lambda _module, args: seen.append((args[0], args[1])))
    for batch in text:
        for ids, real in zip(batch.ids, batch.real, strict=True):
            whole(ids[real][None], use_cache=False)
    stored = open_checkpoint(directory)
    tokens = sum(len(chosen) for _, chosen in seen)
    assert sum(grams[f"block_sparse_moe.experts.{e}.w1"].tokens for e in range(4)) == 2 * tokens
    for expert in range(4):
        prefix = f"block_sparse_moe.experts.{expert}"
        w1, w3 = (stored.read(f"model.layers.0.{prefix}.{part}.weight").double() for part in ("w1", "w3"))
        outer, inner = torch.zeros(32, 32).double(), torch.zeros(48, 48).double()
        for hidden, chosen in seen:
            for row, picked in zip(hidden.double(), chosen.tolist(), strict=True):
                if expert in picked:
                    middle = torch.nn.functional.silu(w1 @ row) * (w3 @ row)
                    outer += torch.outer(row, row)
                    inner += torch.outer(middle, middle)
        assert grams[f"{prefix}.w1"] is grams[f"{prefix}.w3"]
        for name, expected in (("w1", outer), ("w2", inner)):
            total = grams[f"{prefix}.{name}"].total
            assert total is not None
            assert torch.allclose(total.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    kinds = [names[0].rsplit(".", 1)[-1] for names in stream.groups(0)]
    assert kinds == ["q_proj", "o_proj", "w1", "w2"]


def test_starved_experts_are_damped_more_or_pruned_by_magnitude(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    """Two sequences are few tokens for four experts."""
    from safetensors.torch import load_file, save_file

    directory = build("mixtral", tmp_path / "model", model_dir)
    tensors = load_file(directory / "model.safetensors")
    gate = tensors["model.layers.0.block_sparse_moe.gate.weight"]
    gate[1], gate[2] = gate[0] + 0.01 * gate[1], gate[0] + 0.01 * gate[2]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    stage = {"method": "sparsegpt", "sparsity": 0.5, "block_size": 16, "calibration": {**CALIBRATION, "samples": 2}}
    options = MakeOptions(store=tmp_path / "store", name="v", base="tiny", resolve_corpus=lambda _source: corpus)
    recipe = parse_recipe({"stages": [{"prune": stage}]}, name="test", where="test")
    info = make_variant(directory, recipe, tmp_path / "v", options=options)
    rows = info.stages[0]["linears"]
    experts = {name: row for name, row in rows.items() if ".experts." in name}
    events = {(event.where, event.kind): event.detail for event in info.events}
    unused = [name for name, row in experts.items() if not row["tokens"]]
    starved = [name for name, row in experts.items() if 0 < row["tokens"] < (48 if name.endswith("w2") else 32)]
    assert starved
    for name in starved:
        columns = 48 if name.endswith("w2") else 32
        tokens = experts[name]["tokens"]
        assert experts[name]["damping"] == pytest.approx(min(1.0, 0.01 * columns / tokens), rel=1e-6)
        assert f"{tokens:.0f} tokens for {columns} inputs; damping" in events[name, "few_tokens"]
    for name in unused:
        assert "pruned by magnitude" in events[name, "expert_unused"] and "damping" not in experts[name]
    masks = load_masks(tmp_path / "v")
    assert all(int((~masks[f"{name}.weight"]).sum()) == 32 * 48 // 2 for name in experts)


def test_an_expert_without_tokens_is_pruned_by_magnitude() -> None:
    from sparsify.gram import Gram
    from sparsify.prune.problem import Budget
    from sparsify.prune.solve import Inputs, solve

    stage = (
        parse_recipe(
            {"stages": [{"prune": {"method": "admm", "sparsity": 0.5, "refine": True, "calibration": CALIBRATION}}]},
            name="t",
            where="t",
        )
        .stages[0]
        .prune
    )
    assert stage is not None
    inputs = Inputs.of(Gram(), "experts.0.w1", stage, expert=True)
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    solution = solve(stage, weight, inputs, Budget(0.5), None)
    assert [note.kind for note in solution.notes] == ["expert_unused"]
    assert int((~solution.mask).sum()) == 24
    assert float(weight[solution.mask].abs().min()) >= float(weight[~solution.mask].abs().max())
    with pytest.raises(NumericsError, match="mlp.up_proj saw no tokens"):
        Inputs.of(Gram(), "mlp.up_proj", stage, expert=False)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        (
            "GPT2",
            {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 320},
            r"transformer.h.0.attn.c_attn \(Conv1D\)",
        ),
        (
            "Qwen2Moe",
            {**ROPE, "num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
            r"model.layers.0.mlp.experts \(Qwen2MoeExperts\) holds the weights of many experts",
        ),
    ],
)
def test_what_is_not_supported_is_named(
    name: str, settings: dict[str, Any], said: str, model_dir: Path, tmp_path: Path
) -> None:
    import transformers

    config = getattr(transformers, f"{name}Config")(**settings)
    getattr(transformers, f"{name}ForCausalLM" if name != "GPT2" else "GPT2LMHeadModel")(config).save_pretrained(
        tmp_path / "model"
    )
    recipe = parse_recipe({"stages": [{"prune": {"method": "magnitude", "sparsity": 0.5}}]}, name="t", where="t")
    with pytest.raises(SparsifyError, match=said):
        make_variant(
            tmp_path / "model", recipe, tmp_path / "v", options=MakeOptions(tmp_path / "store", name="v", base="t")
        )


def test_missing_and_misshapen_tensors_are_named(model_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(model_dir, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    name = "model.layers.1.input_layernorm.weight"
    skeleton = load_skeleton(copy)
    save_file({n: t for n, t in tensors.items() if n != name}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"stores no {name} \(1 missing\)"):
        StreamedWeights(skeleton, open_checkpoint(copy))
    save_file({**tensors, name: tensors[name][:8].clone()}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"stores {name} of shape \[8\] for .*config.json against the weights"):
        StreamedWeights(load_skeleton(copy), open_checkpoint(copy))
