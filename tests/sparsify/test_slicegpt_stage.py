"""The slice stage: what it writes is a real model, made as the method says, resumed and refused as any other stage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsify.blocks import find_structure, load_model, load_skeleton, load_tokenizer
from sparsify.calibration import draw_sequences, make_batches
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import CheckpointError, NumericsError, RecipeError, SparsifyError
from sparsify.masks import load_masks
from sparsify.plan import Machine, plan_text
from sparsify.recipe import Calibration, Recipe, parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.slicegpt.bases import read_bases
from sparsify.slicegpt.norm import ScaleFreeNorm
from sparsify.train.lora import target_linears
from sparsify.variant import VariantInfo, read_variant

CALIBRATION = {"source": "text", "samples": 24, "seq": 24}
COMMON = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ROPE = {**COMMON, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**ROPE, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {**ROPE, "sliding_window": 8}),
    "qwen2": ("Qwen2", ROPE),
    "qwen3": ("Qwen3", {**ROPE, "head_dim": 8}),
    "gemma": ("Gemma", {**ROPE, "head_dim": 8, "pad_token_id": 0}),
    "phi": ("Phi", {**ROPE, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", {**ROPE, "pad_token_id": 0}),
    "mixtral": ("Mixtral", {**ROPE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "opt": ("OPT", {**COMMON, "ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 32}),
    "mpt": (
        "Mpt",
        {"vocab_size": 320, "d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 4, "max_seq_len": 64},
    ),
}


def build(family: str, root: Path, tokenizer_from: Path) -> Path:
    import transformers

    name, options = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(root)
    for path in (*tokenizer_from.glob("*token*"), tokenizer_from / "chat_template.jinja"):
        shutil.copy(path, root)
    return root


def recipe(*stages: dict[str, Any], **settings: Any) -> Recipe:
    whole = {"slice": {"fraction": 0.25, "round_to": 4, "calibration": CALIBRATION, **settings}}
    return parse_recipe({"stages": [whole, *stages]}, name="test", where="test")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory, make_corpus: Callable[..., Path]) -> Path:
    return make_corpus(tmp_path_factory.mktemp("text") / "text.jsonl", rows=48)


@pytest.fixture(scope="module")
def sliced(
    model_dir: Path, text: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, VariantInfo]]:
    """Makes a variant of a model, once per recipe."""
    root = tmp_path_factory.mktemp("sliced")

    def make(model: Path, wanted: Recipe, name: str) -> tuple[Path, VariantInfo]:
        options = MakeOptions(store=root / "store", name=name, base="tiny", resolve_corpus=lambda _source: text)
        return root / name, make_variant(model, wanted, root / name, options=options)

    return make


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(
    request: pytest.FixtureRequest,
    model_dir: Path,
    sliced: Callable[..., tuple[Path, VariantInfo]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    directory = build(request.param, tmp_path_factory.mktemp(request.param) / "model", model_dir)
    return directory, sliced(directory, recipe(), request.param)[0]


@torch.no_grad()
def test_the_result_is_a_model_that_generates_batches_and_saves(family: tuple[Path, Path], tmp_path: Path) -> None:
    dense, directory = family
    model: Any = load_model(directory)
    config = json.loads((directory / "config.json").read_text())
    assert type(model).__name__ == config["architectures"][0] and type(model).__name__.startswith("Sliced")
    tokenizer = load_tokenizer(directory)
    ids = tokenizer("the cat sees a big dog and", return_tensors="pt")["input_ids"]
    settings = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": None, "pad_token_id": 0}
    with_cache = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **settings)
    alone = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **settings)
    assert with_cache.shape[1] == ids.shape[1] + 8 and torch.equal(with_cache, alone)
    # Rows of a batch that are padded on the left.
    short = ids[:, 2:]
    batch = torch.cat([ids, torch.nn.functional.pad(short, (2, 0))])
    mask = torch.ones_like(batch)
    mask[1, :2] = 0
    both = model.generate(batch, attention_mask=mask, **settings)
    single = model.generate(short, attention_mask=torch.ones_like(short), **settings)
    assert torch.equal(both[0], with_cache[0]) and torch.equal(both[1, 2:], single[0])
    # Saved by transformers, opened again.
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    stock = load_model(dense)
    assert not torch.allclose(stock(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-2)


def test_the_record_says_what_was_cut_and_who_can_open_it(family: tuple[Path, Path]) -> None:
    _, directory = family
    info = read_variant(directory)
    stats = info.stages[0]
    widths = [cut["width"] for cut in stats["cuts"].values()]
    model = load_skeleton(directory)
    assert widths == model.config.slicing["widths"] and widths[:-1] == [24] * (len(widths) - 1) and widths[-1] == 32
    assert all(0.5 < cut["energy_kept"] <= 1 for cut in stats["cuts"].values())
    assert info.loaders == ["sparsebench"]
    assert stats["parameters_after"] == info.parameters == sum(p.numel() for p in model.parameters())
    stored = open_checkpoint(directory)
    assert stored.config["tie_word_embeddings"] is False
    assert not any("norm" in name and "q_norm" not in name and "k_norm" not in name for name in stored.tensors)


def test_stock_transformers_refuses_a_sliced_model(family: tuple[Path, Path]) -> None:
    """Without being told of the class it must not open it as something else."""
    code = f"from transformers import AutoModelForCausalLM as A; A.from_pretrained({str(family[1])!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "sliced_" in done.stderr


# The algorithm, against a second implementation


def reference(directory: Path, batches: Any, *, norm_output: bool) -> tuple[list[Tensor], Any]:
    """2401.15024, algorithm 1, as projections of the stream of the dense model in float64; bases by SVD."""
    model: Any = load_model(directory).double()
    projections: list[Tensor] = []
    eps = model.config.rms_norm_eps

    def exact(module: Any, hidden: Tensor) -> Tensor:
        return module.weight.double() * hidden / (hidden.square().mean(-1, keepdim=True) + eps).sqrt()

    def project(signals: list[Tensor], kept: int) -> list[Tensor]:
        rows = torch.cat([signal[batch.real] for signal, batch in zip(signals, batches, strict=True)])
        if norm_output:
            rows = rows / (rows.square().mean(-1, keepdim=True) + eps).sqrt()
        basis = torch.linalg.svd(rows, full_matrices=False)[2][:kept].T
        projections.append(basis @ basis.T)
        return [signal @ projections[-1] for signal in signals]

    def run(streams: list[Tensor], cut: Callable[[list[Tensor], int], list[Tensor]]) -> list[Tensor]:
        for layer in model.model.layers:
            streams = cut(streams, 24)
            streams = [
                stream
                + layer.self_attn(
                    hidden_states=exact(layer.input_layernorm, stream),
                    position_embeddings=model.model.rotary_emb(stream, torch.arange(stream.shape[1])[None]),
                    attention_mask=None,
                )[0]
                for stream in streams
            ]
            streams = cut(streams, 24)
            streams = [stream + layer.mlp(exact(layer.post_attention_layernorm, stream)) for stream in streams]
        return [model.lm_head(exact(model.model.norm, stream)) for stream in streams]

    def logits(ids: Tensor) -> Tensor:
        left = iter(projections)
        return run([model.model.embed_tokens(ids)], lambda streams, _kept: [streams[0] @ next(left)])[0]

    run([model.model.embed_tokens(batch.ids) for batch in batches], project)
    return projections, logits


@pytest.mark.parametrize("signals", ["stream", "norm"])
@pytest.mark.parametrize("orientation", ["pca", "random"])
@torch.no_grad()
def test_the_stage_finds_what_a_plain_implementation_finds(
    signals: str,
    orientation: str,
    make_model: Callable[..., Path],
    text: Path,
    sliced: Callable[..., tuple[Path, VariantInfo]],
    tmp_path: Path,
) -> None:
    model = make_model(tmp_path / "model", dtype="float32")
    # Norms with scales, so that forgetting to fold one shows.
    loaded: Any = load_model(model)
    for parameter in loaded.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    loaded.save_pretrained(model)
    wanted = recipe(signals=signals, orientation=orientation)
    directory, _ = sliced(model, wanted, f"plain-{signals}-{orientation}")
    settings = Calibration.model_validate(CALIBRATION)
    batches = make_batches(draw_sequences(text, load_tokenizer(model), settings))
    _, logits = reference(model, batches, norm_output=signals == "norm")
    ours = load_model(directory)
    ids = torch.arange(5, 65).reshape(2, 30)
    expected = logits(ids)
    assert torch.allclose(ours(input_ids=ids).logits.double(), expected, atol=2e-3 * float(expected.std()))


@torch.no_grad()
def test_a_schedule_by_mass_keeps_as_many_columns(
    model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]
) -> None:
    even = sliced(model_dir, recipe(), "even")[1].stages[0]["cuts"].values()
    directory, info = sliced(model_dir, recipe(schedule="mass"), "mass")
    cuts = info.stages[0]["cuts"].values()
    assert sum(cut["width"] for cut in cuts) == sum(cut["width"] for cut in even)
    assert len({cut["width"] for cut in cuts}) > 2
    assert bool(torch.isfinite(load_model(directory)(input_ids=torch.arange(20)[None]).logits).all())


@torch.no_grad()
def test_a_sliced_head(model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]) -> None:
    directory, _ = sliced(model_dir, recipe(slice_head=True), "head")
    model: Any = load_model(directory)
    assert model.lm_head.weight.shape[1] == 24 and isinstance(model.model.norm, ScaleFreeNorm)
    assert bool(torch.isfinite(model(input_ids=torch.arange(20)[None]).logits).all())


@torch.no_grad()
def test_a_shared_basis_gives_a_stock_model(model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]) -> None:
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    directory, info = sliced(model_dir, recipe(basis="shared"), "shared")
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert type(model) is LlamaForCausalLM and model.config.hidden_size == 24
    assert info.loaders == ["transformers", "vllm"]
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    generated = model.generate(torch.arange(8)[None], do_sample=False, max_new_tokens=4)
    assert generated.shape[0] == 1


# What comes after slicing


def test_prune_and_quantize_afterwards(model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]) -> None:
    prune = {"prune": {"method": "sparsegpt", "sparsity": 0.5, "calibration": CALIBRATION}}
    directory, info = sliced(model_dir, recipe(prune, {"quantize": {"scheme": "w8a8"}}), "pruned-int8")
    names = {name.rpartition(".")[2] for name in (mask.removesuffix(".weight") for mask in load_masks(directory))}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert info.masks is not None and info.masks.revived == 0 and info.weight_bits == 8
    stored = open_checkpoint(directory).tensors
    assert stored["model.layers.0.attn_shortcut.weight"].dtype == "I8"
    model = load_model(directory)
    assert bool(torch.isfinite(model(input_ids=torch.arange(20)[None]).logits).all())


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_recovery_with_squarehead_across_the_rotation(
    kind: str, model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]
) -> None:
    tuned = {
        "finetune": {
            **{"data": ["text"], "tokens": 4000, "batch_tokens": 256, "seq": 32, "lr": 0.003, "teacher": "base"},
            "losses": {"ce": 0.0, "squarehead": 1.0},
            **({"lora": {"rank": 4}} if kind == "lora" else {}),
        }
    }
    if kind == "lora":
        pytest.importorskip("peft")
    directory, info = sliced(model_dir, recipe(tuned, keep_bases=True), f"recovered-{kind}")
    model = load_model(directory)
    assert type(model).__name__ == "SlicedLlamaForCausalLM" and info.loaders == ["sparsebench"]
    curves = [json.loads(line) for line in (directory / "curves-2-finetune.jsonl").read_text().splitlines()]
    assert len(curves[0]["squarehead_blocks"]) == 3
    losses = [line["losses"]["squarehead"] for line in curves]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_squarehead_needs_the_bases(model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]) -> None:
    tuned = {"finetune": {"data": ["text"], "tokens": 500, "batch_tokens": 256, "seq": 32, "teacher": "base"}}
    with pytest.raises(SparsifyError, match=r"keeps no bases.safetensors.*keep_bases: true"):
        sliced(model_dir, recipe(tuned), "no-bases")


def test_bases_are_orthonormal_and_as_wide_as_the_cuts(
    model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]
) -> None:
    directory, _ = sliced(model_dir, recipe(keep_bases=True), "bases")
    bases = read_bases(directory)
    assert [tuple(basis.shape) for basis in bases.blocks] == [(32, 24), (32, 24), (32, 32)]
    for basis in bases.blocks:
        assert torch.allclose(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-6)


def test_adapters_leave_shortcuts_alone_unless_asked(
    model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]
) -> None:
    linears = find_structure(load_skeleton(sliced(model_dir, recipe(), "even")[0])).all_linears
    assert sum("shortcut" in name for name in linears) == 6
    assert not any("shortcut" in name for name in target_linears(linears, ()))
    assert len(target_linears(linears, ("attn_shortcut",))) == 3


# Plans, interruptions, bad input


def test_the_plan_counts_what_will_be_left(model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]) -> None:
    for name, settings in (("even", {}), ("shared", {"basis": "shared"}), ("head", {"slice_head": True})):
        info = sliced(model_dir, recipe(**settings), name)[1]
        assert f"about {info.parameters:,} parameters" in plan_text(model_dir, recipe(**settings), Machine())


def test_a_killed_stage_goes_on_to_the_same_bytes(
    model_dir: Path, text: Path, tmp_path: Path, kill_at: Any, in_child: Any
) -> None:
    def make(out: str, progress: Any = None) -> VariantInfo:
        options = MakeOptions(store=tmp_path / f"store-{out}", name="v", base="t", resolve_corpus=lambda _source: text)
        return make_variant(model_dir, recipe(schedule="mass"), tmp_path / out, options=options, progress=progress)

    whole = make("whole")
    for number in (2, 5, 3):
        assert in_child(lambda number=number: make("killed", kill_at(number))) == 9
    info = make("killed")
    assert info.weights_sha256 == whole.weights_sha256
    assert info.stages[0]["used"]["resumed_blocks"] > 0


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1])
def test_a_fraction_that_is_none(fraction: float) -> None:
    with pytest.raises(RecipeError, match=r"fraction must be more than 0 and less than 1, such as 0.25"):
        recipe(fraction=fraction)


def test_a_recipe_that_would_fill_zeros_or_slice_twice() -> None:
    prune = {"prune": {"method": "magnitude", "sparsity": 0.5}}
    cut = {"slice": {"fraction": 0.25, "calibration": CALIBRATION}}
    with pytest.raises(RecipeError, match="move slice before prune"):
        parse_recipe({"stages": [prune, cut]}, name="r", where="r")
    with pytest.raises(RecipeError, match="a model is sliced once"):
        parse_recipe({"stages": [cut, cut]}, name="r", where="r")
    with pytest.raises(RecipeError, match="slice needs calibration"):
        parse_recipe({"stages": [{"slice": {"fraction": 0.25}}]}, name="r", where="r")
    with pytest.raises(RecipeError, match=r"unknown key 'fractoin' in stages\[0\].slice; allowed: basis"):
        parse_recipe({"stages": [{"slice": {"fractoin": 0.25, "calibration": CALIBRATION}}]}, name="r", where="r")


def test_models_that_cannot_be_sliced(
    model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]], tmp_path: Path
) -> None:
    cases = {
        "gemma2": ("Gemma2", {**ROPE, "head_dim": 8}, r"a gemma2 model cannot be sliced: it has norms behind"),
        "opt": (
            "OPT",
            {**COMMON, "ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
            r"norms behind its blocks, projected embeddings.*opt-350m",
        ),
        "gpt_neox": ("GPTNeoX", {**COMMON, "intermediate_size": 48}, r"a gpt_neox model cannot be sliced: it is not"),
    }
    for name, (kind, options, message) in cases.items():
        import transformers

        directory = tmp_path / name
        config = getattr(transformers, f"{kind}Config")(**options)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        for path in model_dir.glob("*token*"):
            shutil.copy(path, directory)
        with pytest.raises(SparsifyError, match=message):
            sliced(directory, recipe(), f"refused-{name}")
    with pytest.raises(SparsifyError, match="the model is sliced already"):
        sliced(sliced(model_dir, recipe(), "even")[0], recipe(), "twice")
    with pytest.raises(
        SparsifyError, match=r"basis: shared needs a model class that takes any width, as those of llama"
    ):
        sliced(build("opt", tmp_path / "opt-built", model_dir), recipe(basis="shared"), "shared-opt")


def test_pruned_and_quantized_parents(model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]) -> None:
    def made(stage: dict[str, Any], name: str) -> Path:
        return sliced(model_dir, parse_recipe({"stages": [stage]}, name=name, where=name), name)[0]

    with pytest.raises(SparsifyError, match="is pruned, and rotating it would fill its zeros; slice first"):
        sliced(made({"prune": {"method": "magnitude", "sparsity": 0.5}}, "pruned"), recipe(), "from-pruned")
    with pytest.raises(SparsifyError, match="is quantized; slice the unquantized model"):
        sliced(made({"quantize": {"scheme": "w8a8"}}, "int8"), recipe(), "from-int8")


def test_too_little_text_and_too_much_cut(model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]) -> None:
    little = {"source": "text", "samples": 1, "seq": 8}
    with pytest.raises(SparsifyError, match=r"8 calibration tokens do not span a stream of width 32; raise"):
        sliced(model_dir, recipe(calibration=little), "little")
    with pytest.raises(SparsifyError, match=r"slicing 0.95 of a width of 32 leaves less than round_to \(4\)"):
        sliced(model_dir, recipe(fraction=0.95), "much")


def test_weights_that_are_not_finite(
    make_model: Callable[..., Path], sliced: Callable[..., tuple[Path, VariantInfo]], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "nan")
    model: Any = load_model(directory)
    model.model.layers[1].mlp.down_proj.weight.data[3, 4] = float("nan")
    model.save_pretrained(directory)
    with pytest.raises(NumericsError, match=r"model.layers.1 cut .* saw non-finite values|model.layers.2 cut 0"):
        sliced(directory, recipe(), "nan")


@pytest.mark.parametrize("widths", [None, [24] * 6, [24] * 6 + [40], [0] * 7])
def test_a_damaged_config(
    widths: Any, model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]], tmp_path: Path
) -> None:
    shutil.copytree(sliced(model_dir, recipe(), "even")[0], tmp_path / "v")
    path = tmp_path / "v" / "config.json"
    config = json.loads(path.read_text())
    config["slicing"] = {"width": 32, "widths": widths} if widths is not None else {}
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"slicing.*damaged; make the variant again"):
        load_model(tmp_path / "v")
    with pytest.raises(CheckpointError, match=r"slicing.*damaged; make the variant again"):
        load_skeleton(tmp_path / "v")


def test_an_unknown_sliced_family(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "sliced_unheard"}')
    with pytest.raises(SparsifyError, match="a unheard model cannot be sliced"):
        load_skeleton(tmp_path)


def test_norms_without_a_scale_are_named() -> None:
    from sparsify.slicegpt.fold import parts_of_norm

    with pytest.raises(SparsifyError, match="LayerNorm has no scale"):
        parts_of_norm(nn.LayerNorm(4, elementwise_affine=False), 0.0)
