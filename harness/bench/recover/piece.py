"""One piece of the benchmark: make a lineage with one seed, measure it on its skills, and say it in one JSON line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.bench.recover.arms import Arm
from harness.bench.recover.corpora import corpus_file
from harness.bench.recover.recipes import recipe_of, settings_sha256
from harness.bench.recover.settings import LEAD_SEED, Settings
from harness.bench.skills import DTYPE, Examiner, Part, Send, or_error
from harness.errors import InfrastructureError
from harness.layout import Layout
from harness.models import public_name

if TYPE_CHECKING:
    from sparsify.variant import VariantInfo

_MAKING = 0.75
"""Share of a piece's progress that is making, not measuring."""


@dataclass(frozen=True)
class Place:
    """Where a run keeps what.

    Attributes:
        base: The model that every lineage starts from.
        journal: The raw record: JSON lines.
        work: Folder of text, stages, variants and answers.
        engine: What executes variants when skills are measured: `torch` or `sparse`.
        threads: CPU threads of each process.
    """

    base: Path
    journal: Path
    work: Path
    engine: str
    threads: int = 1

    @property
    def layout(self) -> Layout:
        """Folders of variants, stages and answers."""
        return Layout(self.work)


def folder_of(arm: Arm, seed: int, settings: Settings) -> str:
    """The folder's name of a variant, such as `ce-squarehead-70-s0-1a2b3c`: with other settings it has another."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', arm.name)}-s{seed}-{settings_sha256(arm, settings)[:6]}"


def key_of(arm: Arm, model_sha256: str, settings: Settings) -> dict[str, Any]:
    """What lines of an arm are known by in the journal, beside its name and seed."""
    return {"model_sha256": model_sha256, "settings_sha256": settings_sha256(arm, settings)}


def read_lines(journal: Path) -> list[dict[str, Any]]:
    """The complete lines of a journal that another process may be writing to; `Journal` would repair it."""
    lines = []
    for text in journal.read_text("utf-8").split("\n") if journal.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


@dataclass(frozen=True)
class PieceTask:
    """Make and measure one arm with one seed; started again, it does what is missing.

    Attributes:
        arm, seed: Which.
        settings: Budgets.
        place: Where.
        model_sha256: Fingerprint of the base model.
    """

    arm: Arm
    seed: int
    settings: Settings
    place: Place
    model_sha256: str

    @property
    def name(self) -> str:
        """How progress calls it."""
        return f"{self.arm.name} seed {self.seed}"

    @property
    def needs(self) -> frozenset[tuple[str, int]]:
        """(arm, seed) of the pieces that must be finished before."""
        own = {(arm.name, self.seed) for arm in self.arm.needs}
        return frozenset(own | ({(self.arm.rate_of.name, LEAD_SEED)} if self.seed != LEAD_SEED else set()))

    def run(self, send: Send) -> dict[str, Any]:
        """The piece's line, or `{"error"}` where it failed; only a failing disk stops the whole run.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        return or_error(lambda: self._run(send))

    def _run(self, send: Send) -> dict[str, Any]:
        import torch

        from sparsify.run import STAGE_VERSIONS

        torch.set_num_threads(self.place.threads)
        began = time.monotonic()
        recipe = recipe_of(self.arm, self.seed, self._rate(), self.settings)
        info = self._make(recipe, send)
        made = time.monotonic()
        scores = self._measure(self.directory, send)
        return {
            "recipe": recipe,
            "versions": dict(STAGE_VERSIONS),
            "engine": f"{self.place.engine}/{DTYPE}",
            **_facts(info),
            "scores": scores,
            "make_seconds": round(made - began, 1),
            "evaluate_seconds": round(time.monotonic() - made, 1),
        }

    @property
    def directory(self) -> Path:
        """Where its variant is made."""
        return self.place.layout.variant(folder_of(self.arm, self.seed, self.settings))

    def _make(self, recipe: Mapping[str, Any], send: Send) -> VariantInfo:
        from sparsify.recipe import parse_recipe
        from sparsify.run import MakeOptions, make_variant

        texts = self.place.layout.corpora
        options = MakeOptions(
            store=self.place.layout.store,
            name=folder_of(self.arm, self.seed, self.settings),
            base=public_name(self.settings.model),
            resolve_corpus=lambda name: corpus_file(name, self.settings, texts),
            teacher_dir=self._teacher(send),
        )
        parsed = parse_recipe(recipe, name=self.arm.method, where=self.name)
        return make_variant(self.place.base, parsed, self.directory, options=options, progress=Part(send, 0.0, _MAKING))

    def _line(self, arm: Arm, seed: int) -> dict[str, Any]:
        wanted = {"kind": "arm", "arm": arm.name, "seed": seed, **key_of(arm, self.model_sha256, self.settings)}
        lines = [
            line
            for line in read_lines(self.place.journal)
            if all(line.get(name) == value for name, value in wanted.items())
        ]
        if not lines or "error" in lines[-1]:
            raise InfrastructureError(f"it needs {arm.name} seed {seed}, which failed")
        return lines[-1]

    def _rate(self) -> float | None:
        """The learning rate that the lead seed chose; None where this piece is the one that chooses, or has none."""
        rate_of = self.arm.rate_of
        if self.seed == LEAD_SEED and rate_of == self.arm:
            return None
        if self.seed == LEAD_SEED:
            # The very stage of the other arm, trials and all, which the store has.
            self._line(rate_of, LEAD_SEED)
            return None
        return float(self._line(rate_of, LEAD_SEED)["chosen"]["lr"])

    def _teacher(self, send: Send) -> Path | None:
        """The dense lineage's folder; made again where only the journal has it, for the work folder is new."""
        if not self.arm.taught:
            return None
        line = self._line(self.arm.needs[0], self.seed)
        teacher = PieceTask(self.arm.needs[0], self.seed, self.settings, self.place, self.model_sha256)
        with _alone(self.place.work / f"{teacher.directory.name}.lock"):
            if not teacher.directory.is_dir():
                # With the rate that was chosen: what was tried beside it is not needed again.
                rate = float(line["chosen"]["lr"])
                teacher._make(recipe_of(teacher.arm, self.seed, rate, self.settings), send)
        return teacher.directory

    def _measure(self, variant: Path, send: Send) -> dict[str, Any]:
        examiner = Examiner(
            items=self.settings.items,
            batch=self.settings.batch,
            engine=self.place.engine,
            threads=self.place.threads,
            layout=self.place.layout,
        )
        rest = 1 - _MAKING
        return examiner.measure(
            variant, self.arm.suites, lambda start, share: Part(send, _MAKING + rest * start, rest * share)
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock among the workers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _facts(info: VariantInfo) -> dict[str, Any]:
    trained = [stage for stage in info.stages if "chosen" in stage]
    return {
        "variant_sha256": info.weights_sha256,
        "zeros": info.sparsity.linears,
        "bits": info.weight_bits,
        "masks": info.masks.model_dump() if info.masks is not None else None,
        "stages": [dict(stage) for stage in info.stages],
        "chosen": trained[-1]["chosen"] if trained else None,
        "events": [event.model_dump() for event in info.events],
    }
