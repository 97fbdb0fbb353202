"""Attention document by document says what transformers' own says with a mask, and so do its gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsify.train.attention import attend_by_document, document_lengths

SHAPE = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
POSITIONS = torch.tensor([[*range(5), *range(9), *range(2)], [*range(16)], [*range(1), *range(12), *range(3)]])
IDS = torch.randint(0, 97, POSITIONS.shape, generator=torch.Generator().manual_seed(0))


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """A model as transformers runs it, and its copy that attends by document."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **options})
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    other = copy.deepcopy(model)
    attend_by_document(other)
    return model.eval(), other.eval()


def answers(model: Any, **given: Tensor) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    logits = model(input_ids=IDS, use_cache=False, **given).logits
    logits.square().mean().backward()
    return logits.detach(), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Gemma"])
@pytest.mark.parametrize("packed", [True, False])
def test_logits_and_gradients_are_those_of_transformers(kind: str, packed: bool) -> None:
    stock, ours = pair(kind, num_key_value_heads=2, **({"head_dim": 8} if kind == "Gemma" else {}))
    given = {"position_ids": POSITIONS} if packed else {}
    (expected, wanted), (found, made) = answers(stock, **given), answers(ours, **given)
    assert torch.allclose(found, expected, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(made, wanted, strict=True))


def test_a_sliding_window_and_dropout_go_the_usual_way() -> None:
    stock, ours = pair("Mistral", num_key_value_heads=2, sliding_window=4)
    assert torch.allclose(
        answers(ours, position_ids=POSITIONS)[0], answers(stock, position_ids=POSITIONS)[0], atol=1e-5
    )
    stock, ours = pair("Llama", attention_dropout=0.5)
    torch.manual_seed(3)
    expected = answers(stock.train(), position_ids=POSITIONS)[0]
    torch.manual_seed(3)
    assert torch.allclose(answers(ours.train(), position_ids=POSITIONS)[0], expected, atol=1e-5)


def test_attention_that_is_not_causal_goes_the_usual_way() -> None:
    stock, ours = pair("Llama")
    for model in (stock, ours):
        for layer in model.model.layers:
            layer.self_attn.is_causal = False
    expected = answers(stock)[0]
    assert torch.allclose(answers(ours)[0], expected, atol=1e-5)
    causal = pair("Llama")[0]
    assert not torch.allclose(answers(causal)[0], expected, atol=1e-3)


def test_no_document_sees_another() -> None:
    _, ours = pair("Llama")
    before = answers(ours, position_ids=POSITIONS)[0]
    changed = IDS.clone()
    changed[0, 5:14] = (changed[0, 5:14] + 1) % 97
    after = ours(input_ids=changed, position_ids=POSITIONS, use_cache=False).logits
    assert torch.equal(after[0, :5], before[0, :5]) and torch.equal(after[0, 14:], before[0, 14:])
    assert not torch.allclose(after[0, 5:14], before[0, 5:14])


def test_half_precision_stays_near() -> None:
    stock, ours = pair("Llama", num_key_value_heads=2)
    exact = answers(stock, position_ids=POSITIONS)[0]
    with torch.autocast("cpu", torch.bfloat16):
        usual = answers(stock, position_ids=POSITIONS)[0].float()
        found = answers(ours, position_ids=POSITIONS)[0].float()
    assert float((found - exact).square().mean()) < 1.5 * float((usual - exact).square().mean())


def test_lengths() -> None:
    assert document_lengths(POSITIONS) == [5, 9, 2, 16, 1, 12, 3]
    assert document_lengths(torch.arange(6).reshape(2, 3)) == [3, 3]


def test_other_attention_is_left_alone() -> None:
    import transformers

    model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, attn_implementation="eager"))
    attend_by_document(model)
    assert model.config._attn_implementation == "eager"
    attend_by_document(torch.nn.Linear(2, 2))
