"""A tiny real model and corpus that the tests of `sparsify` share."""

from __future__ import annotations

import json
import os
import random
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = "the a cat dog bird sees eats finds red blue big small and then one two three house tree river".split()
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_model(directory: Path, *, dtype: str = "bfloat16", seed: int = 0, tied: bool = True) -> Path:
    """A random Llama with grouped-query attention and a byte-level tokenizer trained on the spot."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|eos|>", "<|user|>", "<|assistant|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|eos|>", bos_token="<|eos|>")
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


def write_corpus(path: Path, *, rows: int = 24, seed: int = 0) -> Path:
    """Rows of both kinds."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8") as stream:
        for index in range(rows):
            said, shown = (" ".join(rng.choices(WORDS, k=rng.randint(3, 14))) for _ in range(2))
            if index % 2:
                row: dict[str, object] = {"prompt": shown, "completion": " " + said}
            else:
                row = {"messages": [{"role": "user", "content": shown}, {"role": "assistant", "content": said}]}
            stream.write(json.dumps({**row, "source": "test", "item_hash": str(index)}) + "\n")
    return path


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Results are the same bytes for the same number of threads; forked children can only use one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """`build_model`, for tests that need another model than `model_dir`."""
    return build_model


@pytest.fixture(scope="session")
def make_corpus() -> Callable[..., Path]:
    """`write_corpus`, for tests that need another corpus than `corpus`."""
    return write_corpus


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in bfloat16, head tied to the embedding."""
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small JSONL corpus."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl")


class _KillAt:
    def __init__(self, number: int) -> None:
        self.left = number

    def update(self, done: float, total: float, note: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="session")
def kill_at() -> type[_KillAt]:
    """A `Progress` that kills its own process at the n-th report."""
    return _KillAt


@pytest.fixture(scope="session")
def in_child() -> Callable[[Callable[[], Any]], int]:
    """Runs work in a forked process (torch is loaded already) and returns how it ended."""

    def run(work: Callable[[], Any]) -> int:
        import torch

        child = os.fork()
        if child == 0:
            try:
                # torch renews its thread pool in the first call after a fork; two loading threads would race for it.
                torch.set_num_threads(1)
                work()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        return os.waitpid(child, 0)[1]

    return run
