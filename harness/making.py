"""How a study's variants are made: side by side in a pool, or by processes that torchrun started, led by rank 0."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from harness.errors import ConfigError
from harness.pool import Task
from harness.progress import Phase
from harness.scale import recipe_of
from harness.study import Study
from harness.tasks import MakeTask

_MEMBERSHIP = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""By which torchrun tells a process that it is one of several."""


def longest_first(tasks: Sequence[MakeTask]) -> list[MakeTask]:
    """What trains longest starts first, so that it does not end alone."""
    return sorted(tasks, key=lambda task: -sum(s.training.tokens for s in task.recipe.stages if s.training is not None))


def share_nothing(task: Task, running: list[Task]) -> bool:
    """Whether a task may start beside others: two that lack the same stage would both make it."""
    assert isinstance(task, MakeTask)
    busy = {key for other in running if isinstance(other, MakeTask) for key in other.keys}
    return busy.isdisjoint(task.keys)


def leads() -> bool:
    """Whether this is the process that runs the study: the only one, or rank 0."""
    return os.environ.get("RANK", "0") == "0"


def check_trains(study: Study) -> None:
    """Refuse torchrun where there is nothing to share.

    Raises:
        ConfigError: No variant of the study has a stage that trains.
    """
    made = (name for name, spec in study.variants.items() if spec.source is not None)
    if not any(stage.training is not None for name in made for stage in recipe_of(study, name).stages):
        raise ConfigError(
            "torchrun shares stages that train, and this study has none; start it without torchrun (skill cells: "
            "--jobs on one machine, --ray on several)"
        )


def take_part(device: str) -> None:
    """What the processes do that do not lead: their part of the stages that train, until rank 0 has made all."""
    from sparsify.run import join
    from sparsify.train.launch import crew

    with crew(device):
        join(device)


def make_together(tasks: Sequence[MakeTask], device: str, *, quiet: bool) -> None:
    """Make variants one after the other in this process, which leads; the others are then free.

    Raises:
        SparsifyError: As `sparsify.run.make_variant`.
    """
    from sparsify.train.launch import crew

    with crew(device), Phase("making", len(tasks), quiet=quiet) as phase:
        for number, task in enumerate(tasks):
            task.run(partial(_tell, phase, number, len(tasks), task.name))
    if device.startswith("cuda"):
        import torch

        # Workers that evaluate on this GPU need the memory.
        torch.cuda.empty_cache()


def _tell(phase: Phase, before: int, count: int, name: str, kind: str, value: Any) -> None:
    if kind == "progress":
        fraction, note = value
        phase.update(before + min(1.0, fraction), count, f"{name}: {note}" if note else name)


@contextmanager
def no_member() -> Iterator[None]:
    """Processes that are started inside know nothing of torchrun: they are none of its."""
    kept = {name: os.environ.pop(name) for name in _MEMBERSHIP if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
