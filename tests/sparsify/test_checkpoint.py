"""Reading model directories that are whole, broken or dangerous; masks on disk."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sparsify.blocks import chosen_linears, find_structure, load_model, load_skeleton
from sparsify.checkpoint import model_fingerprint, open_checkpoint, write_checkpoint, write_index
from sparsify.errors import CheckpointError, SparsifyError
from sparsify.masks import count_violations, load_masks, pack, save_masks, unpack
from sparsify.shards import ShardedWriter
from sparsify.variant import describe


@pytest.fixture
def copy(model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


def shard(directory: Path) -> None:
    """Split model.safetensors into two shards with an index."""
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[: len(names) // 2], "model-2.safetensors": names[len(names) // 2 :]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, directory / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "model.safetensors").unlink()


def _edit_index(directory: Path, name: str) -> None:
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], name)
    path.write_text(json.dumps(index))


def _cut(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _garbage(directory: Path) -> None:
    path = directory / "model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    path.write_bytes(data[:8] + b"\xff" * length + data[8 + length :])


def _lying_header(directory: Path) -> None:
    path = directory / "model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["model.norm.weight"]["shape"] = [31]
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _odd_metadata(directory: Path) -> None:
    path = directory / "model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = {**json.loads(data[8 : 8 + length]), "__metadata__": 1}
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _pickle(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (_cut, "model.safetensors is truncated: .* bytes instead of .*; download or copy it again"),
    "garbage": (_garbage, "model.safetensors has a damaged safetensors header"),
    "metadata": (_odd_metadata, "model.safetensors has a damaged safetensors header"),
    "lie": (_lying_header, "model.safetensors has a damaged safetensors header"),
    "empty": (
        lambda d: (d / "model.safetensors").write_bytes(b""),
        "model.safetensors is not a safetensors file or is",
    ),
    "html": (lambda d: (d / "model.safetensors").write_text("<html>not found</html>"), "is not a safetensors file"),
    "pickle": (_pickle, "pytorch_model.bin is a pickle file.*convert the model to safetensors"),
    "none": (lambda d: (d / "model.safetensors").unlink(), "has no model.safetensors"),
    "no config": (lambda d: (d / "config.json").unlink(), "config.json is missing"),
    "bad config": (lambda d: (d / "config.json").write_text("{"), "config.json is not JSON"),
    "list config": (lambda d: (d / "config.json").write_text("[]"), "config.json is not a JSON object"),
    "no shard": (lambda d: (shard(d), (d / "model-2.safetensors").unlink()), "model-2.safetensors is missing"),
    "outside": (
        lambda d: (shard(d), _edit_index(d, "../x.safetensors")),
        "'../x.safetensors', which is no safetensors",
    ),
    "gone": (shutil.rmtree, "does not exist"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_broken_directories_get_one_clear_line(copy: Path, how: str) -> None:
    damage, said = BREAKS[how]
    damage(copy)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(copy)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


def test_missing_tensor_is_not_filled_with_random_numbers(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"stores no model.layers.1.mlp.up_proj.weight \(1 missing\)"):
        load_model(copy)


def test_config_that_does_not_fit_the_weights(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(CheckpointError, match="check its config.json"):
        load_model(copy)
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "nonsense"}))
    with pytest.raises(CheckpointError, match="check its config.json"):
        load_skeleton(copy)


def test_shards_keep_their_names_and_bytes(copy: Path, tmp_path: Path) -> None:
    shard(copy)
    out = tmp_path / "out"
    out.mkdir()
    source = open_checkpoint(copy)
    assert len(source.files) == 2
    write_checkpoint(source, out, lambda name, tensor: {name: tensor})
    written = open_checkpoint(out)
    assert [path.name for path in written.files] == ["model-1.safetensors", "model-2.safetensors"]
    assert all(torch.equal(source.read(name), written.read(name)) for name in source.tensors)
    assert (out / "tokenizer.json").read_bytes() == (copy / "tokenizer.json").read_bytes()
    assert (out / "chat_template.jinja").exists()


def test_fingerprint_sees_weights_tokenizer_and_template(copy: Path) -> None:
    before = model_fingerprint(copy)
    (copy / "README.md").write_text("a note")
    assert model_fingerprint(copy) == before
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert model_fingerprint(copy) != before


def test_structure(model_dir: Path) -> None:
    found = find_structure(load_skeleton(model_dir))
    assert (found.embedding, found.norm, found.head, found.tied) == (
        "model.embed_tokens",
        "model.norm",
        "lm_head",
        True,
    )
    assert found.blocks == ("model.layers.0", "model.layers.1", "model.layers.2")
    assert len(found.all_linears) == 21 and "lm_head" not in found.all_linears
    assert found.other_linears == ("lm_head",)
    chosen, skipped = chosen_linears(found.all_linears, ["down_proj", "model.layers.0.*"])
    assert len(skipped) == 9 and set(chosen) | set(skipped) == set(found.all_linears)
    with pytest.raises(SparsifyError, match="'dwon_proj' fits no linear; there are down_proj"):
        chosen_linears(found.all_linears, ["dwon_proj"])


def test_structure_refuses_what_has_no_blocks() -> None:
    with pytest.raises(SparsifyError, match="no stack of blocks"):
        find_structure(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_a_checkpoint_made_elsewhere_can_be_described(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][:, ::2] = 0.0
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    info = describe(copy, name="mine", base="tiny")
    assert info.recipe is None and info.weight_bits == 16 and info.dtype == "bfloat16"
    assert info.sparsity.per_linear["model.layers.0.mlp.up_proj"] == 0.5
    linears = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith("_proj.weight"))
    parameters = sum(tensor.numel() for tensor in tensors.values())
    assert info.parameters == parameters
    assert info.sparsity.linears == pytest.approx(48 * 16 / linears)
    assert info.sparsity.model == pytest.approx(48 * 16 / parameters)
    assert info.bytes == (copy / "model.safetensors").stat().st_size


@given(rows=st.integers(1, 9), columns=st.integers(1, 40), seed=st.integers(0, 99))
@settings(deadline=None)
def test_masks_pack_without_loss(rows: int, columns: int, seed: int) -> None:
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(mask)
    assert packed.dtype == torch.uint8 and packed.shape == (rows, -(-columns // 8))
    assert torch.equal(unpack(packed, columns), mask)


def test_masks_on_disk(copy: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    checkpoint = open_checkpoint(copy)
    mask = torch.rand(48, 32) < 0.5
    assert load_masks(copy) == {}
    save_masks({name: mask}, copy)
    loaded = load_masks(copy)
    assert list(loaded) == [name] and torch.equal(loaded[name], mask)
    assert count_violations(loaded, checkpoint) == int((~mask).sum())
    with pytest.raises(CheckpointError, match="does not fit the weights"):
        count_violations({name: mask[:, :8]}, checkpoint)
    path = copy / "masks.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="masks.safetensors is truncated"):
        load_masks(copy)


def test_weights_in_as_many_files_as_they_need(tmp_path: Path) -> None:
    tensors = {f"w{index}": torch.full((10, 4), float(index)) for index in range(5)}
    for folder, limit, files in (("one", 10_000, 1), ("many", 320, 3)):
        (tmp_path / folder).mkdir()
        writer = ShardedWriter(tmp_path / folder, shard_bytes=limit)
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        writer.close()
        (tmp_path / folder / "config.json").write_text("{}")
        write_index(tmp_path / folder, writer.files)
        assert len(writer.files) == files and (files > 1 or writer.files == ["model.safetensors"])
        stored = open_checkpoint(tmp_path / folder)
        assert stored.tensors.keys() == tensors.keys()
        assert all(torch.equal(stored.read(name), tensor) for name, tensor in tensors.items())
