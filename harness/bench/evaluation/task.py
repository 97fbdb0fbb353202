"""The questions, rendered by lm-eval from the suite's own task file, and how answers are noted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.bench.evaluation.settings import PRESET, SUITE


@dataclass(frozen=True)
class Answers:
    """What an arm said to the items of one piece.

    Attributes:
        seconds, cpu_seconds: Wall and processor time of generation: tokenizing, computing, decoding text; ours with
            the journal on disk. Loading the model and scoring are not in it.
        prompts: Token ids of the prompt by item.
        tokens: Generated token ids by item.
        texts: The answer by item, stop texts cut off.
    """

    seconds: float
    cpu_seconds: float
    prompts: Mapping[str, tuple[int, ...]]
    tokens: Mapping[str, Sequence[int]]
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Quiz:
    """The items as an lm-eval task.

    Attributes:
        task: The task, with the preset's worked examples and limits.
        chat: Whether the model's chat template is applied, with each worked example a turn.
    """

    task: Any
    chat: bool

    @cached_property
    def requests(self) -> list[Any]:
        """lm-eval's requests in item order, rendered for our engines."""
        from harness.evaluate.lm import render

        return render(self.task, chat=self.chat)


def read_quiz(data: Path, *, items: int, new_tokens: int) -> Quiz:
    """The first items of GSM8K with five worked examples.

    Raises:
        DataMissingError: The data is not there.
    """
    from harness.evaluate.lm import build_task
    from suites.data import load_fewshot, load_items
    from suites.registry import load_suite

    suite = load_suite(SUITE)
    preset = suite.preset(PRESET).model_copy(update={"max_new_tokens": new_tokens})
    found = load_items(suite, PRESET, n=items, data_dir=data)
    return Quiz(build_task(suite, preset, found, load_fewshot(suite, PRESET, data_dir=data)), suite.prompt == "chat")


def as_line(answers: Answers) -> dict[str, Any]:
    """Answers for the journal; of prompts only a hash."""
    from sparsify.files import sha256_json

    body = dataclasses.asdict(answers)
    return {
        "seconds": body["seconds"],
        "cpu_seconds": body["cpu_seconds"],
        "prompts": {item: sha256_json(list(ids))[:16] for item, ids in answers.prompts.items()},
        "tokens": {item: list(ids) for item, ids in answers.tokens.items()},
        "texts": {item: sha256_json(text)[:16] for item, text in answers.texts.items()},
    }
