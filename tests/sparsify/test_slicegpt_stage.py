"""The slice stage: what it writes is a real model, made as the method says, and resumed as any other stage."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsify.blocks import find_structure, load_model, load_skeleton, load_tokenizer
from sparsify.calibration import draw_sequences, make_batches
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import SparsifyError
from sparsify.masks import load_masks
from sparsify.plan import Machine, plan_text
from sparsify.recipe import Calibration
from sparsify.run import MakeOptions, make_variant
from sparsify.slicegpt.bases import read_bases
from sparsify.slicegpt.norm import ScaleFreeNorm
from sparsify.train.lora import target_linears
from sparsify.variant import VariantInfo, read_variant

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("slicing.py"))))
CALIBRATION, FAMILIES = kit.CALIBRATION, kit.FAMILIES
build, recipe, sliced, text = kit.build, kit.recipe, kit.sliced, kit.text


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


# Plans and interruptions


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
