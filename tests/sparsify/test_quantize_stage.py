"""The quantize stage end to end: what is stored, what opens it, what is kept, left out, resumed and refused."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsify.blocks import load_model
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.masks import broken_groups, load_masks
from sparsify.packed import pack_checkpoint
from sparsify.plan import Machine, plan_text
from sparsify.quantize.int4 import pack_int4, unpack_int4
from sparsify.quantize.stored import read_weight
from sparsify.quantize.verify import verify_zeros
from sparsify.recipe import parse_recipe
from sparsify.variant import describe

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("quantizing.py"))))
make, made, logits, reference, linears_of = kit.make, kit.made, kit.logits, kit.reference, kit.linears_of
CALIBRATION, MASKED, INT4, GPTQ, STAGES = kit.CALIBRATION, kit.MASKED, kit.INT4, kit.GPTQ, kit.STAGES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    built: Path = kit.build(tmp_path_factory.mktemp("qwen") / "model", make_model)
    return built


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all variants, so that they share the pruned parent."""
    return tmp_path_factory.mktemp("made")


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


def test_the_plan_of_a_measured_stage_counts_what_it_holds(model: Path) -> None:
    def plan(stage: dict[str, Any]) -> str:
        return plan_text(model, parse_recipe({"stages": [{"quantize": stage}]}, name="q", where="test"), Machine())

    assert "one linear at a time" in plan(INT4)
    measured = plan({**INT4, **GPTQ, "skip": ["down_proj"]})
    assert "2 blocks" in measured and "at most 384 calibration tokens" in measured
    pruned = sum(
        open_checkpoint(model).tensors[f"{name}.weight"].numel for name in linears_of(model) if "down" not in name
    )
    assert f"{pruned:,} of them in linears to quantize" in measured
