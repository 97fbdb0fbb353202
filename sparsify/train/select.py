"""Choice of the learning rate by the dev split: every rate gets the same trial, dense models and sparse ones alike.

The reference recipes were tuned on the test split; here evaluation items never take part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsify.errors import NumericsError
from sparsify.files import write_json
from sparsify.progress import Progress
from sparsify.train.job import TrainJob, TrainStats
from sparsify.train.settings import Select, TrainSettings

_DONE = "done.json"


def train_with_trials(job: TrainJob, settings: TrainSettings, progress: Progress) -> TrainStats:
    """Try each rate of `settings.select`, and write the result of the one with the lowest dev loss.

    A finished trial is not run again. With `trial_tokens` trials are shorter, and the best rate is then
    trained in full.

    Raises:
        NumericsError: All rates diverged.
    """
    from sparsify.train.trainer import Run

    select = settings.select
    assert select is not None
    budget = settings.tokens if select.trial_tokens is None else select.trial_tokens
    runs = len(select.lr) + (select.trial_tokens is not None)
    trials: list[dict[str, Any]] = []
    for index, rate in enumerate(select.lr):
        tried = at_rate(settings, rate, budget)
        trials.append(_trial(replace(job, work_dir=_place(job, index)), tried, _Part(progress, index, runs, rate)))
        if job.strategy.main:
            _forget_losers(job, trials)
    best = min(range(len(trials)), key=lambda index: trials[index].get("dev", math.inf))
    if "dev" not in trials[best]:
        rates = ", ".join(f"{rate:g}" for rate in select.lr)
        raise NumericsError(
            f"the loss became non-finite with every learning rate ({rates}); try lower ones or clip: 1.0"
        )
    rate = select.lr[best]
    where = _place(job, best) if select.trial_tokens is None else job.work_dir / "chosen"
    run = Run(replace(job, work_dir=where), at_rate(settings, rate, settings.tokens))
    run.train(_Part(progress, runs - 1, runs, rate))
    stats = run.finish()
    return replace(stats, chosen={**stats.chosen, "trials": trials})


def at_rate(settings: TrainSettings, rate: float, tokens: int) -> TrainSettings:
    """The settings with another learning rate and budget; the rate of Muon's matrices keeps its ratio to it."""
    select: Select | None = settings.select
    assert select is not None
    return settings.model_copy(
        update={
            "lr": rate,
            "muon_lr": settings.muon_lr * rate / settings.lr,
            "tokens": tokens,
            "select": select.model_copy(update={"lr": (), "trial_tokens": None}),
        }
    )


def _place(job: TrainJob, index: int) -> Path:
    return job.work_dir / f"trial-{index}"


def _trial(job: TrainJob, settings: TrainSettings, progress: Progress) -> dict[str, Any]:
    from sparsify.train.trainer import DivergedError, Run

    path = job.work_dir / _DONE
    if path.exists():
        done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return done
    try:
        run = Run(job, settings)
        run.train(progress)
        assert run.best is not None
        found: dict[str, Any] = {"lr": settings.lr, **run.best}
    except DivergedError as error:
        found = {"lr": settings.lr, "diverged_at": error.step}
    if job.strategy.main:
        job.work_dir.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    return found


def _forget_losers(job: TrainJob, trials: Sequence[dict[str, Any]]) -> None:
    """Keep the weights of the best trial so far alone; of the others what they came to, and their curves."""
    best = min(range(len(trials)), key=lambda index: trials[index].get("dev", math.inf))
    for index in range(len(trials)):
        if index != best:
            for path in _place(job, index).glob("*.safetensors"):
                path.unlink()


class _Part:
    """Progress of one of several runs."""

    def __init__(self, whole: Progress, index: int, count: int, rate: float) -> None:
        self._whole, self._index, self._count, self._rate = whole, index, count, rate

    def update(self, done: float, total: float, note: str = "") -> None:
        """Pass on, in units of runs."""
        self._whole.update(self._index + done / max(1.0, total), self._count, f"lr {self._rate:g}: {note}")
