"""Adapters as an option of a training stage: from a recipe to a variant, interrupted or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sparsify.train.trainer as trainer
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import RecipeError, SparsifyError
from sparsify.masks import load_masks
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.shards import read_header

pytest.importorskip("peft")


def recipe(corpus: Path, lora: dict[str, Any], **changes: object) -> dict[str, Any]:
    finetune = {
        "data": str(corpus),
        "tokens": 2200,
        "batch_tokens": 240,
        "seq": 64,
        "lr": 0.02,
        "warmup": 2,
        "clip": 1.0,
    }
    taught = {"teacher": "base", "losses": {"ce": 1.0, "squarehead": 1.0}}
    return {
        "stages": [
            {"prune": {"method": "magnitude", "sparsity": 0.5}},
            {"finetune": {**finetune, **taught, **changes, "lora": {"rank": 4, **lora}}},
        ]
    }


def make(model: Path, body: dict[str, Any], out: Path, progress: object = None) -> dict[str, Any]:
    options = MakeOptions(out.with_name(out.name + ".store"), "v", "m")
    loaded = parse_recipe(body, name="r", where="r")
    make_variant(model, loaded, out, options=options, progress=progress)  # type: ignore[arg-type]
    found: dict[str, Any] = json.loads((out / "variant.json").read_text())
    return found


def parent(model: Path, corpus: Path, folder: Path) -> Path:
    """The pruned model without training."""
    body = recipe(corpus, {})
    make(model, {"stages": body["stages"][:1]}, folder / "parent")
    return folder / "parent"


@pytest.mark.parametrize("merge", ["masked", "project"])
def test_a_recovered_variant_keeps_its_masks(merge: str, model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    told = make(model_dir, recipe(corpus, {"merge": merge, "targets": ["up_proj", "q_proj"]}), tmp_path / "out")
    before = load_file(parent(model_dir, corpus, tmp_path) / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    masks = load_masks(tmp_path / "out")
    assert len(masks) == 21 and before.keys() == after.keys()
    for name, weight in after.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, before[name]) != name.endswith(("up_proj.weight", "q_proj.weight")), name
        zeros = weight[~masks[name]] if name in masks else weight[:0]
        assert not zeros.any() and not torch.signbit(zeros).any()
    merged = told["stages"][1]["merged"]
    assert merged["linears"] == 6 and 0 < merged["rounded"] < 0.2
    if merge == "masked":
        assert merged["projected"] == 0.0
    else:
        assert 0.1 < merged["projected"] <= merged["worst_projected"] < 1 and merged["worst_linear"]
    losses = [json.loads(line)["losses"]["total"] for line in curves(tmp_path / "out").read_text().splitlines()]
    assert losses[-1] < 0.95 * losses[0]


def curves(out: Path) -> Path:
    (path,) = out.with_name(out.name + ".store").glob("*/curves.jsonl")
    return path


class Stop:
    """Interrupts in the middle of the second of two stages."""

    def update(self, done: float, total: float, note: str = "") -> None:
        if done >= 1.5:
            raise KeyboardInterrupt


def test_an_interrupted_run_ends_in_the_same_bytes(
    model_dir: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_SAVE_EVERY_S", 0.0)
    body = recipe(corpus, {"dropout": 0.3})
    make(model_dir, body, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        make(model_dir, body, tmp_path / "twice", Stop())
    (state,) = (tmp_path / "twice.store").glob("*.work/state.safetensors")
    stored = [name for name in read_header(state) if name.startswith("param.")]
    assert len(stored) == 2 * 21 and all(".lora_" in name for name in stored)
    make(model_dir, body, tmp_path / "twice")
    for name in ("model.safetensors", "masks.safetensors"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    ours, theirs = (
        [json.loads(line) for line in curves(tmp_path / n).read_text().splitlines()] for n in ("whole", "twice")
    )
    assert [line["losses"] for line in ours] == [line["losses"] for line in theirs]


def test_errors_come_before_anything_is_trained(
    model_dir: Path, corpus: Path, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(SparsifyError, match=r"merge is refuse.*21 of 21 targets.*merge: masked"):
        make(model_dir, recipe(corpus, {"merge": "refuse"}), tmp_path / "refused")
    with pytest.raises(SparsifyError, match=r"lora\.targets: 'fc1' fits no linear"):
        make(model_dir, recipe(corpus, {"targets": "fc1"}), tmp_path / "targets")
    with pytest.raises(RecipeError, match=r"unknown key 'r' in stages\[1\]\.finetune\.lora; allowed: alpha, dropout"):
        parse_recipe(recipe(corpus, {"r": 4}), name="r", where="r")
    with pytest.raises(RecipeError, match="merge"):
        parse_recipe(recipe(corpus, {"merge": "keep"}), name="r", where="r")
    make(model_dir, {"stages": [{"quantize": {"scheme": "w8a8"}}]}, tmp_path / "int8")
    assert open_checkpoint(tmp_path / "int8").is_quantized
    body = {"stages": recipe(corpus, {})["stages"][1:]}
    with pytest.raises(SparsifyError, match="is quantized; train the unquantized model"):
        make(tmp_path / "int8", body, tmp_path / "trained")


def test_masks_of_another_model_are_refused(
    model_dir: Path, corpus: Path, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    from sparsify.train.lora import LoraAdapter, attach
    from sparsify.train.lora_settings import LoraSettings

    with pytest.raises(SparsifyError, match=r"mask for nope\.weight fits no weight"):
        LoraAdapter(model_dir, {"nope.weight": torch.ones(2, 2, dtype=torch.bool)}, LoraSettings(), 0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with pytest.raises(SparsifyError, match=r"mask for 0\.weight fits no weight"):
        attach(module, ["0"], {"0.weight": torch.ones(2, 4, dtype=torch.bool)}, LoraSettings(), seed=0)


def test_recipes_without_adapters_keep_their_hash(corpus: Path) -> None:
    plain = recipe(corpus, {})
    del plain["stages"][1]["finetune"]["lora"]
    assert "lora" not in parse_recipe(plain, name="r", where="r").resolved()["stages"][1]["finetune"]
    written = parse_recipe(recipe(corpus, {}), name="r", where="r").resolved()["stages"][1]["finetune"]["lora"]
    assert written == {"rank": 4, "alpha": 10.0, "dropout": 0.05, "targets": [], "merge": "masked"}
