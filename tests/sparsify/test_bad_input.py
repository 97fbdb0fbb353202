"""Broken or hostile models, texts and settings: one clear error or an event each, and nothing written outside."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsify.checkpoint import open_checkpoint
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.masks import load_masks
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.shards import ShardWriter, read_header, read_tensor
from sparsify.variant import VariantInfo

WEIGHT = "model.layers.1.mlp.up_proj.weight"
CALIBRATION = {"source": "text", "samples": 16, "seq": 24}
SPARSEGPT = {"method": "sparsegpt", "sparsity": 0.5, "block_size": 16, "calibration": CALIBRATION}


@pytest.fixture
def copy(model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


def prune(model: Path, root: Path, text: Path, **changes: Any) -> VariantInfo:
    recipe = parse_recipe({"stages": [{"prune": {**SPARSEGPT, **changes}}]}, name="bad", where="test")
    options = MakeOptions(store=root / "store", name="v", base="tiny", resolve_corpus=lambda _source: text)
    return make_variant(model, recipe, root / "v", options=options)


def change(directory: Path, name: str, edit: Callable[[torch.Tensor], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    edit(tensors[name])
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(copy: Path, corpus: Path, tmp_path: Path, value: float) -> None:
    change(copy, WEIGHT, lambda weight: weight[3].fill_(value))
    with pytest.raises(NumericsError, match=r"model\.layers\.1\.mlp\.up_proj: the weight holds non-finite"):
        prune(copy, tmp_path, corpus)
    assert not (tmp_path / "v").exists()


def test_inputs_that_are_not_finite_are_named(copy: Path, corpus: Path, tmp_path: Path) -> None:
    change(copy, "model.layers.1.input_layernorm.weight", lambda weight: weight.fill_(float("nan")))
    with pytest.raises(
        (NumericsError, SparsifyError), match=r"layers\.1\.self_attn\.q_proj saw non-finite|differ by nan"
    ):
        prune(copy, tmp_path, corpus)


def test_inputs_that_are_always_zero_are_an_event(copy: Path, corpus: Path, tmp_path: Path) -> None:
    change(copy, "model.layers.1.input_layernorm.weight", lambda weight: weight.zero_())
    info = prune(copy, tmp_path, corpus)
    found = {event.where: event.detail for event in info.events if event.kind == "dead_inputs"}
    assert set(found) == {f"model.layers.1.self_attn.{part}_proj" for part in "qkvo"}
    assert "all 32 inputs were always zero; pruned by magnitude" in found["model.layers.1.self_attn.q_proj"]
    mask = load_masks(tmp_path / "v")["model.layers.1.self_attn.q_proj.weight"]
    assert int((~mask).sum()) == mask.numel() // 2
    weight = open_checkpoint(copy).read("model.layers.1.self_attn.q_proj.weight")
    for part, kept in zip(weight.split(16, dim=1), mask.split(16, dim=1), strict=True):
        assert float(part[kept].abs().min()) >= float(part[~kept].abs().max())


def test_fewer_tokens_than_columns_are_an_event(
    model_dir: Path, tmp_path: Path, make_corpus: Callable[..., Path]
) -> None:
    few = {**CALIBRATION, "samples": 2, "seq": 12}
    info = prune(model_dir, tmp_path, make_corpus(tmp_path / "few.jsonl", rows=2), calibration=few)
    found = {event.where: event.detail for event in info.events if event.kind == "few_tokens"}
    assert len(found) == 21
    assert found["model.layers.0.mlp.down_proj"].endswith("tokens for 48 inputs")
    assert info.sparsity.linears == pytest.approx(0.5, abs=0.01)


def test_a_pattern_that_does_not_divide_names_the_linear(corpus: Path, tmp_path: Path, model_dir: Path) -> None:
    with pytest.raises(SparsifyError, match=r"down_proj: 48 columns do not divide into groups of 32; add .* to skip"):
        prune(model_dir, tmp_path, corpus, pattern="16:32", sparsity=0.5, block_size=32)
    info = prune(model_dir, tmp_path, corpus, pattern="16:32", sparsity=0.5, block_size=32, skip=["down_proj"])
    assert info.masks is not None and info.masks.tensors == 18


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan")])
def test_sparsity_outside_is_refused(value: float) -> None:
    with pytest.raises(SparsifyError, match="sparsity: Input should be"):
        parse_recipe({"stages": [{"prune": {**SPARSEGPT, "sparsity": value}}]}, name="bad", where="test")


def test_a_half_written_checkpoint_is_refused_before_work(copy: Path, corpus: Path, tmp_path: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        prune(copy, tmp_path, corpus)
    assert not (tmp_path / "store").exists()


# --- headers that lie -------------------------------------------------------------------------------------------------


def lie(path: Path, edit: Callable[[dict[str, Any]], object], *, raw: Callable[[bytes], bytes] | None = None) -> None:
    """Rewrite the header of a safetensors file, keeping its length true and the values as they are."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    text = raw(text) if raw else text
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _twice(text: bytes) -> bytes:
    entry = text[text.index(b'"model.norm.weight"') :]
    return text[:-1] + b"," + entry[: entry.index(b"}") + 1] + b"}"


LIES: dict[str, tuple[Callable[[dict[str, Any]], object], Callable[[bytes], bytes] | None, str]] = {
    "overlap": (
        lambda h: h["model.norm.weight"].update(
            data_offsets=h["model.layers.0.input_layernorm.weight"]["data_offsets"]
        ),
        None,
        "overlaps or leaves a gap",
    ),
    "gap": (lambda h: h.pop("model.layers.0.input_layernorm.weight"), None, "overlaps or leaves a gap"),
    "dtype": (lambda h: h["model.norm.weight"].update(dtype="F32"), None, "does not take 64 bytes"),
    "shape": (lambda h: h["model.norm.weight"].update(shape=[33]), None, "does not take 64 bytes"),
    "absurd size": (
        lambda h: h["model.norm.weight"].update(shape=[1 << 62]),
        None,
        "no sensible number",
    ),
    "product overflows": (
        lambda h: h["model.norm.weight"].update(shape=[1 << 40, 1 << 40, 1 << 40]),
        None,
        "does not take 64 bytes",
    ),
    "negative": (lambda h: h["model.norm.weight"].update(shape=[-32]), None, "no sensible number"),
    "boolean": (lambda h: h["model.norm.weight"].update(shape=[True, 32]), None, "no sensible number"),
    "backwards": (
        lambda h: h["model.norm.weight"].update(data_offsets=h["model.norm.weight"]["data_offsets"][::-1]),
        None,
        "no sensible number",
    ),
    "beyond the end": (
        lambda h: h["model.norm.weight"].update(data_offsets=[1 << 50, (1 << 50) + 64]),
        None,
        "overlaps or leaves a gap",
    ),
    "a name twice": (lambda h: None, _twice, "a name is given twice"),
    "deep nesting": (lambda h: None, lambda text: b"[" * 200_000 + b"]" * 200_000, "damaged safetensors header"),
    "a list": (lambda h: None, lambda text: b"[1, 2, 3]", "damaged safetensors header"),
}


@pytest.mark.parametrize("how", LIES)
def test_lying_headers_are_refused(copy: Path, how: str) -> None:
    edit, raw, said = LIES[how]
    lie(copy / "model.safetensors", edit, raw=raw)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(copy)
    assert "\n" not in str(caught.value) and "model.safetensors" in str(caught.value)


def shard(directory: Path) -> tuple[Path, Path]:
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[: len(names) // 2], "model-2.safetensors": names[len(names) // 2 :]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, directory / file, metadata={"format": "pt"})
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {name: file for file, part in parts.items() for name in part}})
    )
    (directory / "model.safetensors").unlink()
    return directory / "model-1.safetensors", directory / "model-2.safetensors"


def test_an_index_that_points_to_the_wrong_shard(copy: Path) -> None:
    shard(copy)
    path = copy / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "model-1.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model-1.safetensors stores model.norm.weight, but it does not"):
        open_checkpoint(copy)
    index["weight_map"]["model.norm.weight"] = "model-2.safetensors"
    index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = "model-2.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"stores model.layers.9.mlp.up_proj.weight, but it does not"):
        open_checkpoint(copy)


def test_a_tensor_in_two_shards(copy: Path) -> None:
    first, second = shard(copy)
    tensors = load_file(first)
    tensors["model.norm.weight"] = torch.ones(32, dtype=torch.bfloat16)
    save_file(tensors, first, metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match="model-2.safetensors stores model.norm.weight, which another shard stores"
    ):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "sub/x.safetensors"]
)
def test_shard_names_that_leave_the_directory(copy: Path, name: str, tmp_path: Path) -> None:
    shard(copy)
    path = copy / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    (copy / "sub").mkdir()
    for target in (tmp_path / "x.safetensors", copy / "sub" / "x.safetensors"):
        shutil.copy(copy / "model-2.safetensors", target)
    index["weight_map"] = {n: name if f == "model-2.safetensors" else f for n, f in index["weight_map"].items()}
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="which is no safetensors file beside it"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    "file", ["model-2.safetensors", "config.json", "tokenizer.json", "model.safetensors.index.json"]
)
def test_links_that_leave_the_directory(copy: Path, file: str, tmp_path: Path) -> None:
    shard(copy)
    outside = tmp_path / "outside"
    outside.mkdir()
    (copy / file).rename(outside / file)
    (copy / file).symlink_to(outside / file)
    with pytest.raises(CheckpointError, match=f"{file} is a link that leads out of the model directory"):
        open_checkpoint(copy)
    (copy / file).unlink()
    (outside / file).rename(copy / "real")
    (copy / file).symlink_to("real")
    open_checkpoint(copy)


def test_links_of_the_hub_cache_are_followed(copy: Path, tmp_path: Path) -> None:
    """`snapshots/REVISION/model.safetensors` is a link to `blobs/HASH` there."""
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in copy.iterdir():
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert open_checkpoint(snapshot).tensors
    link = tmp_path / "link"
    link.symlink_to(snapshot)
    assert open_checkpoint(link).tensors


# --- the writer -------------------------------------------------------------------------------------------------------


def test_the_writer_writes_what_the_library_writes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {"b": torch.tensor([True, False, True]), "scalar": torch.tensor(3.0)}
    for index, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16, torch.float64)):
        for shape in ((3, 5), (7,), (0, 4), (2, 3, 4)):
            tensors[f"w{index}.{len(shape)}.{shape[0]}"] = torch.randn(shape, generator=generator).to(dtype)
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64):
        tensors[f"i.{dtype}"] = torch.arange(-3, 4).to(dtype)
    tensors["8"] = torch.randn(5, generator=generator).to(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    with ShardWriter(tmp_path / "ours.safetensors", metadata={"format": "pt"}) as shard:
        for name, tensor in reversed(tensors.items()):
            shard.add(name, tensor)
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    refs = read_header(tmp_path / "ours.safetensors")
    for name, tensor in tensors.items():
        read = read_tensor(refs[name], name)
        assert read.dtype == tensor.dtype and torch.equal(read.float(), tensor.float())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.safetensors", "theirs.safetensors"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "x.safetensors") as shard:
        shard.add("a", torch.ones(3))
        raise RuntimeError
    with pytest.raises(CheckpointError, match="twice"), ShardWriter(tmp_path / "x.safetensors") as shard:
        shard.add("a", torch.ones(3))
        shard.add("a", torch.ones(3))
    assert not os.listdir(tmp_path)


def test_a_file_that_shrinks_while_it_is_used(copy: Path) -> None:
    checkpoint = open_checkpoint(copy)
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"ends within model\.norm\.weight|ends within"):
        for name in checkpoint.tensors:
            checkpoint.read(name)
