"""The quantize stage end to end: what is stored, what opens it, what is kept, left out, resumed and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparsify.blocks import find_structure, load_model, load_skeleton
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.masks import broken_groups, load_masks
from sparsify.packed import pack_checkpoint
from sparsify.progress import Progress
from sparsify.quantize.grid import dequantize
from sparsify.quantize.int4 import pack_int4, unpack_int4
from sparsify.quantize.stored import read_weight
from sparsify.quantize.verify import verify_zeros
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.variant import VariantInfo, describe

CALIBRATION = {"source": "text", "samples": 16, "seq": 24}
MASKED = {"prune": {"method": "sparsegpt", "pattern": "2:4", "block_size": 32, "calibration": CALIBRATION}}
INT4 = {"scheme": "w4a16", "group_size": 32}
GPTQ = {"method": "gptq", "calibration": CALIBRATION}
STATIC = {"activations": "static", "smooth": 0.5, "calibration": CALIBRATION}
STAGES: dict[str, dict[str, Any]] = {
    "int4-rtn": INT4,
    "int4-gptq": {**INT4, **GPTQ},
    "int4-joint": {**INT4, **GPTQ, "prune": {"pattern": "2:4"}},
    "int8-gptq": GPTQ,
    "int8-joint": {**GPTQ, "prune": {"sparsity": 0.6}},
    "int8-smooth": {"smooth": 0.5, "calibration": CALIBRATION},
    "int8-static": STATIC,
    "int8-static-gptq": {**STATIC, "method": "gptq"},
}


def build(directory: Path, make_model: Callable[..., Path]) -> Path:
    """The tiny tokenizer with a model whose columns divide into groups of 32, in bfloat16, with biases."""
    import transformers

    make_model(directory)
    config = json.loads((directory / "config.json").read_text())
    torch.manual_seed(0)
    small = transformers.Qwen2Config(
        vocab_size=config["vocab_size"],
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    model = transformers.Qwen2ForCausalLM(small)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data.copy_((0.0 if name.endswith("bias") else 1.0) + 0.2 * torch.randn_like(parameter))
    model.to(torch.bfloat16).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    return build(tmp_path_factory.mktemp("qwen") / "model", make_model)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all variants, so that they share the pruned parent."""
    return tmp_path_factory.mktemp("made")


def make(
    root: Path, model: Path, corpus: Path, *stages: object, name: str = "v", progress: Progress | None = None
) -> tuple[Path, VariantInfo]:
    recipe = parse_recipe({"stages": list(stages)}, name=name, where="test")
    options = MakeOptions(store=root / "store", name=name, base="tiny", resolve_corpus=lambda _source: corpus)
    return root / name, make_variant(model, recipe, root / name, options=options, progress=progress)


def made(root: Path, model: Path, corpus: Path, name: str) -> tuple[Path, VariantInfo]:
    before = [] if "prune" in STAGES[name] else [MASKED]
    return make(root, model, corpus, *before, {"quantize": STAGES[name]}, name=name)


def linears_of(directory: Path) -> tuple[str, ...]:
    return find_structure(load_skeleton(directory)).all_linears


def reference(directory: Path) -> nn.Module:
    """The variant written out: weights dequantised by us, inputs rounded as the config says, no library."""
    from transformers import AutoConfig, AutoModelForCausalLM

    checkpoint = open_checkpoint(directory)
    config = AutoConfig.from_pretrained(str(directory))
    del config.quantization_config
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    plain = {
        name: checkpoint.read(name).float() for name in checkpoint.tensors if name in dict(model.named_parameters())
    }
    model.load_state_dict(plain, strict=False)
    inputs = checkpoint.config["quantization_config"]["config_groups"]["group_0"]["input_activations"]
    for name in linears_of(directory):
        scale = checkpoint.tensors.get(f"{name}.weight_scale")
        if scale is None:
            continue
        weight = read_weight(checkpoint, f"{name}.weight")
        assert weight is not None
        module = model.get_submodule(name)
        module.get_parameter("weight").data.copy_(dequantize(weight, checkpoint.read(f"{name}.weight_scale")))
        if inputs is not None:
            stored = checkpoint.read(f"{name}.input_scale") if not inputs["dynamic"] else None
            module.register_forward_pre_hook(rounding(stored))
    return model


def rounding(stored: Tensor | None) -> Callable[..., tuple[Tensor]]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        scale = args[0].abs().amax(-1, keepdim=True) / 127.5 if stored is None else stored
        return ((args[0] / scale).round().clamp(-128, 127) * scale,)

    return hook


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(torch.arange(80).reshape(4, 20)).logits
    return out


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_variant_opens_in_transformers_and_computes_what_it_says(
    name: str, root: Path, model: Path, corpus: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    from transformers import AutoModelForCausalLM

    out, _ = made(root, model, corpus, name)
    assert "sparsity_config" not in (out / "config.json").read_text()
    ours = reference(out)
    theirs = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
    torch.testing.assert_close(logits(theirs), logits(ours), rtol=1e-4, atol=1e-4)
    native = AutoModelForCausalLM.from_pretrained(str(out))
    assert logits(native).dtype == torch.bfloat16
    for linear in linears_of(out):
        weight = ours.get_parameter(f"{linear}.weight")
        assert torch.equal(theirs.get_parameter(f"{linear}.weight"), weight), "bit for bit"
        if name.startswith("int4"):
            assert torch.equal(native.get_parameter(f"{linear}.weight"), weight.to(torch.bfloat16))
    parent = logits(load_model(model))
    assert float((logits(ours) - parent).abs().max()) > 1e-3


@pytest.mark.parametrize("name", sorted(STAGES))
def test_no_zero_is_lost_and_the_record_says_so(name: str, root: Path, model: Path, corpus: Path) -> None:
    out, info = made(root, model, corpus, name)
    checkpoint, masks = open_checkpoint(out), load_masks(out)
    assert sorted(masks) == sorted(f"{linear}.weight" for linear in linears_of(out))
    zeros = total = 0
    for path, mask in masks.items():
        weight = read_weight(checkpoint, path)
        assert weight is not None and weight.dtype == torch.int8
        assert int((weight[~mask] != 0).sum()) == 0
        if name == "int8-joint":
            assert int((~mask).sum()) == round(0.6 * mask.numel())
        else:
            assert broken_groups(weight, 2, 4) == 0 and int((~mask).sum()) == mask.numel() // 2
        zeros, total = zeros + int((weight == 0).sum()), total + weight.numel()
    assert info.masks is not None and info.masks.revived == 0
    assert info.masks.pruned == sum(int((~mask).sum()) for mask in masks.values())
    stage = info.stages[-1]
    assert stage["checked"] == {"pruned": info.masks.pruned, "revived": 0, "broken_groups": 0}
    assert info.weight_bits == int(name[3]) and info.sparsity.linears == pytest.approx(zeros / total)
    assert info.sparsity.model is not None and 0 < info.sparsity.model < zeros / total
    schemes = {entry["scheme"] for entry in stage["linears"].values()}
    assert schemes == {"w4a16 g32" if "int4" in name else "w8a8 static" if "static" in name else "w8a8 dynamic"}
    assert list(stage["linears"]) == list(linears_of(out))
    if name != "int4-rtn":
        assert all(0 < entry["relative_error"] < 0.5 for entry in stage["linears"].values())
        assert [entry.source for entry in info.calibration][-1:] == ["text"]
    assert describe(out, name="x", base="y").weight_bits == info.weight_bits


def test_gptq_loses_less_than_rounding(root: Path, model: Path, corpus: Path) -> None:
    plain = {**INT4, "skip_error": 1e9, "calibration": CALIBRATION}
    _, rounded = make(root, model, corpus, MASKED, {"quantize": plain}, name="rounded")
    _, solved = made(root, model, corpus, "int4-gptq")
    before, after = (
        sum(entry["relative_error"] for entry in info.stages[-1]["linears"].values()) for info in (rounded, solved)
    )
    assert after < 0.8 * before
    # Measuring changes nothing: the bytes are those of the file-by-file path.
    assert rounded.weights_sha256 == made(root, model, corpus, "int4-rtn")[1].weights_sha256


def test_static_scales_follow_the_largest_input(root: Path, model: Path, corpus: Path) -> None:
    stage = {"activations": "static", "calibration": CALIBRATION}
    out, _ = make(root, model, corpus, {"quantize": stage}, name="static")
    from sparsify.blocks import load_tokenizer
    from sparsify.calibration import draw_sequences
    from sparsify.recipe import Calibration

    opened, seen = load_model(model), {"q": 0.0, "o": 0.0}
    for key, path in (("q", "self_attn.q_proj"), ("o", "self_attn.o_proj")):
        module = opened.get_submodule(f"model.layers.0.{path}")
        module.register_forward_pre_hook(
            lambda _m, args, key=key: seen.update({key: max(seen[key], float(args[0].abs().max()))})
        )
    with torch.no_grad():
        for sequence in draw_sequences(corpus, load_tokenizer(model), Calibration.model_validate(CALIBRATION)):
            opened(torch.tensor([sequence]))
    checkpoint = open_checkpoint(out)
    scales = {key: checkpoint.read(f"model.layers.0.self_attn.{key}_proj.input_scale") for key in ("q", "k", "v")}
    assert scales["q"].shape == (1,) and scales["q"].dtype == torch.float32
    assert float(scales["q"]) == pytest.approx(seen["q"] / 127.5, rel=1e-4)
    assert torch.equal(scales["q"], scales["k"]) and torch.equal(scales["q"], scales["v"])
    # The output projection reads values of quantized weights in the model that goes on, of float ones here.
    found = float(checkpoint.read("model.layers.0.self_attn.o_proj.input_scale"))
    assert found == pytest.approx(seen["o"] / 127.5, rel=0.05)


def test_smoothing_changes_norms_and_biases_and_little_else(root: Path, model: Path, corpus: Path) -> None:
    out, info = made(root, model, corpus, "int8-smooth")
    before, after = open_checkpoint(model), open_checkpoint(out)
    plain = [name for name in before.tensors if before.tensors[name].dtype == "BF16" and name in after.tensors]
    floats = [name for name in plain if after.tensors[name].dtype == "BF16"]
    changed = {name for name in floats if not torch.equal(before.read(name), after.read(name))}
    assert changed == {
        f"model.layers.{index}.{name}"
        for index in range(2)
        for name in ("input_layernorm.weight", "post_attention_layernorm.weight", "self_attn.v_proj.bias")
    }
    assert not [event for event in info.events if event.kind == "smooth_left_out"]
    # Pruned and smoothed in float, it is the pruned model: rounding is all that tells them apart.
    pruned, _ = make(root, model, corpus, MASKED, name="pruned")
    ours, theirs = logits(reference(out)), logits(load_model(pruned))
    assert float((ours - theirs).square().mean().sqrt()) < 0.1 * float(theirs.std())


def test_sensitive_linears_stay_and_are_listed(root: Path, model: Path, corpus: Path) -> None:
    _, all_of_them = made(root, model, corpus, "int4-gptq")
    errors = {name: entry["relative_error"] for name, entry in all_of_them.stages[-1]["linears"].items()}
    first = {name: error for name, error in errors.items() if ".layers.0." in name}
    limit = (max(first.values()) + sorted(first.values())[-2]) / 2
    worst = max(first, key=lambda name: first[name])
    stage = {**INT4, **GPTQ, "skip_error": limit}
    out, info = make(root, model, corpus, MASKED, {"quantize": stage}, name="careful")
    left = info.stages[-1]["skipped_by_error"]
    assert worst in left and 0 < len(left) < len(errors)
    config = open_checkpoint(out).config["quantization_config"]
    assert set(left) < set(config["ignore"])
    assert {event.where for event in info.events if event.kind == "sensitive_linear"} == set(left)
    parent, written = open_checkpoint(root / "pruned") if (root / "pruned").exists() else None, open_checkpoint(out)
    for name in left:
        assert written.tensors[f"{name}.weight"].dtype == "BF16" and f"{name}.weight_packed" not in written.tensors
        assert info.stages[-1]["linears"][name]["scheme"] == "unquantized"
        if parent is not None:
            assert torch.equal(written.read(f"{name}.weight"), parent.read(f"{name}.weight"))
    # vLLM runs linears with one input as one: they stay or go together.
    groups = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
    for index in range(2):
        for group in groups:
            inside = [name for name in left if f".layers.{index}." in name and name.endswith(group)]
            assert len(inside) in (0, len(group))
    assert info.weight_bits == 16 and info.masks is not None and info.masks.revived == 0
    with pytest.raises(SparsifyError, match="skip_error 1e-09 leaves no linear to quantize; the least error is"):
        make(root, model, corpus, MASKED, {"quantize": {**stage, "skip_error": 1e-9}}, name="none")


def in_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


class KillAt:
    """Kills its own process at the n-th report of progress."""

    def __init__(self, number: int) -> None:
        self.left = number

    def update(self, done: float, total: float, note: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("name", ["int4-joint", "int8-static-gptq"])
def test_killed_and_resumed_gives_the_same_bytes(
    name: str, root: Path, model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = made(root, model, corpus, name)
    stages = [] if "prune" in STAGES[name] else [MASKED]
    if stages:
        make(tmp_path, model, corpus, *stages, name="parent")
    for moment in (1, 2) if not stages else (2, 2):
        # The first report after the stages that are ready comes after the first block, which is then in the journal.
        status = in_child(
            lambda moment=moment: make(  # type: ignore[misc]
                tmp_path, model, corpus, *stages, {"quantize": STAGES[name]}, name=name, progress=KillAt(moment)
            )
        )
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert not (tmp_path / name).exists()
    from sparsify.quantize import calibrated

    solved: list[str] = []
    solve = calibrated.solve_block

    def counting(stage: Any, work: Any) -> Any:
        solved.append(work.name)
        return solve(stage, work)

    monkeypatch.setattr(calibrated, "solve_block", counting)
    again, _ = made(tmp_path, model, corpus, name)
    assert len(solved) < 2, "finished blocks are not solved again"
    for path in ("model.safetensors", "masks.safetensors", "config.json"):
        assert (again / path).read_bytes() == (whole / path).read_bytes()


def test_a_zero_that_came_back_stops_the_export(root: Path, model: Path, corpus: Path, tmp_path: Path) -> None:
    parent, _ = make(root, model, corpus, MASKED, name="pruned")
    out, _ = made(root, model, corpus, "int4-gptq")
    broken = tmp_path / "broken"
    shutil.copytree(out, broken)
    name = "model.layers.1.mlp.up_proj"
    tensors, mask = load_file(broken / "model.safetensors"), load_masks(out)[f"{name}.weight"]
    values = unpack_int4(tensors[f"{name}.weight_packed"], 64)
    row, column = (int(index) for index in (~mask).nonzero()[0])
    values[row, column] = 3
    tensors[f"{name}.weight_packed"] = pack_int4(values)
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    linears = linears_of(out)
    assert verify_zeros(open_checkpoint(out), load_masks(out), open_checkpoint(parent), linears)["revived"] == 0
    with pytest.raises(NumericsError, match="1 pruned weights are not zero"):
        verify_zeros(open_checkpoint(broken), load_masks(broken), open_checkpoint(parent), linears)
    # The same without masks: then the parent's own zeros count.
    with pytest.raises(NumericsError, match="1 pruned weights are not zero and 1 N:M"):
        verify_zeros(open_checkpoint(broken), {}, open_checkpoint(parent), linears)
    assert (record := describe(broken, name="x", base="y").masks) is not None and record.revived == 1


def test_zeros_of_a_foreign_checkpoint_without_masks_are_kept(root: Path, model: Path, corpus: Path) -> None:
    pruned, _ = make(root, model, corpus, MASKED, name="pruned")
    foreign = root / "foreign-parent"
    shutil.copytree(pruned, foreign, ignore=shutil.ignore_patterns("masks*", "variant.json"))
    out, info = make(root, foreign, corpus, {"quantize": {**INT4, **GPTQ}}, name="foreign")
    assert load_masks(out) == {} and info.sparsity.linears is not None and info.sparsity.linears >= 0.5
    checkpoint = open_checkpoint(out)
    for name in linears_of(out):
        weight = read_weight(checkpoint, f"{name}.weight")
        assert weight is not None and broken_groups(weight, 2, 4) == 0


def test_what_cannot_be_quantized_is_said_before_work_begins(
    root: Path, model: Path, corpus: Path, tmp_path: Path
) -> None:
    says = r"model.layers.0.self_attn.q_proj: 64 columns do not divide into groups of 128; group_size 32 or 64 would"
    for extra in ({}, GPTQ):
        with pytest.raises(SparsifyError, match=says):
            make(root, model, corpus, {"quantize": {**INT4, "group_size": 128, **extra}}, name="wide")
    skipped = {**INT4, "group_size": 64, "skip": ["down_proj"]}
    _, info = make(root, model, corpus, {"quantize": skipped}, name="partly")
    assert info.weight_bits == 16 and info.stages[-1]["skipped"] == [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    out, _ = made(root, model, corpus, "int4-rtn")
    with pytest.raises(SparsifyError, match="is quantized already"):
        make(root, out, corpus, {"quantize": {}}, name="twice")
    (tmp_path / "packed").mkdir()
    with pytest.raises(CheckpointError, match="packed to 4 bits already"):
        pack_checkpoint(out, tmp_path / "packed")
    broken = tmp_path / "nan"
    shutil.copytree(model, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericsError, match=r"model.layers.1.mlp.up_proj: the weight holds non-finite"):
        make(root, broken, corpus, {"quantize": INT4}, name="nan")


@pytest.mark.parametrize("columns", [8, 32, 33, 70])
def test_packing_is_the_librarys(columns: int) -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    values = torch.randint(-8, 8, (7, columns), dtype=torch.int8, generator=torch.Generator().manual_seed(columns))
    packed = pack_int4(values)
    assert packed.dtype == torch.int32 and torch.equal(packed, helpers.pack_to_int32(values, 4))
    assert torch.equal(unpack_int4(packed, columns), values)
