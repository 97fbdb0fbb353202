"""Skills of a variant as the benchmarks of methods measure them: pocket suites, every answer kept, scores by item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cells import Cell, SuitePlan, read_state, run_cell
from harness.errors import InfrastructureError
from harness.evaluate.plan import GenSettings
from harness.layout import Layout

Send = Callable[[str, Any], None]
DTYPE = "float32"
_DIGITS = 6


@dataclass(frozen=True)
class Examiner:
    """What skills are measured with.

    Attributes:
        items: First items of each skill's test set.
        batch: Prompts per batch.
        engine: What executes variants: `torch` or `sparse`.
        threads: CPU threads.
        layout: Where answers go.
    """

    items: int
    batch: int
    engine: str
    threads: int
    layout: Layout

    @property
    def label(self) -> str:
        """The engine as records name it."""
        return f"{self.engine}/{DTYPE}"

    def measure(self, variant: Path, suites: Sequence[str], progress: Any) -> dict[str, Any]:
        """Scores of the variant in a folder by suite: {items, metric, unanswered, values}.

        What is answered already is not asked again.

        Args:
            variant: The variant; answers are kept under its folder's name.
            suites: Which skills.
            progress: Made a part of for each skill: `progress(start, share)` gives a `Progress`.

        Raises:
            InfrastructureError: Generated code cannot be run.
        """
        from harness.engines import load_engine

        cells = [
            Cell(variant.name, suite_plan(suite, self.items, self.batch), self.label, self.layout) for suite in suites
        ]
        missing = [cell for cell in cells if read_state(cell) is None]
        if missing:
            engine = load_engine(self.engine, variant, device="cpu", dtype=DTYPE, threads=self.threads)
            for index, cell in enumerate(missing):
                part = progress(index / len(missing), 1 / len(missing))
                state = run_cell(cell, engine, sandbox_refusal=None, progress=part)
                if state.refused:
                    raise InfrastructureError(f"{cell.name}: {state.refused}")
        return {cell.plan.name: _scores(cell) for cell in cells}


@dataclass(frozen=True)
class Part:
    """Progress of a part of a piece of work, sent to the process that shows it."""

    send: Send
    start: float
    share: float

    def update(self, done: float, total: float, note: str = "") -> None:
        """Pass on the fraction that is done of the whole piece."""
        self.send("progress", (self.start + self.share * (done / total if total else 1.0), note))


def or_error(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The line that `work` gives, or `{"error"}`: an arm that fails is a result of a benchmark.

    Raises:
        OSError: The disk is full, or cannot be written; that stops the whole run.
    """
    try:
        return work()
    except OSError:
        raise
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def suite_plan(suite: str, items: int, batch: int) -> SuitePlan:
    """A skill as benchmarks of methods measure it."""
    return SuitePlan(suite, "pocket", items, GenSettings(batch_size=batch))


def _scores(cell: Cell) -> dict[str, Any]:
    from harness.fingerprint import plan_sha256
    from harness.records import read_samples
    from harness.report.cells import primary_score

    rows = read_samples(cell.layout.samples(cell.variant, cell.plan.name))
    metric = cell.plan.suite.primary_metric
    return {
        "items": plan_sha256([(row.item_id, row.item_hash) for row in rows]),
        "metric": metric,
        "unanswered": sum(row.counts_as_zero for row in rows),
        "values": encode_scores([primary_score(row, metric) for row in rows]),
    }


def encode_scores(values: Sequence[float]) -> str | list[float]:
    """Scores of items, short: a string of 0 and 1 where all are right or wrong, else numbers."""
    if all(value in (0.0, 1.0) for value in values):
        return "".join("1" if value else "0" for value in values)
    return [round(value, _DIGITS) for value in values]


def mean_score(values: str | Sequence[float]) -> float:
    """Mean of encoded scores; 0 where there are none."""
    return sum(map(float, values)) / len(values) if values else 0.0


def need_sandbox() -> None:
    """Refuse before hours are spent: the code skill needs a sandbox."""
    from harness.evaluate.sandbox import open_sandbox, preflight

    preflight(open_sandbox())


def usable_engine(name: str) -> str:
    """The engine of this name, or what `auto` means here.

    Raises:
        ConfigError: It cannot be used here.
    """
    from harness.engines import resolve_engine, why_not
    from harness.errors import ConfigError

    chosen = resolve_engine(name)
    why = why_not(chosen)
    if why is not None:
        raise ConfigError(f"--engine {name}: {why}")
    return chosen
