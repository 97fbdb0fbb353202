"""The trainer: losses against float64, masks that hold, resume to the byte."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from sparsify.corpus import encode_rows, read_rows
from sparsify.errors import NumericsError, SparsifyError
from sparsify.train import LossWeights, TrainJob, TrainSettings, train
from sparsify.train.batches import collate, plan_steps
from sparsify.train.losses import cross_entropy, kl_divergence, squarehead
from sparsify.train.optim import newton_schulz

END = "<|end|>"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained Llama with grouped queries, tied embeddings, a byte-level tokenizer and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<|eos|>", "<|user|>", "<|assistant|>", END, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|eos|>", "<|user|>", "<|assistant|>", END])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|eos|>", bos_token="<|eos|>")
    fast.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    directory = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "train.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"say {word}"},
                {"role": "assistant", "content": word},
                {"role": "user", "content": "again"},
                {"role": "assistant", "content": word},
            ]
        }
        for word in ("cat", "dog", "cow", "fish", "bear", "fox")
    ]
    rows += [{"prompt": "x = ", "completion": str(number)} for number in range(10)]
    path.write_text("".join(json.dumps({**row, "source": "test", "item_hash": "0"}) + "\n" for row in rows))
    return path


def settings(**changes: object) -> TrainSettings:
    base: dict[str, object] = {"tokens": 1500, "batch_tokens": 160, "seq": 64, "lr": 1e-2, "warmup": 2}
    return TrainSettings.model_validate({**base, **changes})


def job(model_dir: Path, corpus: Path, out: Path, **changes: object) -> TrainJob:
    return TrainJob(model_dir, out, out.with_name(out.name + ".work"), [corpus], **changes)  # type: ignore[arg-type]


def test_squarehead_equals_its_definition_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(3, 5, 8, generator=generator) for _ in range(2)]
    theirs = [torch.randn(3, 5, 8, generator=generator) for _ in range(2)]
    real = torch.rand(3, 5, generator=generator) > 0.3
    expected = 0.0
    for a, b in zip(ours, theirs, strict=True):
        squares = energy = 0.0
        for i, j in real.nonzero().tolist():
            squares += float(((a[i, j].double() - b[i, j].double()) ** 2).sum())
            energy += float((b[i, j].double() ** 2).sum())
        expected += squares / energy
    assert float(squarehead(ours, theirs, real, 0.0)) == pytest.approx(expected, rel=1e-5)


def test_squarehead_ignores_padding_and_is_zero_for_equal_states() -> None:
    a = torch.randn(1, 4, 8)
    b = a.clone()
    b[:, 3] += 7.0
    real = torch.tensor([[True, True, True, False]])
    assert float(squarehead([a], [b], real, 1e-9)) == 0.0
    assert float(squarehead([a], [b], torch.ones_like(real), 1e-9)) > 0.1


def test_kl_equals_its_definition_and_carries_the_squared_temperature() -> None:
    student, teacher = torch.randn(6, 9), torch.randn(6, 9)
    p = torch.softmax(teacher.double() / 2, -1)
    q = torch.softmax(student.double() / 2, -1)
    expected = float((p * (p / q).log()).sum(-1).mean()) * 4
    assert float(kl_divergence(student, teacher, 2.0)) == pytest.approx(expected, rel=1e-4)


def test_cross_entropy_weights_tokens() -> None:
    logits, targets = torch.randn(4, 7), torch.tensor([1, 2, 3, 4])
    weights = torch.tensor([1.0, 0.0, 0.5, 0.0])
    chances = -torch.log_softmax(logits.double(), -1)[range(4), targets]
    expected = float((chances[0] + 0.5 * chances[2]) / 1.5)
    assert float(cross_entropy(logits, targets, weights)) == pytest.approx(expected, rel=1e-5)


def test_newton_schulz_orthogonalises() -> None:
    singular = torch.linalg.svdvals(newton_schulz(torch.randn(3, 16, 40)))
    assert 0.6 < float(singular.min()) and float(singular.max()) < 1.3


@given(st.lists(st.integers(2, 60), min_size=1, max_size=80), st.integers(0, 3))
def test_a_plan_spends_the_budget_within_the_batch_size(lengths: list[int], seed: int) -> None:
    chosen = settings(tokens=2000, batch_tokens=200, seq=50, seed=seed, pack=100, pack_every=3)
    steps = plan_steps(lengths, chosen)
    cut = [min(length, 50) for length in lengths]
    spent = [sum(cut[i] for sequence in step for i in sequence) for step in steps]
    assert sum(spent) >= 2000 > sum(spent[:-1])
    assert all(len(step) * max(cut[i] for s in step for i in s) <= 200 or len(step) == 1 for step in steps[:2])
    assert steps == plan_steps(lengths, chosen)


def test_only_answers_are_targets_and_pieces_are_encoded_apart(model_dir: Path, corpus: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows = list(read_rows(corpus))
    chat, plain = encode_rows([rows[0], rows[-1]], tokenizer)
    said = tokenizer.decode([i for i, target in zip(chat.ids, chat.target, strict=True) if target])
    assert said == f"cat{END}cat{END}"
    assert tokenizer.decode([i for i, t in zip(plain.ids, plain.target, strict=True) if t]) == "9<|eos|>"
    assert tokenizer.decode(chat.ids) == tokenizer.apply_chat_template(rows[0]["messages"], tokenize=False)


def test_collate_pads_on_the_right(model_dir: Path, corpus: Path) -> None:
    from transformers import AutoTokenizer

    rows = encode_rows(list(read_rows(corpus)), AutoTokenizer.from_pretrained(model_dir))
    batch = collate([[0], [12, 13]], rows, settings())
    assert batch.real.sum(1).tolist() == [len(rows[0].ids), len(rows[12].ids) + len(rows[13].ids)]
    assert not (batch.target & ~batch.real).any()


def test_training_learns_and_masks_hold(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    mask = torch.rand(64, 32, generator=torch.Generator().manual_seed(1)) > 0.5
    losses = LossWeights(ce=1.0, squarehead=0.5, kl=0.1)
    stats = train(
        job(model_dir, corpus, tmp_path / "out", masks={name: mask}, teacher_dir=model_dir),
        settings(tokens=4000, losses=losses, clip=1.0),
    )
    weights = load_file(tmp_path / "out" / "model.safetensors")
    zeros = weights[name][~mask]
    assert torch.equal(zeros, torch.zeros_like(zeros)) and not torch.signbit(zeros).any()
    assert (weights[name][mask] != 0).float().mean() > 0.99
    assert set(stats.losses) == {"total", "ce", "squarehead", "kl"} and stats.tokens >= 4000
    first = train(job(model_dir, corpus, tmp_path / "one"), settings(tokens=100))
    assert stats.losses["ce"] < 0.7 * first.losses["ce"]
    assert not (tmp_path / "out.work").exists()
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_muon_lowers_the_loss(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    short = train(job(model_dir, corpus, tmp_path / "a"), settings(tokens=100)).losses["ce"]
    chosen = settings(tokens=3000, optimizer="muon", muon_lr=0.02, lr=3e-3)
    assert train(job(model_dir, corpus, tmp_path / "b"), chosen).losses["ce"] < 0.7 * short


def test_errors_name_the_fix(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SparsifyError, match="need a teacher"):
        train(job(model_dir, corpus, tmp_path / "o"), settings(losses=LossWeights(squarehead=1.0)))
    with pytest.raises(SparsifyError, match="does not exist"):
        train(job(model_dir, tmp_path / "none.jsonl", tmp_path / "o"), settings())
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(SparsifyError, match="is empty"):
        train(job(model_dir, empty, tmp_path / "o"), settings())
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": ')
    with pytest.raises(SparsifyError, match=r"broken\.jsonl:2"):
        train(job(model_dir, broken, tmp_path / "o"), settings())
    with pytest.raises(NumericsError, match="lower lr"):
        train(job(model_dir, corpus, tmp_path / "o"), settings(lr=1e30, warmup=0))
    with pytest.raises(SparsifyError, match="fits no weight"):
        train(job(model_dir, corpus, tmp_path / "o", masks={"nope": torch.ones(1)}), settings())


PROGRAM = """
import sys, time
from pathlib import Path
import torch
import sparsify.train.trainer as trainer
from sparsify.train import TrainJob, TrainSettings, train
torch.set_num_threads(1)
trainer._SAVE_EVERY_S = 0.0
model, corpus, out, settings, last = sys.argv[1:]
class Say:
    def update(self, done, total, note=""):
        print(int(done), flush=True)
        if done >= float(last):
            time.sleep(600)  # the parent kills it here
job = TrainJob(Path(model), Path(out), Path(out + ".work"), [Path(corpus)])
print("stats", train(job, TrainSettings.model_validate_json(settings), progress=Say()).resumed_at, flush=True)
"""


def test_killed_training_resumes_to_the_same_bytes(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    chosen = settings(tokens=3000, optimizer="muon").model_dump_json()

    def start(out: str, last: float = math.inf) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(model_dir), str(corpus), str(tmp_path / out), chosen, str(last)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    whole = start("whole")
    assert whole.communicate(timeout=300)[0].splitlines()[-1] == "stats 0"
    killed = start("killed", last=5)
    assert killed.stdout is not None
    for line in killed.stdout:
        if int(line) >= 5:
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait()
    assert not (tmp_path / "killed").exists()
    again = start("killed")
    assert int(again.communicate(timeout=300)[0].splitlines()[-1].split()[1]) >= 4
    names = ("model.safetensors",)
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
