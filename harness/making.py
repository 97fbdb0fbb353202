"""How a study's variants are made: side by side in a pool, or by processes that torchrun started, led by rank 0."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.pool import RemoteError, Task, tell_error
from harness.progress import Phase
from harness.quiet import quieten
from harness.scale import recipe_of
from harness.study import Study
from harness.tasks import MakeTask

Release = Callable[[], None]
"""Lets the other processes go, once all variants are made."""
_MEMBERSHIP = {
    *("RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT", "TORCH_NCCL_ASYNC_ERROR_HANDLING"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
}
"""What torchrun tells a process, beside its local rank and TORCHELASTIC_*."""
_TOKENS_LIKE_PRUNING = 20_000
"""Tokens whose training takes about as long as pruning the same model (the pocket model on two cores)."""


def effort(task: MakeTask) -> float:
    """Roughly how long a task takes, 1 for pruning or quantizing: a stage that trains takes far longer than others."""
    return 1 + sum(s.training.tokens for s in task.recipe.stages if s.training is not None) / _TOKENS_LIKE_PRUNING


def longest_first(tasks: Sequence[MakeTask]) -> list[MakeTask]:
    """What trains longest starts first, so that it does not end alone."""
    return sorted(tasks, key=effort, reverse=True)


def share_nothing(task: Task, running: list[Task]) -> bool:
    """Whether a task may start beside others: two that lack the same stage would both make it."""
    assert isinstance(task, MakeTask)
    busy = {key for other in running if isinstance(other, MakeTask) for key in other.keys}
    return busy.isdisjoint(task.keys)


def leads() -> bool:
    """Whether this is the process that runs the study: the only one, or rank 0."""
    return os.environ.get("RANK", "0") == "0"


def check_trains(study: Study) -> None:
    """Refuse torchrun where there is nothing to share, or where it cannot be.

    Raises:
        ConfigError: No variant has a stage that trains, one prunes while it trains, or there are several machines.
    """
    recipes = {name: recipe_of(study, name) for name, spec in study.variants.items() if spec.source is not None}
    trained = {name: [s.training for s in recipe.stages if s.training is not None] for name, recipe in recipes.items()}
    if not any(trained.values()):
        raise ConfigError(
            "torchrun shares stages that train, and this study has none; start it without torchrun (skill cells: "
            "--jobs on one machine, --ray on several)"
        )
    alone = next((name for name, stages in trained.items() if any(s.settings.gradual for s in stages)), None)
    if alone is not None:
        raise ConfigError(
            f"variant {alone}: gradual pruning trains in one process; make it without torchrun, and name its folder in "
            "the study (`path:`)"
        )
    if int(os.environ.get("GROUP_WORLD_SIZE") or "1") > 1:
        raise ConfigError(
            "`run` under torchrun is for one machine; on several make the variants with `sparsebench sparsify` and "
            "name their folders in the study (`path:`)"
        )


@contextmanager
def crew_of(device: str) -> Iterator[Release | None]:
    """Join the processes that torchrun started, at once: those that wait are given up after minutes.

    The first is given what lets the others go. The others take part in stages that train and are given None then.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        SparsifyError: As `sparsify.run.make_variant`, in the others.
    """
    quieten()
    from sparsify.run import join
    from sparsify.train.launch import crew

    with ExitStack() as stack:
        if stack.enter_context(crew(device)):
            _forget_torchrun()
            yield stack.close
        else:
            join(device)
            yield None


def _forget_torchrun() -> None:
    """Take away what tells this process that it is one of several; those that it starts are not.

    Its local rank stays: the stages that train ask for it, and it is that of a single process too.
    """
    for name in [name for name in os.environ if name in _MEMBERSHIP or name.startswith("TORCHELASTIC_")]:
        del os.environ[name]


def make_together(tasks: Sequence[MakeTask], release: Release, log: Path, *, threads: int, quiet: bool) -> None:
    """Make variants one after the other in this process, which leads, and let the others go.

    Args:
        tasks: What is missing; may be nothing.
        release: Of `crew_of`.
        log: File that receives tracebacks of unexpected errors.
        threads: CPU threads of this process afterwards; torchrun gives each process one.
        quiet: Show no progress.

    Raises:
        RemoteError: A variant cannot be made.
    """
    import torch

    before, total = 0.0, sum(effort(task) for task in tasks)
    with Phase("making", total, quiet=quiet) as phase:
        for task in tasks:
            try:
                task.run(partial(_tell, phase, task, before, total))
            except Exception as error:
                raise RemoteError(*tell_error(task, error, str(log))) from None
            # A sharded model is held by cycles, and what comes next wants its memory.
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            before += effort(task)
    release()
    torch.set_num_threads(threads)


def _tell(phase: Phase, task: MakeTask, before: float, total: float, kind: str, value: Any) -> None:
    if kind == "progress":
        fraction, note = value
        phase.update(before + effort(task) * min(1.0, fraction), total, f"{task.name}: {note}" if note else task.name)
