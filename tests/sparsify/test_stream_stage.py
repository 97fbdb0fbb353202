"""The prune stage on a streamed model: order, budgets, calibration text, what is kept and what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsify import activations
from sparsify.blocks import load_model, load_tokenizer
from sparsify.calibration import draw_sequences, make_batches, split_holdout
from sparsify.checkpoint import open_checkpoint
from sparsify.dataset import DatasetName, fetch_dataset
from sparsify.errors import RecipeError, SparsifyError
from sparsify.gram import Gram
from sparsify.masks import load_masks
from sparsify.prune.problem import Budget, relative_error
from sparsify.prune.sparsegpt import sparsegpt
from sparsify.recipe import Calibration, parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.variant import VariantInfo

CALIBRATION = {"source": "text", "samples": 16, "seq": 24}
PRUNE = {"method": "sparsegpt", "sparsity": 0.6, "block_size": 16, "calibration": CALIBRATION}


class Shop:
    """Prunes one model in one folder."""

    def __init__(self, model: Path, corpus: Path, root: Path) -> None:
        self.model, self.corpus, self.root = model, corpus, root

    def prune(self, name: str = "v", model: Path | None = None, **changes: Any) -> tuple[Path, VariantInfo]:
        recipe = parse_recipe({"stages": [{"prune": {**PRUNE, **changes}}]}, name=name, where="test")
        options = MakeOptions(
            store=self.root / "store", name=name, base="tiny", resolve_corpus=lambda _source: self.corpus
        )
        out = self.root / name
        return out, make_variant(model or self.model, recipe, out, options=options)


@pytest.fixture
def shop(model_dir: Path, corpus: Path, tmp_path: Path) -> Shop:
    return Shop(model_dir, corpus, tmp_path)


def zeros(directory: Path) -> dict[str, int]:
    return {name: int((~mask).sum()) for name, mask in load_masks(directory).items()}


# --- order ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_sequential_order_solves_each_group_on_what_is_pruned_already(shop: Shop, corpus: Path) -> None:
    """The inputs of o_proj come from pruned q, k and v: solved here anew from the stored weights, it is the same."""
    out, info = shop.prune(order="sequential")
    plain, _ = shop.prune("plain")
    name = "model.layers.0.self_attn.o_proj"
    sequences = draw_sequences(corpus, load_tokenizer(out), Calibration.model_validate(CALIBRATION))

    def solved(parts: str) -> torch.Tensor:
        model, stored = load_model(shop.model), open_checkpoint(out)
        for part in parts:
            weight = f"model.layers.0.self_attn.{part}_proj.weight"
            model.get_parameter(weight).copy_(stored.read(weight))
        gram, seen = Gram(), []
        model.get_submodule(name).register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        for batch in make_batches(sequences):
            model(batch.ids, use_cache=False)
            gram.add(seen.pop(), batch.real)
        weight = open_checkpoint(shop.model).read(f"{name}.weight").float()
        return sparsegpt(weight, gram.hessian(name), Budget(0.6), block_size=16).weight.bfloat16()

    assert torch.equal(open_checkpoint(out).read(f"{name}.weight"), solved("qkv"))
    assert torch.equal(open_checkpoint(plain).read(f"{name}.weight"), solved(""))
    assert not torch.equal(solved("qkv"), solved(""))
    for directory in (out, plain):
        first = open_checkpoint(directory).read("model.layers.0.self_attn.q_proj.weight")
        assert torch.equal(first, open_checkpoint(plain).read("model.layers.0.self_attn.q_proj.weight"))
    assert info.stages[0]["order"] == "sequential"
    assert list(info.stages[0]["linears"]) == list(info.sparsity.per_linear)


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_a_slope_is_chosen_on_held_out_calibration_text(shop: Shop) -> None:
    text = {**CALIBRATION, "holdout": 0.25}
    out, info = shop.prune(allocation={"kind": "slope"}, calibration=text)
    found = info.stages[0]["allocation"]
    assert (found["sequences"], found["held_out_sequences"]) == (12, 4)
    losses = dict(map(tuple, found["losses"]))
    assert len(losses) > 4 and 0.0 in losses and found["beta"] == min(losses, key=lambda beta: losses[beta])
    total = sum(mask.numel() for mask in load_masks(out).values())
    assert sum(zeros(out).values()) == round(0.6 * total)
    assert info.calibration[0].holdout == 0.25 and info.calibration[0].samples == 16
    again, _ = shop.prune("given", allocation={"kind": "slope", "beta": found["beta"]}, calibration=text)
    assert open_checkpoint(again).weights_sha256 == open_checkpoint(out).weights_sha256


@torch.no_grad()
def test_the_loss_of_a_slope_is_that_of_the_pruned_model(shop: Shop, corpus: Path) -> None:
    """Slope 0 loses what the uniformly pruned model loses on the sequences that were held out, by transformers."""
    text = {**CALIBRATION, "holdout": 0.25}
    _, info = shop.prune(allocation={"kind": "slope"}, calibration=text)
    losses = dict(map(tuple, info.stages[0]["allocation"]["losses"]))
    known, held = split_holdout(draw_sequences(corpus, load_tokenizer(shop.model), Calibration(**text)), 0.25)
    model = load_model(shop.model)
    # The same pruning by hand: every block from the inputs that the blocks before leave, rounded nowhere.
    for index in range(3):
        names = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and f"layers.{index}." in n]
        seen: dict[str, Gram] = {name: Gram() for name in names}
        for batch in make_batches(known):
            hooks = [
                model.get_submodule(name).register_forward_pre_hook(
                    lambda _m, args, gram=seen[name], real=batch.real: gram.add(args[0], real)
                )
                for name in names
            ]
            model(batch.ids, use_cache=False)
            for hook in hooks:
                hook.remove()
        solved = {
            name: sparsegpt(
                model.get_parameter(f"{name}.weight").data, seen[name].hessian(name), Budget(0.6), block_size=16
            ).weight
            for name in names
        }
        for name, weight in solved.items():
            model.get_parameter(f"{name}.weight").copy_(weight)
    total = tokens = 0.0
    for sequence in held:
        ids = torch.tensor([sequence])
        total += float(model(ids, labels=ids).loss) * (len(sequence) - 1)
        tokens += len(sequence) - 1
    assert losses[0.0] == pytest.approx(total / tokens, rel=2e-3)


def test_owl_gives_outlier_blocks_more_weights(shop: Shop) -> None:
    out, info = shop.prune(method="wanda", scope="row", allocation={"kind": "owl", "spread": 0.1, "multiple": 3.0})
    outliers = info.stages[0]["allocation"]["outliers"]
    share = [0.0, 0.0, 0.0]
    size = [0, 0, 0]
    for name, mask in load_masks(out).items():
        index = int(name.split(".")[2])
        share[index] += float((~mask).sum())
        size[index] += mask.numel()
    found = [one / whole for one, whole in zip(share, size, strict=True)]
    assert sum(share) == round(0.6 * sum(size))
    assert outliers.index(max(outliers)) == found.index(min(found))
    assert max(found) - min(found) == pytest.approx(0.2, abs=0.01)


def test_budgets_from_a_file(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    path.write_text('"model.layers.0.*": 0.5\n"model.layers.2.mlp.down_proj": 0.75\n')
    out, info = shop.prune(
        method="magnitude", calibration=None, scope="matrix", allocation={"kind": "file", "file": str(path)}
    )
    found = zeros(out)
    assert found["model.layers.0.mlp.up_proj.weight"] == 48 * 32 // 2
    assert found["model.layers.2.mlp.down_proj.weight"] == 48 * 32 * 3 // 4
    assert sum(found.values()) == round(0.6 * sum(mask.numel() for mask in load_masks(out).values()))
    assert info.recipe is not None and str(tmp_path) not in json.dumps(info.recipe.stages)
    path.write_text('"model.layers.7.*": 0.5\n')
    with pytest.raises(RecipeError, match=r"'model\.layers\.7\.\*' fits no linear"):
        shop.prune(
            "w", method="magnitude", calibration=None, scope="matrix", allocation={"kind": "file", "file": str(path)}
        )


# --- methods ----------------------------------------------------------------------------------------------------------


def test_admm_and_refine_lose_less_than_sparsegpt(shop: Shop) -> None:
    def errors(name: str, **changes: Any) -> dict[str, float]:
        _, info = shop.prune(name, **changes)
        found = info.stages[0]["linears"]
        return {n: found[n]["relative_error"] for n in found if n.startswith("model.layers.0.")}

    plain = errors("plain")
    refined = errors("refined", refine=True)
    best = errors("admm", method="admm", refine=True)
    assert all(refined[name] <= plain[name] for name in plain)
    assert sum(best.values()) < sum(refined.values()) < sum(plain.values())


def test_the_table_of_linears(shop: Shop) -> None:
    out, info = shop.prune()
    table = info.stages[0]["linears"]
    assert list(table) == list(info.sparsity.per_linear)
    for name, row in table.items():
        assert row["sparsity"] == pytest.approx(info.sparsity.per_linear[name], abs=0.01)
        assert {"relative_error", "damping", "seconds", "host_bytes", "device_bytes", "tokens"} <= row.keys()
        assert row["tokens"] == info.stages[0]["calibration_tokens"] and 0 <= row["relative_error"] < 1
    used = info.stages[0]["used"]
    assert used["seconds"] > 0 and used["host_bytes"] >= 0 and used["device_bytes"] == 0 and used["resumed_blocks"] == 0


def test_the_head_is_pruned_only_where_it_is_named(
    tmp_path: Path, corpus: Path, make_model: Callable[..., Path]
) -> None:
    tied = Shop(make_model(tmp_path / "tied"), corpus, tmp_path / "t")
    with pytest.raises(SparsifyError, match="the head shares its weight with the embedding"):
        tied.prune(include=["lm_head"])
    shop = Shop(make_model(tmp_path / "model", tied=False, dtype="float32"), corpus, tmp_path)
    plain, _ = shop.prune("plain")
    out, info = shop.prune("head", include=["lm_head"])
    before, after = open_checkpoint(plain), open_checkpoint(out)
    differ = [name for name in before.tensors if not torch.equal(before.read(name), after.read(name))]
    assert differ == ["lm_head.weight"] and "lm_head" in info.stages[0]["linears"]
    # Solved here anew, from what the pruned model gives its head.
    model, gram, seen = load_model(plain), Gram(), []
    model.get_submodule("lm_head").register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    sequences = draw_sequences(corpus, load_tokenizer(out), Calibration.model_validate(CALIBRATION))
    with torch.no_grad():
        for batch in make_batches(sequences):
            model(batch.ids, use_cache=False)
            gram.add(seen.pop(), batch.real)
    expected = sparsegpt(before.read("lm_head.weight"), gram.hessian("lm_head"), Budget(0.6), block_size=16)
    assert torch.allclose(after.read("lm_head.weight"), expected.weight, atol=1e-5)
    assert zeros(out)["lm_head.weight"] == round(0.6 * before.tensors["lm_head.weight"].numel)


# --- zeros of earlier pruning -----------------------------------------------------------------------------------------


def test_old_zeros_stay_unless_freed(shop: Shop) -> None:
    first, _ = shop.prune("half", sparsity=0.5)
    kept, _ = shop.prune("kept", model=first)
    freed, _ = shop.prune("freed", model=first, keep_zeros=False)
    early = load_masks(first)
    assert not any(bool((mask & ~early[name]).any()) for name, mask in load_masks(kept).items())
    assert any(bool((mask & ~early[name]).any()) for name, mask in load_masks(freed).items())
    assert zeros(kept) == zeros(freed) == {n: round(0.6 * mask.numel()) for n, mask in early.items()}


def test_zeros_without_masks_are_kept_and_said(shop: Shop) -> None:
    first, _ = shop.prune("half", sparsity=0.5)
    early = dict(load_masks(first))
    (first / "masks.safetensors").unlink()
    kept, info = shop.prune("kept", model=first)
    assert {event.kind for event in info.events} == {"zeros_kept"} and len(info.events) == 21
    assert not any(bool((mask & ~early[name]).any()) for name, mask in load_masks(kept).items())


# --- where activations wait -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["block", "sequential"])
def test_activations_in_a_file_give_the_same_bytes(shop: Shop, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory, _ = shop.prune("memory", order=order)
    monkeypatch.setattr("sparsify.stream.MEMORY_BYTES", 0)
    made: list[Path] = []
    spill = activations.Activations.__init__

    def remember(self: activations.Activations, path: Path | None = None) -> None:
        assert path is not None
        made.append(path)
        spill(self, path)

    monkeypatch.setattr(activations.Activations, "__init__", remember)
    shop.root = shop.root / "other"
    in_file, _ = shop.prune("file", order=order)
    assert made and not made[0].exists()
    assert open_checkpoint(in_file).weights_sha256 == open_checkpoint(in_memory).weights_sha256


# --- calibration text -------------------------------------------------------------------------------------------------


def test_windows_of_a_text_file(model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"the cat sees bird {n} and then the river\n" for n in range(200)))
    tokenizer = load_tokenizer(model_dir)
    ids = tokenizer(path.read_text(), add_special_tokens=False)["input_ids"]
    settings = Calibration(source="x", samples=5, seq=32, seed=3)
    drawn = draw_sequences(path, tokenizer, settings)
    assert len(drawn) == 5 == len(set(drawn)) and all(len(window) == 32 for window in drawn)
    windows = {tuple(ids[at : at + 32]) for at in range(0, len(ids), 32)}
    assert set(drawn) <= windows
    assert draw_sequences(path, tokenizer, settings) == drawn
    assert draw_sequences(path, tokenizer, settings.model_copy(update={"seed": 4})) != drawn
    with pytest.raises(SparsifyError, match="no window of 100000; use more text or a smaller seq"):
        draw_sequences(path, tokenizer, settings.model_copy(update={"seq": 100_000}))
    path.write_bytes(b"\xff\xfe text")
    with pytest.raises(SparsifyError, match="is not UTF-8 text"):
        draw_sequences(path, tokenizer, settings)


def test_windows_of_text_rows(model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"one two {n} three"}) + "\n" for n in range(100)))
    tokenizer = load_tokenizer(model_dir)
    drawn = draw_sequences(path, tokenizer, Calibration(source="x", samples=4, seq=40))
    assert len(drawn) == 4 and all(len(window) == 40 and tokenizer.eos_token_id in window for window in drawn)
    path.write_text(path.read_text() + '{"texts": 1}\n')
    with pytest.raises(SparsifyError, match=r"rows\.jsonl:101 is no JSON object with `text`"):
        draw_sequences(path, tokenizer, Calibration(source="x", samples=4, seq=40))


def test_the_variant_says_which_text(shop: Shop, tmp_path: Path) -> None:
    shop.corpus = tmp_path / "book.txt"
    shop.corpus.write_text("the cat sees the red bird\n" * 300)
    _, info = shop.prune(calibration={**CALIBRATION, "samples": 8})
    from sparsify.corpus import sha256_file

    assert info.calibration[0].sha256 == sha256_file(shop.corpus)
    assert info.stages[0]["calibration_tokens"] == 8 * 24


def test_a_data_set_directory(model_dir: Path, tmp_path: Path, make_corpus: Callable[..., Path]) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": f"red bird {n}"}) + "\n" for n in range(50)))
    path = fetch_dataset(f"hub:{folder}", tmp_path / "cache", offline=True)
    assert len(path.read_text().splitlines()) == 50
    drawn = draw_sequences(path, load_tokenizer(model_dir), Calibration(source="x", samples=3, seq=16))
    assert len(drawn) == 3
    stamp = path.stat().st_mtime_ns
    assert fetch_dataset(f"hub:{folder}", tmp_path / "cache") == path and path.stat().st_mtime_ns == stamp
    with pytest.raises(SparsifyError, match="nobody/nothing cannot be fetched"):
        fetch_dataset("hub:nobody/nothing", tmp_path / "cache", offline=True)


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("hub:c4", ("c4", None, "train")),
        ("hub:allenai/c4:validation", ("allenai/c4", None, "validation")),
        ("hub:Salesforce/wikitext/wikitext-2-raw-v1:train", ("Salesforce/wikitext", "wikitext-2-raw-v1", "train")),
    ],
)
def test_names_of_data_sets(source: str, parsed: tuple[str, str | None, str]) -> None:
    found = DatasetName.parse(source)
    assert (found.name, found.config, found.split) == parsed
    with pytest.raises(RecipeError, match="is not hub:OWNER/NAME"):
        DatasetName.parse("hub:a/b/c/d")


def test_relative_error_of_the_table_is_the_gram_form(shop: Shop, corpus: Path) -> None:
    """Against float64 over the inputs themselves."""
    out, info = shop.prune()
    name = "model.layers.0.mlp.down_proj"
    model, seen = load_model(shop.model), []
    model.get_submodule(name).register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    stored = open_checkpoint(shop.model).read(f"{name}.weight").double()
    pruned = open_checkpoint(out).read(f"{name}.weight").double()
    change = energy = 0.0
    with torch.no_grad():
        for sequence in draw_sequences(corpus, load_tokenizer(out), Calibration.model_validate(CALIBRATION)):
            model(torch.tensor([sequence]), use_cache=False)
            rows = seen.pop()[0].double()
            change += float((rows @ (stored - pruned).T).square().sum())
            energy += float((rows @ stored.T).square().sum())
    assert info.stages[0]["linears"][name]["relative_error"] == pytest.approx(change / energy, rel=0.02)
    assert relative_error(stored, stored, torch.eye(48).double()) == 0.0
