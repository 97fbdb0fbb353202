"""Reconstruction as the last step of a prune stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsify.blocks import find_structure, load_model, load_tokenizer
from sparsify.calibration import draw_sequences, make_batches
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import RecipeError, SparsifyError
from sparsify.masks import count_violations, load_masks
from sparsify.plan import Machine, plan_prune
from sparsify.recipe import Calibration, Recipe, parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.variant import VARIANT, VariantInfo

TRAIN = {"batch_tokens": 48, "lr": 0.05}
PRUNE = {"method": "sparsegpt", "sparsity": 0.7, "calibration": {"source": "text", "samples": 24, "seq": 24}}


def recipe(**changes: Any) -> Recipe:
    return parse_recipe({"stages": [{"prune": {**PRUNE, **changes}}]}, name="r", where="test")


def make(model: Path, corpus: Path, out: Path, **changes: Any) -> VariantInfo:
    options = MakeOptions(store=out.parent / "store", name=out.name, base="tiny", resolve_corpus=lambda _: corpus)
    return make_variant(model, recipe(**changes), out, options=options)


@torch.no_grad()
def error_of_first_block(dense: Path, pruned: Path, corpus: Path) -> float:
    """Relative squared error of the first block's outputs on the calibration text, by running both models whole."""
    settings = Calibration(source="text", samples=24, seq=24)
    batches = make_batches(draw_sequences(corpus, load_tokenizer(dense), settings))
    outputs: list[list[torch.Tensor]] = []
    for directory in (dense, pruned):
        model = load_model(directory)
        block = model.get_submodule(find_structure(model).blocks[0])
        seen: list[torch.Tensor] = []
        block.register_forward_hook(
            lambda _m, _a, out, seen=seen: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        for batch in batches:
            model(input_ids=batch.ids, use_cache=False)
        outputs.append([values[batch.real] for values, batch in zip(seen, batches, strict=True)])
    want, got = (torch.cat(each) for each in outputs)
    return float((want - got).square().sum() / want.square().sum())


def test_it_comes_nearer_to_the_dense_blocks_and_keeps_every_zero(
    model_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    make(model_dir, corpus, tmp_path / "plain")
    make(model_dir, corpus, tmp_path / "trained", reconstruct=TRAIN)
    masks, plain = load_masks(tmp_path / "trained"), load_masks(tmp_path / "plain")
    first = [name for name in masks if ".layers.0." in name]
    assert first and all(torch.equal(masks[name], plain[name]) for name in first)
    assert count_violations(masks, open_checkpoint(tmp_path / "trained")) == 0
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == sum(int(mask.sum()) for mask in plain.values())
    before, after = (error_of_first_block(model_dir, tmp_path / name, corpus) for name in ("plain", "trained"))
    assert after < 0.97 * before
    assert '"reconstruction"' in (tmp_path / "trained" / VARIANT).read_text()


def test_the_record_says_what_each_block_gained(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    make(model_dir, corpus, tmp_path / "trained", reconstruct=TRAIN)
    records = [json.loads(path.read_text()) for path in (tmp_path / "store").rglob("*.json") if path.is_file()]
    blocks = [
        found
        for record in records
        if isinstance(record, dict)
        for found in ((record.get("result") or {}).get("stats") or {}).get("reconstruction", {}).values()
    ]
    assert len(blocks) == len(find_structure(load_model(model_dir)).blocks)
    for found in blocks:
        assert 0 < found["after"] <= found["before"] and found["seconds"] >= 0
        assert (found["epoch"] > 0) == (found["after"] < found["before"])


def test_the_same_text_gives_the_same_bytes(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    one = make(model_dir, corpus, tmp_path / "a" / "v", reconstruct=TRAIN)
    other = make(model_dir, corpus, tmp_path / "b" / "v", reconstruct=TRAIN)
    assert one.weights_sha256 == other.weights_sha256
    longer = make(model_dir, corpus, tmp_path / "b" / "w", reconstruct={**TRAIN, "epochs": 9})
    assert longer.weights_sha256 != one.weights_sha256


def test_an_interrupted_stage_goes_on_to_the_same_bytes(
    model_dir: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsify.prune.rebuild import Rebuilder

    whole = make(model_dir, corpus, tmp_path / "a" / "v", reconstruct=TRAIN)
    train, calls = Rebuilder.train, list[int]()

    def stop_at_the_second(self: Rebuilder, index: int, masks: Any) -> Any:
        calls.append(index)
        if index == 1:
            raise KeyboardInterrupt
        return train(self, index, masks)

    monkeypatch.setattr(Rebuilder, "train", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        make(model_dir, corpus, tmp_path / "b" / "v", reconstruct=TRAIN)
    monkeypatch.setattr(Rebuilder, "train", train)
    assert calls == [0, 1]
    assert make(model_dir, corpus, tmp_path / "b" / "v", reconstruct=TRAIN).weights_sha256 == whole.weights_sha256


def test_settings_are_strict_and_text_is_needed(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown key 'steps'"):
        recipe(reconstruct={"steps": 3})
    with pytest.raises(RecipeError, match="needs calibration"):
        parse_recipe(
            {"stages": [{"prune": {"method": "magnitude", "sparsity": 0.5, "reconstruct": {}}}]}, name="r", where="t"
        )
    assert "reconstruct" not in recipe().resolved()["stages"][0]["prune"], "older hashes stay"
    assert recipe(reconstruct={}).resolved()["stages"][0]["prune"]["reconstruct"]["epochs"] == 8
    with pytest.raises(SparsifyError, match="two mini-batches"):
        make(model_dir, corpus, tmp_path / "v", reconstruct={"batch_tokens": 100_000})


def test_the_plan_counts_it(model_dir: Path) -> None:
    model = load_model(model_dir)
    structure, machine = find_structure(model), Machine("cpu", 1)
    stored = open_checkpoint(model_dir).bytes
    plain, trained = (
        plan_prune(model, structure, stage.prune, machine, stored=stored)
        for stage in (recipe().stages[0], recipe(reconstruct={}).stages[0])
        if stage.prune is not None
    )
    assert trained.seconds > plain.seconds and trained.host_bytes > plain.host_bytes
