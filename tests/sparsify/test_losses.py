"""The losses against brute force in float64, for decoders and for an encoder-decoder."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsify.errors import SparsifyError
from sparsify.train import TrainJob
from sparsify.train.batches import Batch
from sparsify.train.hooks import Single
from sparsify.train.losses import IGNORED, cross_entropy, features, kl_divergence, predictions, squarehead_blocks
from sparsify.train.models import check_shapes, check_tokenizers
from sparsify.train.objective import Objective
from sparsify.train.settings import LossWeights, TrainSettings
from sparsify.train.trainer import Run


def brute_squarehead(ours: Tensor, theirs: Tensor, real: Tensor, eps: float) -> float:
    """Kurtic et al. 2023, equation 3, token by token."""
    squares = energy = count = 0.0
    for i, j in real.nonzero().tolist():
        for s, t in zip(ours[i, j].tolist(), theirs[i, j].tolist(), strict=True):
            squares, energy, count = squares + (s - t) ** 2, energy + t**2, count + 1
    return (squares / count) / (energy / count + eps)


def brute_kl(student: Tensor, teacher: Tensor, temperature: float) -> float:
    rows = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        top_s, top_t = max(s) / temperature, max(t) / temperature
        log_s = top_s + math.log(sum(math.exp(v / temperature - top_s) for v in s))
        log_t = top_t + math.log(sum(math.exp(v / temperature - top_t) for v in t))
        rows.append(
            sum(
                math.exp(b / temperature - log_t) * ((b / temperature - log_t) - (a / temperature - log_s))
                for a, b in zip(s, t, strict=True)
            )
        )
    return temperature**2 * sum(rows) / len(rows)


@hypothesis_settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([1e-9, 0.0078125, 0.5]), st.integers(1, 4))
def test_squarehead_per_block_equals_brute_force(seed: int, eps: float, blocks: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = (
        [scale * torch.randn(2, 5, 3, generator=generator) for scale in (0.01, 1.0, 30.0, 2.0)[:blocks]]
        for _ in range(2)
    )
    real = torch.rand(2, 5, generator=generator) > 0.4
    real[0, 0] = True
    found = squarehead_blocks(ours, theirs, real, eps)
    for block, a, b in zip(found, ours, theirs, strict=True):
        assert float(block) == pytest.approx(brute_squarehead(a.double(), b.double(), real, eps), rel=1e-5)


def test_squarehead_normaliser_is_detached_and_the_gradient_is_the_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64).requires_grad_()
    theirs = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64).requires_grad_()
    real = torch.tensor([[True, True, False, False], [True, True, True, False]])
    squarehead_blocks([ours.float()], [theirs.float()], real, 1e-9)[0].backward()
    assert theirs.grad is None and ours.grad is not None
    energy = float(theirs.detach()[real].square().mean())
    expected = torch.where(real[..., None], 2 * (ours - theirs).detach() / (5 * 6) / energy, 0.0)
    torch.testing.assert_close(ours.grad, expected, rtol=1e-5, atol=1e-8)


@hypothesis_settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_kl_equals_brute_force(seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(4, 7, generator=generator) for _ in range(2))
    expected = brute_kl(student.double(), teacher.double(), temperature)
    assert float(kl_divergence(student, teacher, temperature)) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(kl_divergence(student, student, temperature)) == pytest.approx(0.0, abs=1e-5)


def test_parts_over_a_total_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(9, 5, generator=generator) for _ in range(2))
    targets, weights = torch.randint(5, (9,), generator=generator), torch.rand(9, generator=generator)
    cuts = [slice(0, 2), slice(2, 9)]
    ce = sum(cross_entropy(student[c], targets[c], weights[c], total=weights.sum()) for c in cuts)
    kl = sum(kl_divergence(student[c], teacher[c], 2.0, total=torch.tensor(9)) for c in cuts)
    assert float(ce) == pytest.approx(float(cross_entropy(student, targets, weights)), rel=1e-6)
    assert float(kl) == pytest.approx(float(kl_divergence(student, teacher, 2.0)), rel=1e-6)


def test_predictions_shift_for_a_causal_model_and_stay_for_an_aligned_decoder() -> None:
    logits = torch.arange(2 * 4 * 3).reshape(2, 4, 3).float()
    labels = torch.tensor([[IGNORED, 1, 2, IGNORED], [IGNORED, IGNORED, IGNORED, 0]])
    found, targets = predictions(logits, labels, causal=True)
    assert targets.tolist() == [1, 2, 0]
    # The label at i is predicted at i - 1: its first token is in, and nothing past its end.
    assert torch.equal(found, torch.stack([logits[0, 0], logits[0, 1], logits[1, 2]]))
    found, targets = predictions(logits, labels, causal=False)
    assert targets.tolist() == [1, 2, 0]
    assert torch.equal(found, torch.stack([logits[0, 1], logits[0, 2], logits[1, 3]]))


def test_an_encoder_decoder_has_two_groups_of_features() -> None:
    """A random T5: encoder states count where the input is real, decoder states where there is a label."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 4}
    config = T5Config(**sizes, num_layers=3, num_decoder_layers=2, dropout_rate=0.0, decoder_start_token_id=0)
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(T5ForConditionalGeneration(config).eval())
    shown = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    ids = torch.randint(3, 40, (2, 6), generator=torch.Generator().manual_seed(2)).masked_fill(~shown, 0)
    labels = torch.tensor([[5, 6, 7, 1], [8, 1, IGNORED, IGNORED]])
    student, teacher = (
        model(input_ids=ids, attention_mask=shown.long(), labels=labels, output_hidden_states=True) for model in models
    )
    groups = features(student, shown=shown, labels=labels)
    assert [len(states) for states, _ in groups] == [3, 2]
    found = expected = 0.0
    for (ours, real), (theirs, _) in zip(groups, features(teacher, shown=shown, labels=labels), strict=True):
        found += float(sum(squarehead_blocks(ours, theirs, real, 1e-9)).detach())  # type: ignore[arg-type, union-attr]
        expected += sum(brute_squarehead(a.double(), b.double(), real, 1e-9) for a, b in zip(ours, theirs, strict=True))
    assert found == pytest.approx(expected, rel=1e-5)
    logits, targets = predictions(student.logits, labels, causal=False)
    assert float(cross_entropy(logits, targets, torch.ones(len(targets))).detach()) == pytest.approx(
        float(student.loss.detach()), rel=1e-5
    )
    wanted, _ = predictions(teacher.logits, labels, causal=False)
    assert float(kl_divergence(logits, wanted, 2.0).detach()) == pytest.approx(
        brute_kl(logits.double(), wanted.double(), 2.0), rel=1e-4
    )
    with pytest.raises(ValueError, match="needs its labels"):
        features(student, shown=shown)


def models(model_dir: Path) -> tuple[nn.Module, nn.Module]:
    from transformers import AutoModelForCausalLM

    student = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    teacher = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for param in teacher.parameters():
        param.add_(0.05 * torch.randn(param.shape, generator=generator))
    return student, teacher


def test_the_objective_of_a_decoder_equals_brute_force(model_dir: Path) -> None:
    """CE, KL and SquareHead from whole logits and hidden states, in float64; padding and prompts left out."""
    student, teacher = models(model_dir)
    real = torch.arange(9)[None] < torch.tensor([[9], [6]])
    target = torch.zeros(2, 9, dtype=torch.bool)
    target[0, 4:7], target[1, 2:6] = True, True
    batch = Batch(torch.randint(4, 300, (2, 9), generator=torch.Generator().manual_seed(1)), real, target)
    weights = LossWeights(ce=0.7, kl=0.3, squarehead=0.5)
    settings = TrainSettings(tokens=1, lr=1.0, losses=weights, temperature=2.0)
    objective = Objective(student, teacher, settings, Single())
    found = objective(batch, objective.counts([batch]))
    ours, theirs = (
        model(input_ids=batch.ids, attention_mask=real.long(), output_hidden_states=True)
        for model in (student, teacher)
    )
    labels = batch.ids.masked_fill(~target, IGNORED)
    logits, targets = predictions(ours.logits.detach().double(), labels, causal=True)
    wanted, _ = predictions(theirs.logits.double(), labels, causal=True)
    ce = float(-torch.log_softmax(logits, -1)[range(7), targets].mean())
    kl = brute_kl(logits, wanted, 2.0)
    blocks = [
        brute_squarehead(a.detach().double(), b.double(), real, settings.squarehead_eps)
        for a, b in zip(ours.hidden_states[1:], theirs.hidden_states[1:], strict=True)
    ]
    assert {name: float(part) for name, part in found.parts.items()} == pytest.approx(
        {"ce": ce, "squarehead": sum(blocks), "kl": kl}, rel=2e-4
    )
    assert [float(block) for block in found.blocks] == pytest.approx(blocks, rel=2e-4)
    assert float(found.total.detach()) == pytest.approx(0.7 * ce + 0.3 * kl + 0.5 * sum(blocks), rel=2e-4)


def test_each_model_runs_once_a_batch_and_a_loss_without_weight_costs_nothing(model_dir: Path) -> None:
    student, teacher = models(model_dir)
    runs = {"student": 0, "teacher": 0}

    def count(name: str):  # type: ignore[no-untyped-def]
        def hook(*_args: object) -> None:
            runs[name] += 1

        return hook

    student.base_model.register_forward_hook(count("student"))  # type: ignore[union-attr]
    teacher.base_model.register_forward_hook(count("teacher"))  # type: ignore[union-attr]
    ids = torch.randint(4, 300, (2, 9))
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.ones_like(ids, dtype=torch.bool))
    for weights, teachers in ((LossWeights(ce=1, kl=1, squarehead=1), 1), (LossWeights(ce=1), 0)):
        runs.update(student=0, teacher=0)
        settings = TrainSettings(tokens=1, lr=1.0, losses=weights)
        used = teacher if weights.needs_teacher else None
        objective = Objective(student, used, settings, Single())
        losses = objective(batch, objective.counts([batch]))
        assert runs == {"student": 1, "teacher": teachers}
        assert set(losses.parts) == {name for name in ("ce", "kl", "squarehead") if getattr(weights, name)}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_student_that_is_its_teacher_is_at_distance_zero(precision: str, model_dir: Path, corpus: Path) -> None:
    weights = LossWeights(ce=0.0, kl=1.0, squarehead=1.0)
    settings = TrainSettings(tokens=300, batch_tokens=100, seq=64, lr=1.0, losses=weights, precision=precision)  # type: ignore[arg-type]
    run = Run(TrainJob(model_dir, Path("unused"), Path("unused"), [corpus], model_dir), settings)
    batch = run.data.next()
    found = run.objective(batch, run.objective.counts([batch]))
    assert {name: float(part) for name, part in found.parts.items()} == pytest.approx(
        {"squarehead": 0, "kl": 0}, abs=1e-7
    )


def test_a_teacher_of_another_kind_is_refused(model_dir: Path, tmp_path: Path) -> None:
    import json
    import shutil

    other = Path(shutil.copytree(model_dir, tmp_path / "other"))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[50:52]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(SparsifyError, match="teacher and student have different tokenizers: 2 tokens differ"):
        check_tokenizers(model_dir, other)
    merges = Path(shutil.copytree(model_dir, tmp_path / "merges"))
    tokenizer = json.loads((merges / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (merges / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(SparsifyError, match="split the same text into different tokens"):
        check_tokenizers(model_dir, merges)
    check_tokenizers(model_dir, model_dir)
    deep = Path(shutil.copytree(model_dir, tmp_path / "deep"))
    config = json.loads((deep / "config.json").read_text())
    (deep / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 9}))
    with pytest.raises(SparsifyError, match="num_hidden_layers is 9, the student's 3"):
        check_shapes(model_dir, deep, hidden=True)
    check_shapes(model_dir, deep, hidden=False)
