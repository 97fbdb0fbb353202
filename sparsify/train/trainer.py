"""The masked trainer: pretraining, fine-tuning and sparse fine-tuning (dense is the case without a mask).

A step: run the micro-batches, mask the gradients, clip, step, mask the weights, check that nothing pruned is alive.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparsify.errors import CheckpointError, NumericsError
from sparsify.progress import NullProgress, Progress
from sparsify.train.batches import split
from sparsify.train.curves import CURVES, Curves, read_curves
from sparsify.train.data import open_data
from sparsify.train.job import TrainJob, TrainStats
from sparsify.train.models import Student, load_teacher, load_tokenizer
from sparsify.train.objective import Losses, Objective
from sparsify.train.optim import make_optimizers
from sparsify.train.schedule import lr_factor
from sparsify.train.settings import TrainSettings
from sparsify.train.state import collect, read_state, restore, write_state

__all__ = ["TrainJob", "TrainStats", "train"]

_SAVE_EVERY_S = 60.0


def train(job: TrainJob, settings: TrainSettings, *, progress: Progress | None = None) -> TrainStats:
    """Train a model and write it to `job.out_dir`.

    Interrupted at any moment and started again with the same arguments, it continues from the last state saved in
    `job.work_dir` and takes the same steps.

    Raises:
        SparsifyError: A corpus is missing, empty or smaller than a batch; a mask or a teacher belongs to another model.
        CheckpointError: The state in `job.work_dir` is damaged or of another run.
        NumericsError: The loss became non-finite, or something pruned came alive. The last good state stays.
        OSError: A write failed, such as on a full disk. The last state stays.
    """
    # Dropout, where a model has it, draws from the seed and leaves the caller's random state alone.
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        return _Run(job, settings).execute(progress or NullProgress())


class _Run:
    def __init__(self, job: TrainJob, settings: TrainSettings) -> None:
        self.job, self.settings = job, settings
        self.data = open_data(job, settings, load_tokenizer(job.model_dir))
        self.student = Student(job, settings)
        self.objective = Objective(self.student.model, load_teacher(job, settings), settings, job.strategy)
        self.optimizers = make_optimizers(self.student.params, settings)
        self.curves = Curves(job.work_dir / CURVES)
        self.step, self.tokens, self.seconds = 0, 0, 0.0

    def execute(self, progress: Progress) -> TrainStats:
        self._resume()
        resumed, total, saved = self.step, self.data.steps, time.monotonic()
        while self.step < total:
            line = self._step(total)
            if self.job.strategy.main:
                self.curves.add(line)
                progress.update(self.step, total, _note(line, self.seconds, self.step, total))
            if self.job.strategy.agree(time.monotonic() - saved > _SAVE_EVERY_S):
                self._save()
                saved = time.monotonic()
        self.student.held.check(self.optimizers, "at the end")
        merged = self.student.write()
        stats = TrainStats(total, self.tokens, round(self.seconds, 2), {}, resumed, merged=merged)
        if not self.job.strategy.main:
            return stats
        shutil.copyfile(self.curves.path, self.job.out_dir / CURVES)
        tail = [entry["losses"] for entry in read_curves(self.curves.path)[-max(1, total // 10) :]]
        shutil.rmtree(self.job.work_dir, ignore_errors=True)
        means = {key: sum(entry[key] for entry in tail) / len(tail) for key in tail[0]} if tail else {}
        return replace(stats, losses=means, used=self.data.used())

    def _step(self, total: int) -> dict[str, Any]:
        began = time.monotonic()
        batch = self.data.next()
        self.job.strategy.reseed(self.settings.seed, self.step)
        parts = split(self.job.strategy.share(batch).to(self.job.device), self.settings.accumulate)
        counts = self.objective.counts(parts)
        found = []
        for part in parts:
            found.append(self.objective(part, counts))
            self.job.strategy.backward(found[-1].total)
        losses = _sum(found, self.job.strategy.total)
        if not math.isfinite(losses["total"]):
            # Before the step: the weights are those of the step before.
            raise NumericsError(
                f"the loss became {losses['total']} at step {self.step}; lower lr or set clip: 1.0 "
                "(the last good state was kept)"
            )
        params = self.student.params.values()
        norm = self.job.strategy.clip(params, self.settings.clip) if self.settings.clip else None
        factor = lr_factor(self.step, total, self.settings)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.student.held.apply()
        self.student.held.check(self.optimizers, f"after step {self.step}")
        tokens = int(batch.real.sum())
        took = time.monotonic() - began
        self.tokens += tokens
        self.seconds += took
        line = {"step": self.step, "tokens": self.tokens, "lr": self.settings.lr * factor, "losses": losses}
        blocks = _blocks(found, self.job.strategy.total)
        if blocks:
            line["squarehead_blocks"] = blocks
        if norm is not None:
            line["grad_norm"] = float(norm)
        pruned, places = self.student.held.counts
        return {**line, "sparsity": pruned / max(1, places), "tokens_per_s": round(tokens / max(took, 1e-9), 1)}

    def _save(self) -> None:
        self.student.held.check(self.optimizers, "before the state is saved")
        tensors = collect(self.student.params, self.optimizers, self.job.strategy)
        if not self.job.strategy.main:
            return
        # The curves first: the state must not be ahead of them.
        self.curves.sync()
        write_state(self.job.work_dir, tensors, {**self._identity(), **self._position()})

    def _identity(self) -> dict[str, Any]:
        return {"settings": self.settings.model_dump(mode="json"), "text": self.data.fingerprint}

    def _position(self) -> dict[str, Any]:
        done = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        return {**done, "data": self.data.position()}

    def _resume(self) -> None:
        found = read_state(self.job.work_dir)
        if found is None:
            if self.job.strategy.main:
                self.curves.cut(0)
            return
        tensors, record = found
        if {key: record.get(key) for key in self._identity()} != self._identity():
            raise CheckpointError(
                f"{self.job.work_dir} was begun with other settings or text; remove it to train from the start"
            )
        restore(tensors, self.student.params, self.optimizers, self.job.strategy)
        self.step, self.tokens, self.seconds = record["step"], record["tokens"], record["seconds"]
        self.data.seek(record["data"])
        if self.job.strategy.main:
            self.curves.cut(self.step)
        self.student.held.check(self.optimizers, "in the saved state")


def _sum(found: list[Losses], total: Any) -> dict[str, float]:
    """The losses of a step from those of its micro-batches, each of which is its share."""
    named: dict[str, Tensor] = {}
    for losses in found:
        for name, value in {"total": losses.total.detach(), **losses.parts}.items():
            named[name] = named[name] + value if name in named else value
    return {name: float(total(value)) for name, value in named.items()}


def _blocks(found: list[Losses], total: Any) -> list[float]:
    return [float(total(torch.stack(parts).sum())) for parts in zip(*(losses.blocks for losses in found), strict=True)]


def _note(line: dict[str, Any], seconds: float, step: int, total: int) -> str:
    """The loss, the speed and the time left, for people."""
    left = seconds / step * (total - step)
    eta = f"{left / 3600:.1f} h" if left >= 5400 else f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    return f"loss {line['losses']['total']:.3f}, {line['tokens_per_s']:,.0f} tokens/s, {eta} left"
