"""Retrain the bundled pocket models: `python -m harness.train_pocket --work DIR`.

Writes `suites/pocket/base` (after pretraining on the mixed text), `suites/pocket/model` (fine-tuned on the five
skills) and `suites/pocket/sparse70` (`model` pruned to 70 % by SparseGPT and trained on with its zeros held, in bitmask
storage). An interrupted run continues where it stopped. On two CPU cores it takes about two hours.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.corpus import plain_rows, train_rows, write_rows
from sparsify.corpus import read_rows
from sparsify.train import TrainSettings

POCKET = Path(__file__).resolve().parent.parent / "suites" / "pocket"
VOCABULARY = 1536
SPECIAL = ("<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Pass:
    """One training pass over text of its own.

    Attributes:
        name: Of the checkpoint that it writes.
        plain: Rows of plain text (`suites.pocket.text`).
        skills: Rows of the five skills.
        shares: Rows of each skill in a round of the mixture.
        settings: Of the trainer.
    """

    name: str
    plain: int
    skills: int
    shares: Mapping[str, int]
    settings: TrainSettings


def _settings(**changes: Any) -> TrainSettings:
    common = {"batch_tokens": 6144, "seq": 1024, "pack": 1024, "pack_every": 24, "optimizer": "muon"}
    return TrainSettings.model_validate({**common, **changes})


PASSES = (
    Pass(
        "base",
        plain=24_000,
        skills=96_000,
        shares={"gsm8k": 26, "code": 18, "instruct": 22, "chat": 22, "summarization": 12},
        settings=_settings(tokens=10_500_000, lr=4e-3, muon_lr=0.02, warmup=30, prompt_weight=0.1, seed=1),
    ),
    Pass(
        "tuned",
        plain=0,
        skills=48_000,
        shares={"gsm8k": 30, "code": 13, "instruct": 17, "chat": 28, "summarization": 12},
        settings=_settings(tokens=4_000_000, lr=2e-3, muon_lr=0.01, warmup=20, prompt_weight=0.0, seed=2),
    ),
    Pass(
        "mixed",
        plain=4_000,
        skills=30_000,
        shares={"gsm8k": 22, "code": 11, "instruct": 27, "chat": 30, "summarization": 10},
        settings=_settings(tokens=2_600_000, lr=1.5e-3, muon_lr=0.006, warmup=10, prompt_weight=0.1, seed=3),
    ),
    # What lags behind (instruct, chat) gets the last word.
    Pass(
        "model",
        plain=2_000,
        skills=25_000,
        shares={"gsm8k": 15, "code": 8, "instruct": 45, "chat": 25, "summarization": 7},
        settings=_settings(tokens=2_000_000, lr=1.5e-3, muon_lr=0.007, warmup=10, prompt_weight=0.1, seed=4),
    ),
)

# The sparse foundation: pruned once, then trained long enough that a short fine-tuning recovers it (2405.03594, 3.2).
SPARSITY = 0.70
SPARSE_PASS = Pass(
    "sparse70",
    plain=6_000,
    skills=100_000,
    shares={"gsm8k": 28, "code": 13, "instruct": 24, "chat": 24, "summarization": 11},
    settings=_settings(
        tokens=7_000_000, batch_tokens=4096, lr=3e-3, muon_lr=0.015, warmup=30, prompt_weight=0.1, seed=5
    ),
)


def write_corpora(work: Path, one: Pass) -> list[Path]:
    """Generate the training files of a pass that are missing."""
    paths = []
    if one.plain:
        paths.append(work / f"{one.name}-text.jsonl")
        if not paths[-1].exists():
            write_rows(paths[-1], itertools.islice(plain_rows(seed=one.settings.seed), one.plain))
    paths.append(work / f"{one.name}-skills.jsonl")
    if not paths[-1].exists():
        rows = train_rows("mix", seed=100 + one.settings.seed, shares=one.shares)
        write_rows(paths[-1], itertools.islice(rows, one.skills))
    return paths


def train_tokenizer(texts: Iterator[str]) -> Any:
    """A byte-level BPE in which digits stand alone, with the chat template of the pocket model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def initial_model(directory: Path, tokenizer: Any) -> None:
    """Write a randomly initialised model of the pocket architecture with its tokenizer."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.to(dtype=torch.bfloat16)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _texts(paths: list[Path]) -> Iterator[str]:
    for path, rows in zip(paths, (4_000, 16_000), strict=True):
        for row in itertools.islice(read_rows(path), rows):
            yield from (
                [m["content"] for m in row["messages"]] if "messages" in row else (row["prompt"], row["completion"])
            )


class _Log:
    """Prints a line every 20 s, with the time left."""

    def __init__(self, name: str) -> None:
        self.name, self.began, self.last, self.first = name, time.monotonic(), 0.0, -1.0

    def update(self, done: float, total: float, note: str = "") -> None:
        now = time.monotonic()
        if self.first < 0:
            self.first = done - 1
        if now - self.last > 20 or done == total:
            self.last = now
            left = (now - self.began) / max(1e-9, done - self.first) * (total - done)
            print(f"{self.name} {done:.0f}/{total:.0f} {note} eta {left / 60:.1f} min", flush=True)


def prune(parent: Path, work: Path) -> Path:
    """`parent` pruned to `SPARSITY` by SparseGPT, calibrated on the skills' training text."""
    from harness.corpus import resolve_corpus
    from sparsify.recipe import parse_recipe
    from sparsify.run import MakeOptions, make_variant

    calibration = {"source": "suite:mix/train", "samples": 128, "seq": 512}
    stage = {"method": "sparsegpt", "sparsity": SPARSITY, "calibration": calibration}
    recipe = parse_recipe({"stages": [{"prune": stage}]}, name="pruned", where="train_pocket")
    options = MakeOptions(
        store=work / "stages",
        name="pruned",
        base="pocket",
        resolve_corpus=lambda name: resolve_corpus(name, work / "corpora"),
    )
    make_variant(parent, recipe, work / "pruned", options=options)
    return work / "pruned"


def main(arguments: list[str] | None = None) -> int:
    """Train the checkpoints, one pass after the other."""
    from sparsify.checkpoint import MASKS
    from sparsify.masks import load_masks
    from sparsify.packed import pack_checkpoint
    from sparsify.train import TrainJob, train

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for corpora and resumable state")
    parser.add_argument("--out", type=Path, default=POCKET, help="where base/, model/ and sparse70/ are written")
    options = parser.parse_args(arguments)
    work: Path = options.work
    parent = work / "init"
    for one in PASSES:
        corpus = write_corpora(work, one)
        if not (parent / "tokenizer.json").exists():
            initial_model(parent, train_tokenizer(_texts(corpus)))
        if not (work / one.name / "config.json").exists():
            job = TrainJob(parent, work / one.name, work / f"state-{one.name}", corpus)
            print(train(job, one.settings, progress=_Log(one.name)), flush=True)
        parent = work / one.name
    pruned, sparse = prune(parent, work), work / SPARSE_PASS.name
    if not (sparse / "config.json").exists():
        corpus = write_corpora(work, SPARSE_PASS)
        masks = load_masks(pruned)
        job = TrainJob(pruned, sparse, work / f"state-{SPARSE_PASS.name}", corpus, masks=masks)
        print(train(job, SPARSE_PASS.settings, progress=_Log(SPARSE_PASS.name)), flush=True)
    shutil.copyfile(pruned / MASKS, sparse / MASKS)
    for name in ("base", "model"):
        shutil.copytree(work / name, options.out / name, dirs_exist_ok=True)
    (options.out / SPARSE_PASS.name).mkdir(exist_ok=True)
    pack_checkpoint(sparse, options.out / SPARSE_PASS.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
