"""Recipes carried out on a tiny real model: results, records, shared stages and wrong input."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sparsify import run
from sparsify.blocks import load_model, load_tokenizer
from sparsify.calibration import draw_sequences, make_batches
from sparsify.checkpoint import model_fingerprint, open_checkpoint
from sparsify.corpus import sha256_file
from sparsify.errors import CheckpointError, RecipeError, SparsifyError
from sparsify.gram import Gram
from sparsify.masks import broken_groups, load_masks
from sparsify.recipe import Calibration, Recipe, parse_recipe
from sparsify.run import MakeOptions, key_of, make_variant
from sparsify.stage import StageInput, StageResult
from sparsify.variant import VariantInfo, read_variant

CALIBRATION = {"source": "text", "samples": 16, "seq": 24}
PRUNE = {"prune": {"method": "sparsegpt", "sparsity": 0.7, "block_size": 16, "calibration": CALIBRATION}}
TWO_OF_FOUR = {"prune": {"method": "sparsegpt", "pattern": "2:4", "block_size": 16, "calibration": CALIBRATION}}
FINETUNE = {
    "finetune": {
        "data": ["text"],
        "tokens": 600,
        "batch_tokens": 128,
        "lr": 1e-2,
        "losses": {"ce": 1.0, "squarehead": 1.0},
        "teacher": "base",
    }
}
QUANTIZE = {"quantize": {}}


def recipe_of(*stages: object, name: str = "test") -> Recipe:
    return parse_recipe({"stages": list(stages)}, name=name, where="test")


class Workshop:
    """Makes variants of one model with one store."""

    def __init__(self, model: Path, corpus: Path, root: Path) -> None:
        self.model, self.corpus, self.root = model, corpus, root

    def make(
        self, recipe: Recipe, name: str = "v", *, model: Path | None = None, teacher: Path | None = None
    ) -> tuple[Path, VariantInfo]:
        out = self.root / "variants" / name
        options = MakeOptions(
            store=self.root / "store",
            name=name,
            base="tiny",
            baseline="dense",
            resolve_corpus=lambda source: self.corpus if source == "text" else Path(source),
            teacher_dir=teacher,
        )
        return out, make_variant(model or self.model, recipe, out, options=options)


@pytest.fixture
def shop(model_dir: Path, corpus: Path, tmp_path: Path) -> Workshop:
    return Workshop(model_dir, corpus, tmp_path)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the stages that were really run."""
    kinds: list[str] = []
    execute = run.execute

    def counting(stage: run.Stage, given: StageInput) -> StageResult:
        kinds.append(stage.kind)
        return execute(stage, given)

    monkeypatch.setattr(run, "execute", counting)
    return kinds


def logits(directory: Path) -> Tensor:
    with torch.no_grad():
        out: Tensor = load_model(directory)(torch.arange(20).reshape(2, 10)).logits
    return out


def test_pruned_variant_is_what_its_record_says(shop: Workshop, corpus: Path, model_dir: Path) -> None:
    out, info = shop.make(recipe_of(PRUNE), "s70")
    before, after = load_file(model_dir / "model.safetensors"), load_file(out / "model.safetensors")
    masks = load_masks(out)
    assert sorted(masks) == sorted(name for name in before if name.endswith("_proj.weight"))
    zeros = total = 0
    for name, tensor in after.items():
        assert tensor.dtype == torch.bfloat16
        if name not in masks:
            assert torch.equal(tensor, before[name]), "embedding, head and norms are not touched"
            continue
        gone = tensor[~masks[name]]
        assert bool((gone == 0).all()) and not bool(torch.signbit(gone).any())
        assert abs(int((~masks[name]).sum()) - 0.7 * tensor.numel()) < 1
        assert info.sparsity.per_linear[name.removesuffix(".weight")] == pytest.approx(
            float((tensor == 0).float().mean())
        )
        zeros, total = zeros + int((tensor == 0).sum()), total + tensor.numel()
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    assert pruned == round(0.7 * sum(mask.numel() for mask in masks.values())), "the target is met to the weight"
    assert info.sparsity.linears == pytest.approx(zeros / total)
    assert info.sparsity.model == pytest.approx(zeros / sum(tensor.numel() for tensor in before.values()))
    assert (info.name, info.base, info.baseline, info.weight_bits, info.dtype) == (
        "s70",
        "tiny",
        "dense",
        16,
        "bfloat16",
    )
    assert [entry.model_dump() for entry in info.calibration] == [
        {"source": "text", "sha256": sha256_file(corpus), "samples": 16, "seq": 24, "seed": 0, "holdout": 0.0}
    ]
    assert read_variant(out) == info
    text = (out / "variant.json").read_text() + (out / "config.json").read_text()
    assert str(shop.root) not in text and "sparsity_config" not in text


def test_reloaded_logits_are_those_of_the_weights(shop: Workshop) -> None:
    out, _ = shop.make(recipe_of(PRUNE))
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
        theirs = loaded(torch.arange(20).reshape(2, 10)).logits
        by_hand = load_model(shop.model)
        stored = load_file(out / "model.safetensors")
        by_hand.load_state_dict({name: tensor.float() for name, tensor in stored.items()}, strict=False)
        assert torch.equal(by_hand(torch.arange(20).reshape(2, 10)).logits, theirs)
    assert not torch.allclose(logits(shop.model), theirs)


def test_inputs_come_from_the_pruned_blocks_before(shop: Workshop, corpus: Path) -> None:
    """The statistics of block 1 follow from block 0 as it was stored, over real tokens only."""
    out, info = shop.make(recipe_of(PRUNE))
    settings = Calibration.model_validate(CALIBRATION)
    sequences = draw_sequences(corpus, load_tokenizer(out), settings)
    assert len(sequences) == 16 and max(map(len, sequences)) <= 24
    pruned, gram = load_model(out), Gram()
    seen: list[Tensor] = []
    target = pruned.get_submodule("model.layers.1.self_attn.q_proj")
    target.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    with torch.no_grad():
        for sequence in sequences:  # one by one: no padding at all
            pruned(torch.tensor([sequence]))
            gram.add(seen.pop(), torch.ones(1, len(sequence), dtype=torch.bool))
    before = open_checkpoint(shop.model).read("model.layers.1.self_attn.q_proj.weight").float()
    after = open_checkpoint(out).read("model.layers.1.self_attn.q_proj.weight").float()
    from sparsify.prune.problem import relative_error

    expected = relative_error(before, after, gram.hessian("q_proj"))
    recorded = info.stages[0]["linears"]["model.layers.1.self_attn.q_proj"]["relative_error"]
    assert recorded == pytest.approx(expected, rel=0.02)  # the stored weights are rounded to bf16
    assert info.stages[0]["calibration_tokens"] == sum(map(len, sequences))


def test_batches_hold_every_sequence_once() -> None:
    sequences = [tuple(range(1, n + 1)) for n in (5, 3, 9, 2, 9)]
    batches = make_batches(sequences, batch_tokens=12)
    assert all(batch.ids.numel() <= 12 for batch in batches)
    rows = [tuple(ids[real].tolist()) for batch in batches for ids, real in zip(batch.ids, batch.real, strict=True)]
    assert sorted(rows) == sorted(sequences)


def test_sparsegpt_loses_less_than_wanda_in_every_linear(shop: Workshop) -> None:
    def errors(method: str) -> dict[str, float]:
        stage = {"method": method, "sparsity": 0.6, "calibration": CALIBRATION}
        _, info = shop.make(recipe_of({"prune": stage}), method)
        return {name: stats["relative_error"] for name, stats in info.stages[0]["linears"].items()}

    ours, theirs = errors("sparsegpt"), errors("wanda")
    # Later blocks see other inputs, because the blocks before them were pruned otherwise.
    first = [name for name in ours if name.startswith("model.layers.0.")]
    assert len(first) == 7 and all(ours[name] < theirs[name] for name in first)


def test_magnitude_needs_no_text(shop: Workshop) -> None:
    out, info = shop.make(recipe_of({"prune": {"method": "magnitude", "sparsity": 0.5}}))
    assert info.calibration == [] and info.sparsity.linears == pytest.approx(0.5, abs=1e-3)
    weight = open_checkpoint(shop.model).read("model.layers.2.mlp.down_proj.weight")
    mask = load_masks(out)["model.layers.2.mlp.down_proj.weight"]
    assert float(weight[mask].abs().min()) >= float(weight[~mask].abs().max())


def test_recovered_variant_keeps_zeros_and_learns(shop: Workshop) -> None:
    pruned, _ = shop.make(recipe_of(PRUNE), "pruned")
    out, info = shop.make(recipe_of(PRUNE, FINETUNE), "recovered")
    masks = load_masks(out)
    assert masks and all(torch.equal(mask, load_masks(pruned)[name]) for name, mask in masks.items())
    for name, tensor in load_file(out / "model.safetensors").items():
        if name in masks:
            gone = tensor[~masks[name]]
            assert bool((gone == 0).all()) and not bool(torch.signbit(gone).any())
    assert [entry.source for entry in info.corpora] == ["text"] and info.corpora[0].tokens >= 600
    assert not torch.equal(logits(out), logits(pruned))


@pytest.mark.parametrize("stage", [PRUNE, TWO_OF_FOUR])
def test_int8_keeps_every_zero(shop: Workshop, stage: dict[str, object]) -> None:
    pruned, _ = shop.make(recipe_of(stage), "pruned")
    out, info = shop.make(recipe_of(stage, QUANTIZE), "int8")
    before, after, masks = open_checkpoint(pruned), open_checkpoint(out), load_masks(out)
    assert len(masks) == 21
    for name, mask in masks.items():
        weight, scale = after.read(name), after.read(name + "_scale")
        assert weight.dtype == torch.int8 and scale.dtype == torch.float32 and scale.shape == (len(weight), 1)
        assert int((weight[~mask] != 0).sum()) == 0
        original = before.read(name).float()
        assert bool(((weight * scale - original).abs() <= scale * 0.5001).all())
        assert weight.abs().amax(1).tolist() == [127] * len(weight)
        if stage is TWO_OF_FOUR:
            assert broken_groups(weight, 2, 4) == 0
    assert info.weight_bits == 8 and info.sparsity.linears is not None
    assert info.sparsity.linears >= (0.5 if stage is TWO_OF_FOUR else 0.6999)
    assert "lm_head.weight" not in after.tensors and after.tensors["model.embed_tokens.weight"].dtype == "BF16"
    assert info.bytes < before.bytes


def test_skipped_linears_stay(shop: Workshop) -> None:
    skip = {"prune": {**PRUNE["prune"], "skip": ["down_proj"]}}
    out, info = shop.make(recipe_of(skip, {"quantize": {"skip": ["lm_head", "model.layers.0.*"]}}))
    checkpoint = open_checkpoint(out)
    assert checkpoint.tensors["model.layers.0.mlp.up_proj.weight"].dtype == "BF16"
    assert checkpoint.tensors["model.layers.1.mlp.up_proj.weight"].dtype == "I8"
    assert "model.layers.0.mlp.up_proj" in checkpoint.config["quantization_config"]["ignore"]
    assert info.sparsity.per_linear["model.layers.0.mlp.down_proj"] < 0.1
    assert info.weight_bits == 16, "the widest linear counts"
    with pytest.raises(SparsifyError, match="'dwon_proj' fits no linear"):
        shop.make(recipe_of({"prune": {**PRUNE["prune"], "skip": ["dwon_proj"]}}), "typo")


def test_second_pruning_keeps_the_first(shop: Workshop) -> None:
    half = {"prune": {**PRUNE["prune"], "sparsity": 0.5}}
    first, _ = shop.make(recipe_of(half), "half")
    second, info = shop.make(recipe_of(half, PRUNE), "more")
    early, late = load_masks(first), load_masks(second)
    for name, mask in late.items():
        assert not bool((mask & ~early[name]).any())
        assert abs(int((~mask).sum()) - 0.7 * mask.numel()) < 1
    assert [stage["kind"] for stage in info.stages] == ["prune", "prune"]


def test_a_shared_beginning_runs_once(shop: Workshop, executed: list[str]) -> None:
    out, _ = shop.make(recipe_of(PRUNE), "s70")
    shop.make(recipe_of(PRUNE, FINETUNE), "recovered")
    shop.make(recipe_of(PRUNE, FINETUNE, QUANTIZE), "recovered-int8")
    assert executed == ["prune", "finetune", "quantize"]
    shop.make(recipe_of(PRUNE, FINETUNE, QUANTIZE), "recovered-int8")
    shutil.rmtree(out)
    _, again = shop.make(recipe_of(PRUNE), "s70")
    assert len(executed) == 3, "finished stages are taken from the store"
    assert again == read_variant(out)


def test_a_finished_variant_is_left_alone(shop: Workshop) -> None:
    out, info = shop.make(recipe_of(PRUNE))
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    assert shop.make(recipe_of(PRUNE))[1] == info
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    _, other = shop.make(recipe_of(TWO_OF_FOUR))
    assert other.recipe != info.recipe and read_variant(out) == other
    assert sorted(path.name for path in out.parent.iterdir()) == ["v"]


def test_keys_follow_everything_a_stage_depends_on(tmp_path: Path, model_dir: Path, corpus: Path) -> None:
    model, text = model_fingerprint(model_dir), {"text": sha256_file(corpus)}
    keys = key_of(model, recipe_of(PRUNE, FINETUNE), text)
    assert key_of(model, recipe_of(PRUNE), text) == keys[:1]
    assert key_of("other model", recipe_of(PRUNE), text) != keys[:1]
    assert key_of(model, recipe_of(PRUNE), {"text": "other text"}) != keys[:1]
    seeded = {"prune": {**PRUNE["prune"], "calibration": {**CALIBRATION, "seed": 1}}}
    changed = key_of(model, recipe_of(seeded, FINETUNE), text)
    assert not set(changed) & set(keys), "a change also changes what comes after it"


def test_the_dense_recipe_copies(shop: Workshop) -> None:
    out, info = shop.make(recipe_of(name="dense"), "dense")
    assert (out / "model.safetensors").read_bytes() == (shop.model / "model.safetensors").read_bytes()
    assert info.stages == [] and info.sparsity.linears == 0.0 and info.recipe is not None
    assert not (out / "masks.safetensors").exists()


def test_wrong_input(shop: Workshop, tmp_path: Path) -> None:
    foreign = tmp_path / "variants" / "v"
    foreign.mkdir(parents=True)
    (foreign / "thesis.tex").write_text("do not delete")
    with pytest.raises(SparsifyError, match="is not a variant; choose another output folder"):
        shop.make(recipe_of(PRUNE))
    assert (foreign / "thesis.tex").exists()
    with pytest.raises(CheckpointError, match="does not exist"):
        shop.make(recipe_of(PRUNE), "w", model=tmp_path / "nowhere")
    quantized, _ = shop.make(recipe_of(QUANTIZE), "q")
    with pytest.raises(SparsifyError, match="is quantized; prune the unquantized model"):
        shop.make(recipe_of(PRUNE), "w", model=quantized)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    elsewhere = {"prune": {**PRUNE["prune"], "calibration": {"source": str(empty)}}}
    with pytest.raises(SparsifyError, match="empty"):
        shop.make(recipe_of(elsewhere), "w")
    options = MakeOptions(store=tmp_path / "s", name="x", base="tiny")
    with pytest.raises(RecipeError, match="corpus 'text' is not a file"):
        make_variant(shop.model, recipe_of(PRUNE), tmp_path / "x", options=options)


def test_changed_store_is_noticed(shop: Workshop) -> None:
    _, info = shop.make(recipe_of(PRUNE))
    path = shop.root / "store" / info.stages[0]["key"] / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="was changed after it was made; remove that folder"):
        shop.make(recipe_of(PRUNE), "again")


def test_model_without_tokenizer(shop: Workshop, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(shop.model, tmp_path / "bare"))
    for path in bare.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        shop.make(recipe_of(PRUNE), model=bare)


def test_few_rows_are_an_event(tmp_path: Path, model_dir: Path, make_corpus: Callable[..., Path]) -> None:
    shop = Workshop(model_dir, make_corpus(tmp_path / "few.jsonl", rows=5), tmp_path)
    _, info = shop.make(recipe_of(PRUNE))
    assert [found.model_dump() for found in info.events] == [
        {"kind": "calibration_short", "where": "text", "detail": "5 rows instead of 16"}
    ]
    assert info.calibration[0].samples == 5


def test_untied_head_is_left_alone(tmp_path: Path, corpus: Path, make_model: Callable[..., Path]) -> None:
    shop = Workshop(make_model(tmp_path / "model", tied=False, dtype="float32"), corpus, tmp_path)
    out, info = shop.make(recipe_of(PRUNE, QUANTIZE))
    checkpoint = open_checkpoint(out)
    assert checkpoint.tensors["lm_head.weight"].dtype == "F32"
    assert checkpoint.config["quantization_config"]["ignore"] == ["lm_head"]
    assert info.dtype == "float32"


def test_record_is_plain_json(shop: Workshop) -> None:
    out, _ = shop.make(recipe_of(PRUNE, QUANTIZE))
    numbers = json.loads((out / "variant.json").read_text())["stages"][0]["linears"]
    assert all(math.isfinite(value) for stats in numbers.values() for value in stats.values())


def test_a_given_teacher_is_part_of_the_stage(shop: Workshop, make_model: Callable[..., Path], tmp_path: Path) -> None:
    given = {"finetune": {**FINETUNE["finetune"], "teacher": "given"}}
    with pytest.raises(RecipeError, match="learns from a given teacher; name one"):
        shop.make(recipe_of(given))
    sparse, _ = shop.make(recipe_of({"prune": {"method": "magnitude", "sparsity": 0.7}}), "sparse")
    _, first = shop.make(recipe_of(given), "first", model=sparse, teacher=shop.model)
    other = make_model(tmp_path / "other", seed=5)
    _, second = shop.make(recipe_of(given), "second", model=sparse, teacher=other)
    assert first.stages[-1]["key"] != second.stages[-1]["key"] and first.weights_sha256 != second.weights_sha256
    assert first.stages[-1]["teacher_weights_sha256"] == open_checkpoint(shop.model).weights_sha256
    # The masks that came with the sparse model held; the teacher is dense.
    assert first.sparsity.linears == pytest.approx(0.7, abs=0.01) and not first.events


def test_zeros_without_masks_are_an_event(shop: Workshop) -> None:
    sparse, _ = shop.make(recipe_of({"prune": {"method": "magnitude", "sparsity": 0.7}}), "sparse")
    (sparse / "masks.safetensors").unlink()
    _, info = shop.make(recipe_of(FINETUNE), "trained", model=sparse)
    assert [(event.kind, event.where) for event in info.events] == [("zeros_not_held", "sparse")]
    assert info.sparsity.linears is not None and info.sparsity.linears < 0.3
