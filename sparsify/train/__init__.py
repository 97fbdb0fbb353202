"""The masked trainer and its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsify.train.settings import LossWeights, TrainSettings

if TYPE_CHECKING:
    from sparsify.train.job import TrainJob, TrainStats
    from sparsify.train.trainer import train

__all__ = ["LossWeights", "TrainJob", "TrainSettings", "TrainStats", "train"]


def __getattr__(name: str) -> Any:
    if name in ("TrainJob", "TrainStats", "train"):
        from sparsify.train import trainer

        return getattr(trainer, name)
    raise AttributeError(name)
