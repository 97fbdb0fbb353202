"""Skill cells: one (variant, suite) each, from its plan to its scored rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.engine_specs import OpenAISpec
from harness.engines import resolve_engine
from harness.evaluate.plan import GenRow, GenSettings
from harness.evaluate.suite import Scores, cell_key, deviations, evaluate_suite, score_rows
from harness.fingerprint import model_fingerprint
from harness.journal import Journal
from harness.layout import Layout, read_json
from harness.records import SampleRow, write_json_atomic, write_samples
from harness.study import Study
from sparsify.progress import Progress
from suites.data import Item, data_events, load_fewshot, load_items
from suites.registry import Suite, load_suite, scorer, suite_hash

if TYPE_CHECKING:
    from harness.engines.base import Engine, TextEngine


@dataclass(frozen=True)
class SuitePlan:
    """A suite as a study plans it: which items, with which settings. Never holds anything of a model."""

    name: str
    preset: str
    n: int | None
    settings: GenSettings
    data_dir: Path | None = None

    @property
    def suite(self) -> Suite:
        """The suite."""
        return load_suite(self.name)

    def items(self) -> list[Item]:
        """The planned items, in order."""
        return _items(self.name, self.preset, self.n, self.data_dir)

    def fewshot(self) -> list[dict[str, Any]]:
        """The preset's worked examples."""
        return load_fewshot(self.suite, self.preset, data_dir=self.data_dir)

    def requests(self) -> int:
        """Prompts to generate: one an item, one a turn, or one a sample."""
        return sum(len(item.doc.get("turns", (0,))) for item in self.items()) * self.suite.preset(self.preset).samples


@cache
def _items(name: str, preset: str, n: int | None, data_dir: Path | None) -> list[Item]:
    return load_items(load_suite(name), preset, n=n, data_dir=data_dir)


def plan_suites(study: Study, data_dir: Path | None) -> dict[str, SuitePlan]:
    """The study's suites as plans."""
    plans = {}
    for name, spec in study.suites.items():
        preset = load_suite(name).preset(spec.preset)
        settings = GenSettings(
            batch_size=study.engine.batch_size, temperature=preset.temperature, top_p=preset.top_p, seed=study.seed
        )
        plans[name] = SuitePlan(name, spec.preset, study.n_of(name), settings, data_dir)
    return plans


def engine_of_cells(study: Study, device: str) -> str:
    """What cells call the study's engine: its name, `auto` resolved for this machine, and its dtype or API."""
    if isinstance(study.engine, OpenAISpec):
        return f"openai/{study.engine.api}"
    return f"{resolve_engine(study.engine.name, device=device)}/{study.engine.dtype}"


@dataclass(frozen=True)
class Cell:
    """One variant on one suite; `served` stands for the fingerprint of a model behind an endpoint."""

    variant: str
    plan: SuitePlan
    engine: str
    layout: Layout
    served: Mapping[str, str | None] | None = None

    def key(self) -> dict[str, Any]:
        """All that the cell's rows depend on."""
        return cell_key(
            self.plan.suite,
            self.plan.items(),
            preset=self.plan.preset,
            settings=self.plan.settings,
            engine=self.engine,
            model=self.served or model_fingerprint(self.layout.variant(self.variant)),
            fewshot=self.plan.fewshot(),
        )

    @property
    def name(self) -> str:
        """How progress and messages call it."""
        return f"{self.variant} x {self.plan.name}"


@dataclass(frozen=True)
class CellState:
    """What is known of a cell that was run.

    Attributes:
        key: The key it was run under.
        refused: Why it has no score, or None.
        events: Fall-backs and oddities.
        seconds: Generation and scoring, in the session that finished it.
        failed: Items whose requests failed after all tries.
    """

    key: Mapping[str, Any]
    refused: str | None = None
    events: Sequence[Mapping[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    failed: int = 0


def read_state(cell: Cell) -> CellState | None:
    """The state of a finished cell; None where it has to be run (again).

    A cell refused for want of a sandbox is run again, because the sandbox may be there by now, and so is one with
    requests that failed, which the endpoint may answer by now.
    """
    path = cell.layout.cell(cell.variant, cell.plan.name)
    if not path.is_file() or not cell.layout.samples(cell.variant, cell.plan.name).is_file():
        return None
    state = CellState(**read_json(path))
    again = state.failed or (state.refused is not None and state.refused.startswith(NO_SANDBOX))
    return state if state.key == jsonable(cell.key()) and not again else None


def jsonable(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key as it reads back from JSON, where tuples are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in key.items()}


NO_SANDBOX = "no sandbox"


def run_cell(cell: Cell, engine: Engine | TextEngine, *, sandbox_refusal: str | None, progress: Progress) -> CellState:
    """Generate what the cell's journal lacks, score all rows, and write samples and state.

    Args:
        cell: The cell.
        engine: Executes its variant.
        sandbox_refusal: Why no sandbox is available, or None.
        progress: Told of finished prompts.
    """
    import time

    began = time.monotonic()
    plan, key = cell.plan, cell.key()
    items = plan.items()
    with Journal(cell.layout.journal(cell.variant, plan.name), key) as journal:
        rows = evaluate_suite(
            engine,
            plan.suite,
            items,
            preset=plan.preset,
            journal=journal,
            settings=plan.settings,
            progress=progress,
            fewshot=plan.fewshot(),
        )
    scores, refused, signs = _score(cell, items, rows, sandbox_refusal)
    samples = [_sample(cell, item, row, found) for item, row, found in zip(items, rows, scores, strict=True)]
    write_samples(samples, cell.layout.samples(cell.variant, plan.name))
    events = [*_events(plan), *getattr(engine, "events", ()), *signs]
    failed = sum(row.status == "error" for row in rows)
    state = CellState(jsonable(key), refused, events, round(time.monotonic() - began, 2), failed)
    write_json_atomic(cell.layout.cell(cell.variant, plan.name), vars(state))
    return state


def _score(
    cell: Cell, items: Sequence[Item], rows: Sequence[GenRow], sandbox_refusal: str | None
) -> tuple[list[Scores], str | None, list[dict[str, str]]]:
    """The scores of rows, why the cell has none, and what its programs did that none should do."""
    nothing: list[Scores] = [{} for _ in items]
    plan = cell.plan
    if plan.name == "code":
        if sandbox_refusal is not None:
            return nothing, f"{NO_SANDBOX}: {sandbox_refusal}", []
        scores, signs = _score_code(cell, items, rows)
        return scores, None, signs
    module = scorer(plan.name, plan.preset)
    reasons = [module.scorable(item.doc) for item in items] if hasattr(module, "scorable") else []
    refused = next((reason for reason in reasons if reason), None)
    return score_rows(plan.suite, items, rows, preset=plan.preset), refused, []


def _score_code(cell: Cell, items: Sequence[Item], rows: Sequence[GenRow]) -> tuple[list[Scores], list[dict[str, str]]]:
    from harness.evaluate.code import CodeSample, limited, pass_rates, score_completions, suspicious
    from harness.evaluate.sandbox import open_sandbox
    from harness.evaluate.verdicts import KnownVerdicts

    answered = [index for index, row in enumerate(rows) if row.status in ("ok", "truncated_output")]
    preset = cell.plan.suite.preset(cell.plan.preset)
    sandbox = limited(open_sandbox(workers=1), preset)
    samples = [CodeSample(items[i].item_id, items[i].doc, output) for i in answered for output in rows[i].outputs]
    known = KnownVerdicts(cell.layout.verdicts, f"{cell.variant}.{cell.plan.name}")
    extract = scorer("code", cell.plan.preset).extract
    results = score_completions(samples, sandbox=sandbox, known=known, extract=extract)
    passed: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        passed[result.item_id].append(result.passed)
    # What could not be asked failed as often as it should have been asked.
    scores: list[Scores] = [dict(pass_rates(passed.get(item.item_id, [False] * preset.samples))) for item in items]
    told = suspicious(results)
    return scores, [{"kind": "suspicious_programs", "where": cell.plan.name, "detail": told}] if told else []


def _events(plan: SuitePlan) -> list[dict[str, str]]:
    events = list(data_events(plan.suite, plan.preset, plan.data_dir))
    differing = deviations(plan.suite, plan.preset)
    return events + [{"kind": "scoring_deviation", "where": plan.name, "detail": detail} for detail in differing]


def _sample(cell: Cell, item: Item, row: GenRow, scores: Scores) -> SampleRow:
    return SampleRow(
        variant=cell.variant,
        engine=cell.engine,
        suite=cell.plan.name,
        suite_hash=suite_hash(cell.plan.suite, cell.plan.preset),
        preset=cell.plan.preset,
        seed=cell.plan.settings.seed,
        item_id=item.item_id,
        item_hash=item.item_hash,
        template=item.template,
        difficulty=item.difficulty,
        unseen=item.unseen,
        cluster=item.cluster,
        prompt_hash=row.prompt_hash,
        outputs=row.outputs,
        n_in=row.n_in,
        n_out=row.n_out,
        finish=row.finish,
        status=row.status,
        error=row.error,
        scores=scores,
    )
