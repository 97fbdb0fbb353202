"""The masked trainer: pretraining, fine-tuning and sparse fine-tuning (dense is the case without a mask).

A step: run the micro-batches, mask the gradients, clip, step, mask the weights, check that nothing pruned is alive.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparsify.blocks import load_tokenizer
from sparsify.errors import CheckpointError, NumericsError
from sparsify.files import plain_os_errors
from sparsify.masks import pack, save_masks, unpack
from sparsify.progress import NullProgress, Progress
from sparsify.shards import Pending
from sparsify.train.batches import split
from sparsify.train.board import BOARD, Board
from sparsify.train.curves import CURVES, CURVES_PLOT, Curves, read_curves
from sparsify.train.data import open_data
from sparsify.train.gradual import Grower, pruned_weights
from sparsify.train.held import local
from sparsify.train.job import TrainJob, TrainStats
from sparsify.train.models import Student, bases_for, load_teacher
from sparsify.train.objective import Losses, Objective
from sparsify.train.optim import make_optimizers
from sparsify.train.plot import curves_svg
from sparsify.train.schedule import lr_factor
from sparsify.train.settings import TrainSettings
from sparsify.train.state import BEST, STATE, collect, known, read_state, restore, write_state

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
    with torch.random.fork_rng(), plain_os_errors():
        torch.manual_seed(settings.seed)
        stats = _train(job, settings, progress or NullProgress())
    if job.strategy.main:
        shutil.rmtree(job.work_dir, ignore_errors=True)
    return stats


def _train(job: TrainJob, settings: TrainSettings, progress: Progress) -> TrainStats:
    if settings.select is not None and settings.select.lr:
        from sparsify.train.select import train_with_trials

        return train_with_trials(job, settings, progress)
    run = Run(job, settings)
    run.train(progress)
    return run.finish()


class DivergedError(NumericsError):
    """The loss or a weight became non-finite."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} at step {step}; lower lr or set clip: 1.0 (the last good state was kept)")
        self.step = step


class Run:
    """One training run from its start, or from its last saved state, to its result.

    Attributes:
        best: Of the checkpoint with the lowest dev loss {step, dev}; None without a dev split, or
            before its first look.
    """

    def __init__(self, job: TrainJob, settings: TrainSettings) -> None:
        """Load model, teacher and text.

        Raises:
            SparsifyError: As `train`.
        """
        self.job, self.settings = job, settings
        self.data = open_data(job, settings, load_tokenizer(job.model_dir))
        self.student = Student(job, settings)
        self.grower = self._grower()
        teacher = load_teacher(job, settings)
        self.objective = Objective(self.student.model, teacher, settings, job.strategy, bases_for(job, settings))
        self.optimizers = make_optimizers(self.student.params, settings)
        self.curves = Curves(job.work_dir / CURVES)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.best: dict[str, Any] | None = None
        self._resume()
        self._resumed = self.step

    def train(self, progress: Progress) -> None:
        """Take the steps that are left.

        Raises:
            DivergedError: The loss became non-finite. The last saved state stays as it is.
            NumericsError: Something pruned came alive.
            OSError: A write failed. The last saved state stays as it is.
        """
        total, saved, pause = self.data.steps, time.monotonic(), _SAVE_EVERY_S
        board = Board(self.job.work_dir / BOARD, self.step) if self.job.strategy.main else None
        if self.step == 0 and self.grower is not None:
            self.grower.after(0, self.optimizers)
        while self.step < total:
            line = self._step(total)
            if self._dev_due(total):
                line["dev"] = self._look()
            if board is not None:
                self.curves.add(line)
                board.add(line)
                progress.update(self.step, total, _note(line, self.seconds, self.step, total))
            if self.job.strategy.agree(time.monotonic() - saved > pause):
                began = time.monotonic()
                self._save()
                saved = time.monotonic()
                # A large state takes long to write: at most a twentieth of the time goes to it.
                pause = max(_SAVE_EVERY_S, 20 * (saved - began)) if _SAVE_EVERY_S else 0.0
        if board is not None:
            board.close()
        self.student.held.check(self.optimizers, "at the end")
        if self.settings.select is not None:
            # What the dev split chose is on disk; the run need not be taken again to find it.
            self._save()

    def finish(self) -> TrainStats:
        """Write the result: the last weights, or those with the lowest dev loss where a dev split chooses."""
        total = self.data.steps
        chosen: dict[str, Any] = {}
        if self.best is not None:
            chosen = {"lr": self.settings.lr, **self.best}
            self._load_best()
        self._check_finite()
        if self.grower is not None:
            self.grower.check()
        merged = self.student.write()
        stats = TrainStats(total, self.tokens, round(self.seconds, 2), {}, self._resumed, chosen=chosen, merged=merged)
        if not self.job.strategy.main:
            return stats
        if self.grower is not None:
            save_masks({name: self.student.held.kept(name).cpu() for name in self.student.held.names}, self.job.out_dir)
        shutil.copyfile(self.curves.path, self.job.out_dir / CURVES)
        lines = read_curves(self.curves.path)
        (self.job.out_dir / CURVES_PLOT).write_text(curves_svg(lines, self._title()), encoding="utf-8")
        if (self.job.work_dir / BOARD).is_dir():
            shutil.copytree(self.job.work_dir / BOARD, self.job.out_dir / BOARD, dirs_exist_ok=True)
        tail = [entry["losses"] for entry in lines[-max(1, total // 10) :]]
        means = {key: sum(entry[key] for entry in tail) / len(tail) for key in tail[0]} if tail else {}
        return replace(stats, losses=means, sources=self.data.used())

    def _title(self) -> str:
        sizes = f"{self.tokens:,} tokens in {self.step:,} steps"
        return f"{sizes}, {self.settings.optimizer}, peak learning rate {self.settings.lr:g}"

    def _grower(self) -> Grower | None:
        if self.settings.gradual is None:
            return None
        names = pruned_weights(self.student.model, self.settings.gradual)
        return Grower(self.student.held, names, self.data.steps, self.settings.gradual)

    def _dev_due(self, total: int) -> bool:
        select = self.settings.select
        return select is not None and (self.step % select.every == 0 or self.step == total)

    def _look(self) -> float:
        """The dev loss now; the weights are kept if it is the lowest so far."""
        dev = self.objective.dev_loss([batch.to(self.job.device) for batch in self.data.dev])
        # Before its masks are done growing, a checkpoint is not what was asked for.
        eligible = self.grower is None or self.grower.done(self.step)
        lower = eligible and math.isfinite(dev) and (self.best is None or dev < self.best["dev"])
        if self.job.strategy.agree(lower):
            self._check_finite()
            self.best = {"step": self.step, "dev": dev}
            tensors = [*collect(self.student.params, (), self.job.strategy), *self._masks()]
            record = {**self._identity(), **self.best}
            write_state(self.job.work_dir / BEST, tensors, record, self.job.strategy)
        return dev

    def _load_best(self) -> None:
        found = read_state(self.job.work_dir / BEST)
        if found is None or self.best is None or found[1]["step"] != self.best["step"]:
            raise CheckpointError(f"{self.job.work_dir / BEST} is missing; remove {self.job.work_dir} to train again")
        restore(found[0], self.student.params, (), self.job.strategy)
        self._put_masks(found[0])
        self.student.held.apply()

    def _masks(self) -> list[Pending]:
        """Packed masks, where they change in this run; else those of the job stand."""
        if self.grower is None:
            return []
        held = self.student.held
        return [known(f"mask.{name}", pack(held.kept(name).cpu())) for name in held.names]

    def _put_masks(self, tensors: Mapping[str, Tensor]) -> None:
        if self.grower is None:
            return
        for name in self.student.held.names:
            weight = self.student.held.weight(name)
            self.student.held.replace(name, unpack(tensors[f"mask.{name}"], weight.shape[1]).to(weight.device))

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
            raise DivergedError(f"the loss became {losses['total']}", self.step)
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
        if self.grower is not None:
            self.grower.after(self.step, self.optimizers)
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
        self._check_finite()
        tensors = [*collect(self.student.params, self.optimizers, self.job.strategy), *self._masks()]
        if self.job.strategy.main:
            # The curves first: the state must not be ahead of them.
            self.curves.sync()
        write_state(self.job.work_dir / STATE, tensors, {**self._identity(), **self._position()}, self.job.strategy)

    def _check_finite(self) -> None:
        """Nothing that is not finite is written: nothing could go on from it."""
        for name, param in self.student.params.items():
            broken = self.job.strategy.total((~torch.isfinite(local(param))).sum())
            if int(broken):
                raise DivergedError(f"{int(broken)} values of {name} are not finite", self.step)

    def _identity(self) -> dict[str, Any]:
        return {"settings": self.settings.model_dump(mode="json"), "text": self.data.fingerprint}

    def _position(self) -> dict[str, Any]:
        done = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds, "best": self.best}
        return {**done, "data": self.data.position()}

    def _resume(self) -> None:
        found = read_state(self.job.work_dir / STATE)
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
        self.best = record["best"]
        self.data.seek(record["data"])
        self._put_masks(tensors)
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
