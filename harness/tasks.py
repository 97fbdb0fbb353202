"""What worker processes do: make one variant, or run all skill cells of one variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cells import Cell, run_cell
from sparsify.recipe import Recipe

Send = Callable[[str, Any], None]


@dataclass(frozen=True)
class _Relay:
    """Progress of a piece of work, passed on to the parent."""

    send: Send
    share: Callable[[float], float]

    def update(self, done: float, total: float, note: str = "") -> None:
        """Pass on the fraction that is done of the whole task."""
        self.send("progress", (self.share(done / total if total else 1.0), note))


@dataclass(frozen=True)
class MakeTask:
    """Make one variant by its recipe.

    Attributes:
        variant: Its name.
        recipe: The recipe.
        model_dir: The model that the recipe starts from.
        base: What records call that model.
        baseline: The variant that it is compared with.
        out_dir: Where it goes.
        store: Folder of stages.
        corpora: File by corpus name.
        keys: Keys of its stages that are not finished.
        threads: CPU threads.
        device: `cpu` or `cuda`.
        teacher_dir: The model that the recipe's given teacher is.
    """

    variant: str
    recipe: Recipe
    model_dir: Path
    base: str
    baseline: str | None
    out_dir: Path
    store: Path
    corpora: dict[str, Path]
    keys: tuple[str, ...]
    threads: int
    device: str
    teacher_dir: Path | None = None

    @property
    def name(self) -> str:
        """How progress calls it."""
        return f"make {self.variant}"

    def run(self, send: Send) -> dict[str, Any]:
        """Make the variant and return its stages."""
        import torch

        from sparsify.run import MakeOptions, make_variant

        torch.set_num_threads(self.threads)
        options = MakeOptions(
            store=self.store,
            name=self.variant,
            base=self.base,
            baseline=self.baseline,
            resolve_corpus=lambda name: self.corpora[name],
            teacher_dir=self.teacher_dir,
            device=self.device,
        )
        relay = _Relay(send, lambda fraction: fraction)
        info = make_variant(self.model_dir, self.recipe, self.out_dir, options=options, progress=relay)
        return {"stages": [dict(stage) for stage in info.stages]}


@dataclass(frozen=True)
class EvaluateTask:
    """Run the missing skill cells of one variant in one process.

    Attributes:
        variant: Its name.
        directory: Its files.
        cells: The cells to run.
        dtype: Computation dtype.
        threads: CPU threads.
        device: `cpu` or `cuda`.
        sandbox_refusal: Why generated code cannot be run, or None.
    """

    variant: str
    directory: Path
    cells: tuple[Cell, ...]
    dtype: str
    threads: int
    device: str
    sandbox_refusal: str | None

    @property
    def name(self) -> str:
        """How progress calls it."""
        return f"evaluate {self.variant}"

    def run(self, send: Send) -> None:
        """Run the cells, one after the other."""
        from harness.engines import load_engine

        engine = load_engine(
            self.cells[0].engine.partition("/")[0],
            self.directory,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
        )
        weights = [cell.plan.requests() for cell in self.cells]
        before = 0
        for cell, weight in zip(self.cells, weights, strict=True):
            share = _share(before, weight, sum(weights))
            state = run_cell(cell, engine, sandbox_refusal=self.sandbox_refusal, progress=_Relay(send, share))
            before += weight
            send(
                "cell", {"cell": cell.name, "suite": cell.plan.name, "seconds": state.seconds, "refused": state.refused}
            )


def _share(before: int, weight: int, total: int) -> Callable[[float], float]:
    return lambda fraction: (before + weight * fraction) / total
