"""Names of models to directories: bundled, bitmask storage, unknown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import ConfigError, InfrastructureError
from harness.models import BUNDLED, cache_directory, model_directory, public_name
from sparsify.checkpoint import model_fingerprint, open_checkpoint
from sparsify.masks import count_violations, load_masks

SPARSE = "pocket-sparse70"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.skipif(not BUNDLED[SPARSE].is_dir(), reason="the bundled sparse model is not here")
def test_the_bundled_sparse_model_is_expanded_once(cache: Path) -> None:
    directory = model_directory(SPARSE)
    assert directory.parent == cache and [path.name for path in cache.iterdir()] == [directory.name]
    checkpoint, masks = open_checkpoint(directory), load_masks(directory)
    assert count_violations(masks, checkpoint) == 0
    kept = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    assert kept == pytest.approx(0.30, abs=0.001)
    stamp = os.stat(directory / "model.safetensors").st_mtime_ns
    assert model_directory(SPARSE) == directory
    assert os.stat(directory / "model.safetensors").st_mtime_ns == stamp
    # Its tokenizer and shape are those of the dense model that it was made from.
    dense = model_directory("pocket")
    assert {n: r.shape for n, r in checkpoint.tensors.items()} == {
        n: r.shape for n, r in open_checkpoint(dense).tensors.items()
    }
    assert (directory / "tokenizer.json").read_bytes() == (dense / "tokenizer.json").read_bytes()
    assert model_fingerprint(directory) != model_fingerprint(dense)
    assert public_name(SPARSE) == SPARSE


@pytest.mark.skipif(not BUNDLED[SPARSE].is_dir(), reason="the bundled sparse model is not here")
def test_a_cache_that_cannot_be_written_names_the_fix(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(InfrastructureError, match="set SPARSEBENCH_CACHE"):
        model_directory(SPARSE)


def test_an_unknown_model_names_the_bundled_ones(cache: Path) -> None:
    with pytest.raises(ConfigError, match="pocket, pocket-base, pocket-sparse70"):
        model_directory("./nowhere")
    assert not cache.exists()


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPARSEBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "sparsebench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "sparsebench"
