"""A small model of real text: `python -m harness.bench.sparsify.text_model --data DIR --work DIR`.

Size, text and tokens are fixed here, before any method was measured on it: a Llama of 5.5 M parameters (6 blocks of
width 256, 8 heads over 4 key-value heads, MLP of 768, tied byte-level BPE of 3072), trained on 2.5 M tokens of English
and Python (`text_corpus`) with Muon. On one thread of a CPU with bfloat16 arithmetic it takes about 20 minutes; an
interrupted run continues where it stopped. The weights are not kept in the repository: results name their hash, and
bfloat16 training gives other weights on another machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.sparsify.text_corpus import documents
from harness.train_pocket import _Log
from sparsify.files import commit, empty_directory

EOS = "<|endoftext|>"
_SAVE_EVERY_S = 120.0


@dataclass(frozen=True)
class TextModel:
    """What is trained.

    Attributes:
        vocabulary: Entries of the tokenizer.
        hidden, intermediate, blocks, heads, kv_heads: Of the Llama architecture.
        tokens: Seen in training.
        seq: Tokens of a training window.
        batch: Windows of a step.
        lr, muon_lr: Peak learning rates of the embedding and norms (AdamW) and of the matrices (Muon).
        warmup: Steps of linear warm-up; then linear to zero.
        seed: Of the initial weights and of the order.
    """

    vocabulary: int = 3072
    hidden: int = 256
    intermediate: int = 768
    blocks: int = 6
    heads: int = 8
    kv_heads: int = 4
    tokens: int = 2_500_000
    seq: int = 512
    batch: int = 8
    lr: float = 3e-3
    muon_lr: float = 0.02
    warmup: int = 30
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return math.ceil(self.tokens / (self.seq * self.batch))


def train_tokenizer(data: Path, size: int) -> Any:
    """A byte-level BPE in which digits stand alone, from the training part of the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for _, text in documents(data, held_out=False)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def training_stream(data: Path, tokenizer: Any, seed: int) -> Iterator[int]:
    """Token ids without end: documents in random order, each followed by the end-of-text token."""
    import random

    rng = random.Random(seed)
    found = [text for source, text in documents(data, held_out=False) for _ in range(source.epochs)]
    encoded = tokenizer(found, add_special_tokens=False)["input_ids"]
    order = list(range(len(encoded)))
    while True:
        rng.shuffle(order)
        for index in order:
            yield from encoded[index]
            yield int(tokenizer.eos_token_id)


def make_text_model(data: Path, work: Path, shape: TextModel) -> Path:
    """Train the model in `work`, or go on with it; the folder with the finished model comes back."""
    done = work / "model"
    if (done / "training.json").exists():
        return done
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokenizer" / "tokenizer.json").exists():
        part = empty_directory(work / ".tokenizer.part")
        train_tokenizer(data, shape.vocabulary).save_pretrained(part)
        commit(part, work / "tokenizer")
    tokens = work / "tokens.bin"
    if not tokens.exists():
        _write_tokens(data, work, shape)
    _Training(work, shape).execute(done)
    return done


def _write_tokens(data: Path, work: Path, shape: TextModel) -> None:
    import itertools

    import numpy as np

    from sparsify.blocks import load_tokenizer

    count = shape.steps * shape.batch * shape.seq
    stream = training_stream(data, load_tokenizer(work / "tokenizer"), shape.seed)
    ids = np.fromiter(itertools.islice(stream, count), dtype=np.uint16, count=count)
    part = work / "tokens.part"
    part.write_bytes(ids.tobytes())
    os.replace(part, work / "tokens.bin")


class _Training:
    """The loop. Forward and backward run in bfloat16 over float32 weights: twice as fast here as float32."""

    def __init__(self, work: Path, shape: TextModel) -> None:
        import numpy as np
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from sparsify.blocks import load_tokenizer
        from sparsify.train.optim import make_optimizers
        from sparsify.train.settings import TrainSettings

        torch.manual_seed(shape.seed)
        self.work, self.shape, self.state = work, shape, work / "state.pt"
        self.tokenizer = load_tokenizer(work / "tokenizer")
        eos = self.tokenizer.eos_token_id
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.hidden,
                intermediate_size=shape.intermediate,
                num_hidden_layers=shape.blocks,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.kv_heads,
                max_position_embeddings=2048,
                tie_word_embeddings=True,
                bos_token_id=eos,
                eos_token_id=eos,
                pad_token_id=eos,
            )
        )
        settings = TrainSettings(tokens=shape.tokens, lr=shape.lr, muon_lr=shape.muon_lr, optimizer="muon")
        self.optimizers = make_optimizers(dict(self.model.named_parameters()), settings)
        ids = np.frombuffer((work / "tokens.bin").read_bytes(), dtype=np.uint16).astype(np.int64)
        self.windows = torch.from_numpy(ids).reshape(shape.steps, shape.batch, shape.seq)
        self.step, self.seconds, self.losses = 0, 0.0, []  # type: tuple[int, float, list[float]]

    def execute(self, out: Path) -> None:
        """Take the steps that are left and write the model."""
        import torch

        if self.state.exists():
            found = torch.load(self.state, weights_only=True)
            self.model.load_state_dict(found["model"])
            for optimizer, state in zip(self.optimizers, found["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.step, self.seconds, self.losses = found["step"], found["seconds"], found["losses"]
        log, saved = _Log("text model"), time.monotonic()
        while self.step < self.shape.steps:
            began = time.monotonic()
            self.losses.append(self._take_step())
            self.step += 1
            self.seconds += time.monotonic() - began
            log.update(self.step, self.shape.steps, f"loss {self.losses[-1]:.3f}")
            if time.monotonic() - saved > _SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()
        self._write(out)

    def _take_step(self) -> float:
        import torch

        ids = self.windows[self.step]
        shape = self.shape
        warm = min(1.0, (self.step + 1) / shape.warmup)
        factor = min(warm, 1 - (self.step - shape.warmup) / max(1, shape.steps - shape.warmup))
        with torch.autocast("cpu", torch.bfloat16):
            states = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
            logits = self.model.lm_head(states[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            with torch.autocast("cpu", torch.bfloat16):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value} at step {self.step}")
        return value

    def _save(self) -> None:
        import torch

        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
        }
        part = self.state.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.state)

    def _write(self, out: Path) -> None:
        from sparsify.checkpoint import model_fingerprint

        part = empty_directory(out.with_name(".model.part"))
        self.model.save_pretrained(part)
        self.tokenizer.save_pretrained(part)
        record = {
            "shape": asdict(self.shape),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "tokens": self.step * self.shape.batch * self.shape.seq,
            "seconds": round(self.seconds, 1),
            "last_loss": sum(self.losses[-50:]) / len(self.losses[-50:]),
            "model_sha256": model_fingerprint(part),
        }
        (part / "training.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        commit(part, out)


def main(arguments: list[str] | None = None) -> int:
    """Train the model."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with wikitext2_raw, c4_demo, ...")
    parser.add_argument("--work", type=Path, required=True, help="folder for resumable state and the finished model")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(make_text_model(options.data, options.work, TextModel()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
