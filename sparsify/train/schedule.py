"""How the learning rate follows the steps."""

from __future__ import annotations

import math

from sparsify.train.settings import TrainSettings


def lr_factor(step: int, total: int, settings: TrainSettings) -> float:
    """The learning rate of a step relative to its peak: linear warm-up, then linear or cosine to 0, or constant.

    Args:
        step: Counted from 0.
        total: Steps of the run; warm-up takes a fifth of them at most.
        settings: Names the schedule.
    """
    warmup = min(settings.warmup, max(1, total // 5))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if settings.schedule == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1.0
