"""What worker processes do: make one variant, or run all skill cells of one variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cells import Cell, run_cell
from harness.evaluate.served import open_endpoint
from sparsify.recipe import Recipe

if TYPE_CHECKING:
    from harness.engines.base import Engine, TextEngine
    from harness.engines.openai import EndpointOptions

Send = Callable[[str, Any], None]


@dataclass(frozen=True)
class Relay:
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
        relay = Relay(send, lambda fraction: fraction)
        info = make_variant(self.model_dir, self.recipe, self.out_dir, options=options, progress=relay)
        return {"stages": [dict(stage) for stage in info.stages]}


@dataclass(frozen=True)
class EvaluateTask:
    """Run missing skill cells of one variant in one process.

    Attributes:
        variant: Its name.
        directory: Its files.
        cells: The cells to run.
        part: Which of the variant's tasks this is; 0 where it has only one.
        dtype: Computation dtype.
        threads: CPU threads.
        device: `cpu` or `cuda`.
        sandbox_refusal: Why generated code cannot be run, or None.
        endpoint: What the variant is, in place of files.
        options: What engine vllm is opened with beside the dtype.
    """

    variant: str
    directory: Path
    cells: tuple[Cell, ...]
    dtype: str
    threads: int
    device: str
    sandbox_refusal: str | None
    part: int = 0
    endpoint: EndpointOptions | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How progress calls it."""
        return f"evaluate {self.variant}" + (f" (part {self.part})" if self.part else "")

    @property
    def starts_processes(self) -> bool:
        """Whether its engine runs in processes of its own."""
        return self.cells[0].engine.startswith("vllm/")

    def run(self, send: Send) -> None:
        """Run the cells, one after the other."""
        engine = self._opener()
        weights = [cell.plan.requests() for cell in self.cells]
        before = 0
        for cell, weight in zip(self.cells, weights, strict=True):
            share = _share(before, weight, sum(weights))
            state = run_cell(cell, engine(), sandbox_refusal=self.sandbox_refusal, progress=Relay(send, share))
            before += weight
            note = state.refused or (f"{state.failed} requests failed" if state.failed else None)
            send("cell", {"cell": cell.name, "suite": cell.plan.name, "seconds": state.seconds, "refused": note})

    def _opener(self) -> Callable[[], Engine | TextEngine]:
        """What gives each cell its engine: files are loaded once; an endpoint's events are those of one cell."""
        if self.endpoint is not None:
            return partial(open_endpoint, self.endpoint)
        from harness.engines import load_engine

        name = self.cells[0].engine.partition("/")[0]
        options = self.options if name == "vllm" else {"device": self.device, "threads": self.threads}
        loaded = load_engine(name, self.directory, dtype=self.dtype, **options)
        return lambda: loaded


def split_last(tasks: Sequence[EvaluateTask], workers: int) -> list[EvaluateTask]:
    """Split the cells of the variants that are left over when all workers have had equally many.

    Nine variants on two workers would leave one of them idle for the time of a whole variant. A variant is split only
    among workers that would stand idle, because each part loads the model again.
    """
    over = len(tasks) % workers
    parts = workers // over if over else 1
    if parts < 2:
        return list(tasks)
    out = list(tasks[:-over])
    for task in tasks[-over:]:
        groups: list[list[Cell]] = [[] for _ in range(min(parts, len(task.cells)))]
        # Longest first into the emptiest group; a cell's work is its requests times the tokens they may take.
        for cell in sorted(task.cells, key=_work, reverse=True):
            min(groups, key=lambda group: sum(map(_work, group))).append(cell)
        out += [replace(task, cells=tuple(g), part=i if len(groups) > 1 else 0) for i, g in enumerate(groups, 1)]
    return out


def _work(cell: Cell) -> int:
    # A choice costs one forward, and there are two to five an item.
    return cell.plan.requests() * (cell.plan.suite.preset(cell.plan.preset).max_new_tokens or 4)


def _share(before: int, weight: int, total: int) -> Callable[[float], float]:
    return lambda fraction: (before + weight * fraction) / total
