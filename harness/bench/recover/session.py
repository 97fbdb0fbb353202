"""The course of a run: pieces in worker processes, each after those that it needs, each journaled when done."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from harness.bench.machine import describe_machine
from harness.bench.recover.arms import COST, Arm, pieces_of
from harness.bench.recover.cost import CostTask
from harness.bench.recover.piece import PieceTask, Place, key_of
from harness.bench.recover.recipes import recipe_of, tokens_of
from harness.bench.recover.settings import LEAD_SEED, Settings
from harness.bench.skills import mean_score
from harness.bench.sparsify.journal import Journal
from harness.errors import ConfigError, InfrastructureError
from harness.pool import Pool, Task
from harness.progress import Phase
from sparsify.files import sha256_json

TOKENS_PER_S, ITEMS_PER_S = 3_000.0, 60.0
"""What one processor core of a small server trains and answers; for the shares of the progress and `--list` alone."""


def expected_seconds(pieces: Sequence[tuple[Arm, int]], settings: Settings) -> list[float]:
    """Roughly what each piece takes on one core, stages that an earlier piece has made not counted."""
    known: set[str] = set()
    found = []
    for arm, seed in pieces:
        if arm.method == COST:
            found.append(4 * (settings.cost_rounds + 1) * settings.cost_tokens / TOKENS_PER_S)
            continue
        spent, before = 0.0, ""
        rate = None if seed == LEAD_SEED else settings.rates[0]
        for stage in recipe_of(arm, seed, rate, settings)["stages"]:
            before = sha256_json([before, stage])
            if before not in known:
                known.add(before)
                spent += tokens_of(stage) / TOKENS_PER_S
        found.append(spent + settings.items * len(arm.suites) / ITEMS_PER_S)
    return found


def pretrained(arm: Arm, seed: int, settings: Settings) -> frozenset[str]:
    """Names of the pretrained models that a piece is made from; equal names mean the same model."""
    if arm.method == COST:
        return frozenset()
    found, before = [], ""
    for stage in recipe_of(arm, seed, None, settings)["stages"]:
        before = sha256_json([before, stage])
        if "pretrain" in stage:
            found.append(before)
    return frozenset(found)


@dataclass
class Session:
    """What a run needs.

    Attributes:
        settings: Budgets.
        place: Where.
        journal: Where results go.
        jobs: Worker processes at a time.
        quiet: Show no progress.
    """

    settings: Settings
    place: Place
    journal: Journal
    jobs: int = 1
    quiet: bool = False
    _finished: set[tuple[str, int]] = field(default_factory=set, init=False)
    _made: set[str] = field(default_factory=set, init=False)

    @cached_property
    def model_sha256(self) -> str:
        """Of the model that every lineage starts from."""
        from sparsify.checkpoint import model_fingerprint

        return model_fingerprint(self.place.base)

    def key(self, arm: Arm) -> dict[str, Any]:
        """What an arm's results belong to; not to the state of our code, which each line names (`versions`)."""
        return key_of(arm, self.model_sha256, self.settings)

    def known(self, arm: Arm, seed: int) -> dict[str, Any] | None:
        """The line of a piece, unless it is missing or failed."""
        found = self.journal.find(kind=_kind(arm), arm=arm.name, seed=seed, **self.key(arm))
        return None if found is None or "error" in found else found

    def run(self, arms: Sequence[Arm], seeds: Sequence[int], *, hours: float | None = None) -> None:
        """Do the pieces that are missing; after `hours`, stop with the next piece that is finished.

        Raises:
            ConfigError: Another run uses the work folder.
            InfrastructureError: The disk is full, or a worker was killed.
        """
        pieces = pieces_of(arms, seeds)
        self._finished = {(arm.name, seed) for arm, seed in pieces if self.known(arm, seed) is not None}
        missing = [(arm, seed) for arm, seed in pieces if (arm.name, seed) not in self._finished]
        weights = dict(zip(pieces, expected_seconds(pieces, self.settings), strict=True))
        if not missing:
            return
        deadline = None if hours is None else time.monotonic() + 3600 * hours
        with self._alone():
            # Nothing else may run while training is timed.
            for timed in (False, True):
                tasks = [self._task(arm, seed) for arm, seed in missing if (arm.method == COST) is timed]
                if tasks and self._work(tasks, weights, deadline):
                    return

    def _work(self, tasks: Sequence[Any], weights: Mapping[tuple[Arm, int], float], deadline: float | None) -> bool:
        """Run the tasks; whether time was up before the last one."""
        left = len(tasks)
        shares = {task.name: weights[task.arm, task.seed] for task in tasks}
        total, done = sum(shares.values()), dict.fromkeys(shares, 0.0)
        pool = Pool(self.jobs, self.place.work / "errors.log")
        with Phase("recover", total, quiet=self.quiet) as phase:
            for message in pool.run(list(tasks), ready=self._ready):
                task: Any = message.task
                if message.kind == "progress":
                    fraction, note = message.value
                    done[task.name] = fraction * shares[task.name]
                    phase.update(sum(done.values()), total, f"{task.name}: {note}" if note else task.name)
                    continue
                self._note(task, message.value)
                left, done[task.name] = left - 1, shares[task.name]
                phase.update(sum(done.values()), total, task.name)
                phase.say(f"{task.name}: {_told(message.value)} ({left} pieces left)")
                if deadline is not None and time.monotonic() > deadline and left:
                    pool.close()
                    phase.say(f"time is up with {left} pieces left; the same command goes on from here")
                    return True
        return False

    def _note(self, task: Any, line: Mapping[str, Any]) -> None:
        self.journal.add(
            {
                "kind": _kind(task.arm),
                "arm": task.arm.name,
                "seed": task.seed,
                **self.key(task.arm),
                "settings": asdict(self.settings),
                "machine": describe_machine(),
                **line,
            }
        )
        self._finished.add((task.arm.name, task.seed))
        self._made |= pretrained(task.arm, task.seed, self.settings)

    def _ready(self, task: Task, running: list[Task]) -> bool:
        assert isinstance(task, (PieceTask, CostTask))
        if not task.needs <= self._finished:
            return False
        # Two pieces that begin with the same pretraining would wait for each other; there is other work.
        being_made: frozenset[str] = frozenset().union(*(self._unmade(other) for other in running))
        return not being_made & self._unmade(task)

    def _unmade(self, task: Any) -> frozenset[str]:
        """The pretrained models of a piece that no finished piece was made from."""
        return pretrained(task.arm, task.seed, self.settings) - self._made

    def _task(self, arm: Arm, seed: int) -> PieceTask | CostTask:
        if arm.method == COST:
            return CostTask(arm, seed, self.settings, self.place)
        return PieceTask(arm, seed, self.settings, self.place, self.model_sha256)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the work folder for this process."""
        try:
            self.place.work.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.place.work / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InfrastructureError(
                f"cannot write {self.place.work}: {error.strerror}; choose another --work"
            ) from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"another run is using {self.place.work}; wait for it or choose another --work"
                ) from None
            yield
        finally:
            os.close(lock)


def _kind(arm: Arm) -> str:
    return COST if arm.method == COST else "arm"


def _told(line: Mapping[str, Any]) -> str:
    if "error" in line:
        return f"failed: {line['error']}"
    if "scores" not in line:
        return "measured"
    scores = ", ".join(f"{suite} {mean_score(cell['values']):.1%}" for suite, cell in line["scores"].items())
    rate = f", lr {line['chosen']['lr']:g}" if line["chosen"] else ""
    return f"{scores}{rate}; {(line['make_seconds'] + line['evaluate_seconds']) / 60:.1f} min"
