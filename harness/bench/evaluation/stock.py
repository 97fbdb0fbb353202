"""Stock lm-eval with its `hf` model, watched: seconds inside its generation, and the tokens that it generated."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.bench.evaluation.task import Answers, Quiz


def open_stock(directory: Path, *, batch: int) -> Any:
    """lm-eval's `HFLM` on a directory, float32 on the CPU, that notes seconds and tokens and changes nothing else."""
    from lm_eval.models.huggingface import HFLM

    class Watched(HFLM):  # type: ignore[misc]
        seconds = cpu_seconds = 0.0

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            self.generated: dict[tuple[int, ...], list[int]] = {}
            began, cpu = time.perf_counter(), time.process_time()
            texts: list[str] = super().generate_until(requests, disable_tqdm=True)
            self.seconds, self.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
            return texts

        def _model_generate(self, context: Any, max_length: int, stop: list[str], **options: Any) -> Any:
            out = super()._model_generate(context, max_length, stop, **options)
            width = context.shape[1]
            for row, prompt, mask in zip(out, context, options["attention_mask"], strict=True):
                self.generated[tuple(prompt[mask.bool()].tolist())] = row[width:].tolist()
            return out

    with contextlib.redirect_stderr(io.StringIO()):
        return Watched(pretrained=str(directory), dtype="float32", device="cpu", batch_size=batch)


def run_stock(model: Any, quiz: Quiz, positions: Sequence[int]) -> Answers:
    """Answer items through `lm_eval.evaluate`, scoring included as always but not timed."""
    import lm_eval

    with contextlib.redirect_stderr(io.StringIO()):
        found = lm_eval.evaluate(
            lm=model,
            task_dict={"tasks": {quiz.task.config.task: quiz.task}, "groups": {}},
            samples={quiz.task.config.task: list(positions)},
            bootstrap_iters=0,
            apply_chat_template=quiz.chat,
            fewshot_as_multiturn=quiz.chat,
        )
    (samples,) = found["samples"].values()
    texts = {sample["doc"]["item_id"]: sample["resps"][0][0] for sample in samples}
    prompts = {sample["doc"]["item_id"]: sample["arguments"][0][0] for sample in samples}
    # lm-eval encodes in this way itself, padding apart.
    encoded = {item: tuple(model.tok_batch_encode([text])[0][0].tolist()) for item, text in prompts.items()}
    return Answers(
        seconds=model.seconds,
        cpu_seconds=model.cpu_seconds,
        prompts=encoded,
        tokens={item: model.generated[prompt] for item, prompt in encoded.items()},
        texts=texts,
    )
