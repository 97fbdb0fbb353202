"""Our engine as an arm: what it saves is switched here and nowhere else. Imports torch and lm-eval."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.bench.evaluation.arms import Arm
from harness.bench.evaluation.task import Answers, Quiz
from harness.engines._decode import Row
from harness.engines._run import ModelRunner
from harness.engines.base import Request
from harness.engines.torch import TorchEngine
from harness.evaluate.generate import encode_prompt, run_prompts
from harness.evaluate.lm import HarnessLM
from harness.evaluate.plan import GenSettings, Prompt
from harness.journal import Journal
from sparsify.progress import NullProgress


class Recorder(ModelRunner):
    """A runner that remembers the tokens of every request."""

    def __init__(self, model: Any, arm: Arm) -> None:
        """Save what the arm saves."""
        super().__init__(model, prefix=arm.prefix, drop=arm.drop)
        self.tokens: dict[str, list[int]] = {}

    def generate(
        self, requests: Sequence[Request], *, ends: frozenset[int], hit_stop: Callable[[Row], bool]
    ) -> list[Row]:
        """Complete one batch."""
        rows = super().generate(requests, ends=ends, hit_stop=hit_stop)
        self.tokens.update({row.request.request_id: row.tokens for row in rows})
        return rows


class OurArm:
    """One arm over an open model; keeps what an evaluation keeps from batch to batch."""

    def __init__(self, opened: TorchEngine, arm: Arm, *, batch: int) -> None:
        """Answer with `batch` prompts at a time."""
        self._arm, self._batch = arm, batch
        self._recorder = Recorder(opened.model, arm)
        self._engine = TorchEngine(opened.model, opened.tokenizer, label=opened.label, runner=self._recorder)

    def run(self, quiz: Quiz, positions: Sequence[int]) -> Answers:
        """Answer items in the way that `sparsebench eval` does, its journal on disk included."""
        settings = GenSettings(batch_size=self._batch)
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl", {}) as journal:
            prompts = HarnessLM(self._engine, journal, settings).prompts([quiz.requests[at] for at in positions])
            began, cpu = time.perf_counter(), time.process_time()
            for plan in self._plans(prompts):
                run_prompts(self._engine, plan, journal=journal, settings=settings, progress=NullProgress())
            seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
            texts = {name: row["output"] for name, row in journal.rows.items()}
        return Answers(
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            prompts={prompt.request_id: encode_prompt(self._engine, prompt.text) for prompt in prompts},
            tokens={name: self._recorder.tokens[name] for name in texts},
            texts=texts,
        )

    def prompts(self, quiz: Quiz) -> dict[str, tuple[int, ...]]:
        """Token ids of every prompt by item."""
        return {str(request.doc["item_id"]): encode_prompt(self._engine, request.args[0]) for request in quiz.requests}

    def _plans(self, prompts: Sequence[Prompt]) -> list[Sequence[Prompt]]:
        """One plan, which is cut into batches by length; in item order every batch is a plan of its own."""
        if self._arm.by_length:
            return [prompts]
        return [prompts[start : start + self._batch] for start in range(0, len(prompts), self._batch)]
