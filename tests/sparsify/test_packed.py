"""Bitmask storage gives back the same checkpoint, is smaller, and is refused where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparsify.checkpoint import MASKS, open_checkpoint
from sparsify.errors import CheckpointError
from sparsify.masks import load_masks
from sparsify.packed import PACKED, expand_checkpoint, is_packed, pack_checkpoint
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant

WEIGHT = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def sparse(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model at 70 % zeros."""
    root = tmp_path_factory.mktemp("sparse")
    recipe = parse_recipe({"stages": [{"prune": {"method": "magnitude", "sparsity": 0.7}}]}, name="s", where="s")
    make_variant(model_dir, recipe, root / "s70", options=MakeOptions(store=root / "store", name="s70", base="tiny"))
    return root / "s70"


@pytest.fixture
def packed(sparse: Path, tmp_path: Path) -> Path:
    out = tmp_path / "packed"
    out.mkdir()
    pack_checkpoint(sparse, out)
    return out


def rewrite(directory: Path, name: str, tensor: torch.Tensor) -> None:
    with safe_open(directory / PACKED, "pt") as stream:
        metadata = stream.metadata()
    save_file({**load_file(directory / PACKED), name: tensor}, directory / PACKED, metadata=metadata)


def test_expanding_gives_the_same_weights_and_masks(sparse: Path, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "expanded"
    out.mkdir()
    expand_checkpoint(packed, out)
    before, after = load_file(sparse / "model.safetensors"), load_file(out / "model.safetensors")
    assert sorted(before) == sorted(after)
    assert all(torch.equal(before[name].view(torch.int16), after[name].view(torch.int16)) for name in before)
    masks = load_masks(out)
    assert masks.keys() == load_masks(sparse).keys()
    assert all(torch.equal(mask, masks[name]) for name, mask in load_masks(sparse).items())
    assert (out / "tokenizer.json").read_bytes() == (sparse / "tokenizer.json").read_bytes()


def test_a_linear_takes_a_bit_per_weight_and_its_survivors(sparse: Path, packed: Path) -> None:
    assert is_packed(packed) and not is_packed(sparse)
    stored = open_checkpoint(sparse).tensors[WEIGHT]
    survivors = int(load_masks(sparse)[WEIGHT].sum())
    with safe_open(packed / PACKED, "pt") as stream:
        values, bits = stream.get_tensor(WEIGHT + ".values"), stream.get_tensor(WEIGHT + ".mask")
    assert values.dtype == torch.bfloat16 and values.numel() == survivors
    assert bits.numel() * 8 == stored.numel  # 48 columns: whole bytes
    whole = (sparse / "model.safetensors").stat().st_size + (sparse / MASKS).stat().st_size
    assert (packed / PACKED).stat().st_size < 0.75 * whole


def test_a_damaged_file_is_refused(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    values = load_file(packed / PACKED)[WEIGHT + ".values"]
    rewrite(packed, WEIGHT + ".values", values[:-1].clone())
    with pytest.raises(CheckpointError, match="values for another mask"):
        expand_checkpoint(packed, tmp_path / "out")
    data = (packed / PACKED).read_bytes()
    (packed / PACKED).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        expand_checkpoint(packed, tmp_path / "out")


def test_only_what_has_masks_can_be_packed(model_dir: Path, sparse: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no masks\.safetensors"):
        pack_checkpoint(model_dir, tmp_path)
    tensors = load_file(sparse / "model.safetensors")
    tensors[WEIGHT] = torch.ones_like(tensors[WEIGHT])
    for name in ("config.json", MASKS):
        (tmp_path / name).write_bytes((sparse / name).read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="pruned places are not zero"):
        pack_checkpoint(tmp_path, tmp_path)
