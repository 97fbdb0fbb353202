"""Low-rank adapters: what they compute, and that merging them keeps the zeros and says what that costs."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sparsify.blocks import find_structure, load_model
from sparsify.errors import SparsifyError
from sparsify.train.lora import adapted, attach, check_lora, merge, merge_weight, target_linears
from sparsify.train.lora_settings import LoraSettings

pytest.importorskip("peft")

UP = "model.layers.1.mlp.up_proj"


def settings(**changes: object) -> LoraSettings:
    return LoraSettings.model_validate({"rank": 4, "alpha": 6.0, "dropout": 0.0, **changes})


def masks_of(model: torch.nn.Module, *names: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    found = {}
    for name in names:
        weight = model.get_submodule(name).weight.data
        mask = torch.rand(weight.shape, generator=generator) > 0.6
        weight.masked_fill_(~mask, 0.0)
        found[f"{name}.weight"] = mask
    return found


def trained(model: torch.nn.Module) -> None:
    """Give the adapters values, as training would."""
    generator = torch.Generator().manual_seed(4)
    for _, layer in adapted(model):
        weight = layer.lora_B["default"].weight.data
        weight.copy_(torch.randn(weight.shape, generator=generator))


@torch.no_grad()
def update_of(layer: object) -> torch.Tensor:
    down, up = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()  # type: ignore[attr-defined]
    found: torch.Tensor = 6.0 / 4 * (up @ down)
    return found


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def test_merging_one_weight_equals_the_definition_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, generator=generator).bfloat16()
    update = torch.randn(5, 7, generator=generator, dtype=torch.float64) / 8
    mask = torch.rand(5, 7, generator=generator) > 0.5
    weight.masked_fill_(~mask, 0.0)
    found = merge_weight(weight, update, mask, masked=False, stored=torch.bfloat16)
    whole = lost = rounded = 0.0
    for i in range(5):
        for j in range(7):
            change = float(update[i, j])
            whole += change**2
            if mask[i, j]:
                value = float(weight[i, j]) + change
                assert float(found.weight[i, j]) == pytest.approx(value, rel=1e-6)
                rounded += (float(torch.tensor(value, dtype=torch.float64).bfloat16()) - value) ** 2
            else:
                lost += change**2
                assert float(found.weight[i, j]) == 0.0 and not torch.signbit(found.weight[i, j])
    assert (found.update, found.projected, found.rounded) == pytest.approx((whole, lost, rounded), rel=1e-12)
    held = merge_weight(weight, update, mask, masked=True)
    assert held.projected == 0.0 and held.update == pytest.approx(whole - lost, rel=1e-12)
    assert torch.equal(held.weight, found.weight)


def test_adapters_start_as_nothing_and_only_they_train(model_dir: Path) -> None:
    model = load_model(model_dir)
    before = logits(model)
    names = find_structure(model).all_linears
    attach(model, names, {}, settings(), seed=0)
    assert torch.equal(logits(model), before)
    assert [name for name, _ in adapted(model)] == list(names)
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert free and all(".lora_A." in name or ".lora_B." in name for name in free)


def test_masked_adapters_merge_to_the_model_that_was_trained(model_dir: Path) -> None:
    model = load_model(model_dir)
    names = find_structure(model).all_linears
    masks = masks_of(model, *names)
    before = {name: model.get_submodule(name).weight.clone() for name in names}
    attach(model, names, masks, settings(), seed=0)
    trained(model)
    updates = {name: update_of(layer) for name, layer in adapted(model)}
    running = logits(model)
    report = merge(model, masks, stored=torch.float32)
    assert list(adapted(model)) == []
    torch.testing.assert_close(logits(model), running, rtol=2e-5, atol=2e-5)
    for name in names:
        mask, weight = masks[f"{name}.weight"], model.get_submodule(name).weight
        expected = before[name].double() + updates[name] * mask
        torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=1e-7)
        assert not weight[~mask].any() and not torch.signbit(weight[~mask]).any()
    assert report.projected == 0.0 and report.worst_linear == "" and report.linears == len(names)
    assert 0 < report.rounded < 1e-6


def test_plain_adapters_are_projected_and_the_cost_is_told(model_dir: Path) -> None:
    model = load_model(model_dir)
    names = find_structure(model).all_linears
    masks = masks_of(model, UP)
    attach(model, names, masks, settings(merge="project"), seed=0)
    trained(model)
    running, whole, lost = logits(model), 0.0, 0.0
    for name, layer in adapted(model):
        update = update_of(layer)
        whole += float((update**2).sum())
        if name == UP:
            lost = float((update[~masks[f"{UP}.weight"]] ** 2).sum())
            own = (lost / float((update**2).sum())) ** 0.5
    report = merge(model, masks, stored=torch.bfloat16)
    assert report.projected == pytest.approx((lost / whole) ** 0.5, rel=1e-9)
    assert (report.worst_linear, report.worst_projected) == (UP, pytest.approx(own, rel=1e-9))
    assert not model.get_submodule(UP).weight[~masks[f"{UP}.weight"]].any()
    assert (logits(model) - running).abs().max() > 1e-3


def test_merging_a_dense_model_equals_pefts_own_merge(model_dir: Path) -> None:
    import peft

    ours, theirs = load_model(model_dir), load_model(model_dir)
    names = find_structure(ours).all_linears
    attach(ours, names, {}, settings(), seed=0)
    trained(ours)
    wrapped = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6.0, target_modules=list(names)))
    for (_, layer), (_, other) in zip(adapted(ours), adapted(theirs), strict=True):
        other.lora_A["default"].weight.data.copy_(layer.lora_A["default"].weight)
        other.lora_B["default"].weight.data.copy_(layer.lora_B["default"].weight)
    merged = dict(wrapped.merge_and_unload().named_parameters())
    merge(ours, {}, stored=torch.float32)
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight, merged[name], rtol=1e-5, atol=1e-6)


def test_dropout_is_in_force_while_training(model_dir: Path) -> None:
    model = load_model(model_dir)
    masks = masks_of(model, UP)
    attach(model, [UP], masks, settings(dropout=0.5), seed=0)
    trained(model)
    quiet = logits(model)
    assert torch.equal(logits(model), quiet)
    model.train()
    assert not torch.equal(logits(model), quiet)


def test_masked_gradients_equal_those_of_the_definition(model_dir: Path) -> None:
    model = load_model(model_dir)
    masks = masks_of(model, UP)
    attach(model, [UP], masks, settings(), seed=0)
    trained(model)
    layer = model.get_submodule(UP)
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(5))
    layer(x).square().sum().backward()
    down, up = (w.weight.detach().double().requires_grad_() for w in (layer.lora_A["default"], layer.lora_B["default"]))
    weight = layer.base_layer.weight.double() + 1.5 * (up @ down) * masks[f"{UP}.weight"]
    (x.double() @ weight.T).square().sum().backward()
    torch.testing.assert_close(layer.lora_A["default"].weight.grad.double(), down.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.lora_B["default"].weight.grad.double(), up.grad, rtol=1e-4, atol=1e-4)


def test_the_start_depends_on_seed_and_name_alone(model_dir: Path) -> None:
    def start(names: list[str], seed: int) -> torch.Tensor:
        model = load_model(model_dir)
        attach(model, names, {}, settings(), seed=seed)
        found: torch.Tensor = model.get_submodule(UP).lora_A["default"].weight.detach()
        return found

    alone = start([UP], 0)
    assert torch.equal(start(["model.layers.0.self_attn.q_proj", UP], 0), alone)
    assert not torch.equal(start([UP], 1), alone)
    assert alone.abs().max() <= 32**-0.5


def test_targets_are_names_endings_or_globs(model_dir: Path) -> None:
    linears = find_structure(load_model(model_dir)).all_linears
    assert target_linears(linears, ()) == linears
    assert target_linears(linears, ("up_proj",)) == tuple(n for n in linears if n.endswith(".up_proj"))
    assert target_linears(linears, ("model.layers.0.*", UP)) == tuple(
        n for n in linears if n.startswith("model.layers.0.") or n == UP
    )
    with pytest.raises(SparsifyError, match=r"lora\.targets: 'fc1' fits no linear.* there are down_proj, gate_proj"):
        target_linears(linears, ("fc1",))
    with pytest.raises(SparsifyError, match="'lm_head' fits no linear inside the blocks"):
        target_linears(linears, ("lm_head",))


def test_refuse_refuses_pruned_targets_only() -> None:
    chosen = settings(merge="refuse")
    check_lora([UP], ["model.layers.0.mlp.up_proj.weight"], chosen)
    with pytest.raises(SparsifyError, match=r"merge is refuse.*1 of 1 targets.*use merge: masked"):
        check_lora([UP], [f"{UP}.weight"], chosen)
    check_lora([UP], [f"{UP}.weight"], settings())


def test_without_peft_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> object:
        if name.split(".")[0] == "peft":
            raise ImportError(name)
        return real(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "peft", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SparsifyError, match=r"pip install 'sparsebench\[lora\]'"):
        check_lora([], [], settings())


def test_experts_in_one_tensor_are_refused(make_model: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2, max_position_embeddings=32,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    names = find_structure(model).all_linears
    with pytest.raises(SparsifyError, match=r"experts that share a tensor.*q_proj"):
        attach(model, names, {}, settings(), seed=0)
    attach(model, target_linears(names, ("q_proj",)), {}, settings(), seed=0)
