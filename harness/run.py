"""The main job: a study's plan to variants, skill cells, speed panels, records and tables.

Every phase does only what is missing, so that a run killed at any moment continues when it is started again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cells import Cell, engine_of_cells, plan_suites, read_state
from harness.corpus import resolve_corpus
from harness.distance.in_study import check_texts, distance_tasks
from harness.engine_specs import vllm_options
from harness.engines import why_not
from harness.errors import ConfigError, EngineError, SandboxUnavailable
from harness.evaluate.served import endpoint_of, served_fingerprint
from harness.layout import Layout, read_json
from harness.making import Release, effort, longest_first, make_together, share_nothing
from harness.models import model_directory, public_name
from harness.perplexity_study import check_text, measure_missing
from harness.pool import Pool, Task, TaskPool
from harness.progress import Part, Phase
from harness.ray_nodes import RayPlace
from harness.ray_pool import LOCAL, RayPool
from harness.records import Summary, write_json_atomic
from harness.scale import recipe_of
from harness.study import Study
from harness.tasks import EvaluateTask, MakeTask, split_last
from sparsify.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from harness.engines.openai import EndpointOptions


@dataclass(frozen=True)
class RunOptions:
    """What a user may say beside the study.

    Attributes:
        data_dir: Folder of original data files, for presets on real data.
        jobs: Worker processes; 0 takes one per core, at most 4.
        device: `cpu` or `cuda`.
        offline: Never use the network.
        quiet: No progress.
        ray: Where skill cells run: None for this machine, `local` for a Ray cluster of its own, or the address of one.
        release: Under torchrun, of `harness.making.crew_of`: variants are made together with other processes.
    """

    data_dir: Path | None = None
    jobs: int = 0
    device: str = "cpu"
    offline: bool = False
    quiet: bool = False
    ray: str | None = None
    release: Release | None = None

    @property
    def workers(self) -> int:
        """Worker processes at a time."""
        return self.jobs or (1 if self.device != "cpu" else min(4, cores()))

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        return max(1, cores() // self.workers)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class RunResult:
    """What a run came to.

    Attributes:
        summary: The summary, as it is on disk.
        timings: Seconds by phase, over all sessions of the run.
        did: Whether anything was missing and done.
    """

    summary: Summary
    timings: dict[str, float] = field(default_factory=dict)
    did: bool = False


def run_study(study: Study, out: Path, options: RunOptions) -> RunResult:
    """Run a study into a folder, or finish what an earlier run left there.

    Raises:
        SparsebenchError, SparsifyError, SuiteError: With one line that names the fix, and an exit code.
    """
    # Tasks may run in another folder, or on another machine that shares this one's folders.
    layout = Layout(out if options.ray is None else out.resolve())
    # Data, recipes and models are checked before anything is written.
    plans = plan_suites(study, options.data_dir)
    for plan in plans.values():
        plan.items()
        plan.fewshot()
    check_texts(study, layout, options)
    check_text(study, options)
    if study.suites and (why := why_not(study.engine.name, device=options.device)):
        raise EngineError(why)
    sources = _sources(study, options)
    endpoints = {name: found for name in study.variants if (found := endpoint_of(study, name, offline=options.offline))}
    with layout.claimed(study):
        run = _Run(study, layout, options, sources, endpoints)
        run.make()
        with run.cell_pool:
            run.evaluate()
            run.measure_distance()
        run.measure_perplexity()
        run.measure_speed()
        return run.report()


@dataclass(frozen=True)
class _Source:
    """Where a variant comes from."""

    directory: Path
    public: str
    recipe: Recipe
    teacher: Path | None = None


def _sources(study: Study, options: RunOptions) -> dict[str, _Source]:
    sources = {}
    for name, spec in study.variants.items():
        if spec.endpoint is not None:
            continue
        if spec.path is not None:
            where, revision, recipe = spec.path, None, load_recipe("dense")
        else:
            assert spec.source is not None
            model = study.models[spec.source]
            where, revision, recipe = model.path, model.revision, recipe_of(study, name)
        directory = model_directory(where, revision=revision, offline=options.offline)
        sources[name] = _Source(
            directory, public_name(where, directory), recipe, _teacher(study, name, recipe, options)
        )
    return sources


def _teacher(study: Study, name: str, recipe: Recipe, options: RunOptions) -> Path | None:
    if not recipe.needs_teacher:
        return None
    given = study.variants[name].teacher
    if given is None:
        raise ConfigError(f"variant {name}: recipe {recipe.name} learns from a given teacher; add `teacher: MODEL`")
    model = study.models[given]
    return model_directory(model.path, revision=model.revision, offline=options.offline)


class _Run:
    def __init__(
        self,
        study: Study,
        layout: Layout,
        options: RunOptions,
        sources: Mapping[str, _Source],
        endpoints: Mapping[str, EndpointOptions],
    ) -> None:
        self.study, self.layout, self.options, self.sources, self.endpoints = study, layout, options, sources, endpoints
        self.engine = engine_of_cells(study, options.device)
        self.timings: dict[str, float] = read_json(layout.timings) if layout.timings.is_file() else {}
        self.did = False
        # One process keeps an endpoint's pace, and vLLM takes the whole GPU.
        alone = study.engine.name in ("openai", "vllm")
        self.workers = 1 if alone else options.workers
        log = layout.root / "errors.log"
        self.pool = Pool(self.workers, log)
        self.cell_pool: TaskPool = self.pool
        if options.ray is not None:
            place = RayPlace(
                options.ray,
                layout.root,
                options.threads,
                jobs=self.workers if alone or options.ray == LOCAL else options.jobs or None,
                device=options.device,
                data_dir=options.data_dir,
            )
            self.cell_pool = RayPool(place, log)

    def _spent(self, phase: str, began: float) -> None:
        self.timings[phase] = round(self.timings.get(phase, 0.0) + time.monotonic() - began, 2)
        write_json_atomic(self.layout.timings, self.timings)

    def make(self) -> None:
        """Make the variants that are missing."""
        from sparsify.checkpoint import model_fingerprint
        from sparsify.corpus import sha256_file
        from sparsify.run import key_of
        from sparsify.store import Store

        began, store = time.monotonic(), Store(self.layout.store)
        tasks: list[MakeTask] = []
        fingerprint = cache(model_fingerprint)
        for name, source in self.sources.items():
            corpora = {
                c: resolve_corpus(c, self.layout.corpora, data_dir=self.options.data_dir) for c in source.recipe.sources
            }
            sha = fingerprint(source.directory)
            teacher = fingerprint(source.teacher) if source.teacher is not None else None
            keys = key_of(sha, source.recipe, {c: sha256_file(path) for c, path in corpora.items()}, teacher)
            if self._made(name, source, sha, keys):
                continue
            missing = tuple(key for key in keys if store.find(key) is None)
            tasks.append(self._make_task(name, source, corpora, missing))
        if self.options.release is not None:
            log = self.layout.root / "errors.log"
            make_together(tasks, self.options.release, log, threads=cores(), quiet=self.options.quiet)
        elif tasks:
            weights = {task.name: effort(task) for task in tasks}
            self._work("making", longest_first(tasks), ready=share_nothing, weights=weights)
        if tasks:
            self.did = True
            self._spent("make", began)

    def _made(self, name: str, source: _Source, sha: str, keys: tuple[str, ...]) -> bool:
        from sparsify.checkpoint import open_checkpoint
        from sparsify.variant import VARIANT, read_variant

        directory = self.layout.variant(name)
        if not (directory / VARIANT).is_file():
            return False
        info = read_variant(directory)
        weights = open_checkpoint(directory).weights_sha256
        made = tuple(stage["key"] for stage in info.stages) == keys and info.weights_sha256 == weights
        return made and info.baseline == self.study.baseline_of(name) and (bool(keys) or weights == sha or not keys)

    def _make_task(self, name: str, source: _Source, corpora: dict[str, Path], missing: tuple[str, ...]) -> MakeTask:
        return MakeTask(
            variant=name,
            recipe=source.recipe,
            model_dir=source.directory,
            base=source.public,
            baseline=self.study.baseline_of(name),
            out_dir=self.layout.variant(name),
            store=self.layout.store,
            corpora=corpora,
            keys=missing,
            threads=self.options.threads,
            device=self.options.device,
            teacher_dir=source.teacher,
        )

    def _work(
        self,
        title: str,
        tasks: Sequence[Task],
        ready: Any = None,
        pool: TaskPool | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        weights = weights or {task.name: 1.0 for task in tasks}
        done, total = dict.fromkeys(weights, 0.0), sum(weights.values())
        with Phase(title, total, quiet=self.options.quiet) as phase:
            for message in (pool or self.pool).run(list(tasks), ready=ready):
                name, kind = message.task.name, message.kind
                if kind in ("progress", "done"):
                    fraction, note = message.value if kind == "progress" else (1.0, "")
                    done[name] = weights[name] * min(1.0, fraction)
                    phase.update(sum(done.values()), total, f"{name}: {note}" if note else name)
                if kind == "cell":
                    refused = f"  refused: {message.value['refused']}" if message.value["refused"] else ""
                    phase.say(f"  {message.value['cell']}: {message.value['seconds']:.1f} s{refused}")
                elif kind == "retry":
                    phase.say(f"{name}: {message.value}")
                elif kind == "done":
                    phase.say(f"{name}: done")

    def evaluate(self) -> None:
        """Run the skill cells that are missing."""
        began = time.monotonic()
        cells = [cell for cell in self.cells() if read_state(cell) is None]
        if not cells:
            return
        self.did = True
        refusal = self._sandbox_refusal() if any(cell.plan.name == "code" for cell in cells) else None
        tasks: list[EvaluateTask] = []
        for name in self.study.variants:
            own = tuple(cell for cell in cells if cell.variant == name)
            if own:
                tasks.append(
                    EvaluateTask(
                        variant=name,
                        directory=self.layout.variant(name),
                        cells=own,
                        dtype=getattr(self.study.engine, "dtype", ""),
                        threads=self.options.threads,
                        device=self.options.device,
                        sandbox_refusal=refusal,
                        endpoint=self.endpoints.get(name),
                        options=vllm_options(self.study.engine),
                    )
                )
        self._work("evaluating", split_last(tasks, self.cell_pool.jobs), pool=self.cell_pool)
        self._spent("evaluate", began)

    def measure_distance(self) -> None:
        """Measure the distances to baselines that are missing."""
        began = time.monotonic()
        for title, tasks in distance_tasks(self.study, self.layout, self.options):
            if tasks:
                self.did = True
                self._work(title, tasks, pool=self.cell_pool)
                self._spent("distance", began)
                began = time.monotonic()

    def measure_perplexity(self) -> None:
        """Measure the perplexities that are missing."""
        began = time.monotonic()
        if measure_missing(self.study, self.layout, self.options):
            self.did = True
            self._spent("perplexity", began)

    def cells(self) -> list[Cell]:
        """All skill cells of the study."""
        plans = plan_suites(self.study, self.options.data_dir)
        served = {name: served_fingerprint(self.study, name) for name in self.study.variants}
        return [
            Cell(name, plan, self.engine, self.layout, served[name])
            for name in self.study.variants
            for plan in plans.values()
        ]

    def _sandbox_refusal(self) -> str | None:
        """Open the sandbox and try it on hostile programs; why there is none, or None."""
        from harness.evaluate.sandbox import open_sandbox, preflight

        try:
            report = preflight(open_sandbox())
        except SandboxUnavailable as error:
            return str(error)
        record = {"sandbox": vars(report.sandbox), "statuses": dict(report.statuses)}
        write_json_atomic(self.layout.root / "records" / "sandbox.json", record)
        return None

    def measure_speed(self) -> None:
        """Run the speed panels that are missing; each one is whole or not there."""
        from harness.bench.panel import PanelRunner, read_panel
        from harness.speed import panel_plan

        began = time.monotonic()
        wanted = panel_plan(self.study, self.layout, self.options.device)
        out = self.layout.speed
        missing = [panel for panel in wanted if not read_panel(panel.spec, panel.paths, options=panel.options, out=out)]
        if not missing:
            return
        self.did = True
        with PanelRunner() as runner, Phase("speed", len(missing), quiet=self.options.quiet) as phase:
            for index, panel in enumerate(missing):
                progress = Part(phase, index, len(missing), panel.spec.panel)
                rows = runner.run(panel.spec, panel.paths, options=panel.options, out=out, progress=progress)
                absent = {engine: why_not(engine, device=panel.spec.device) for engine in panel.spec.engines}
                for reason in filter(None, absent.values()):
                    phase.say(f"speed panel {panel.spec.panel}: {reason}")
                unsettled = any(row.verdict == "not decided" for row in rows)
                phase.say(f"speed panel {panel.spec.panel}: {'not decided, see its record' if unsettled else 'done'}")
        self._spent("speed", began)

    def report(self) -> RunResult:
        """Derive the summary and the tables from the records."""
        from harness.report.files import write_reports
        from harness.report.linears import write_linears
        from harness.results import collect

        began = time.monotonic()
        if self.did or not self.layout.summary.is_file() or not _told_as_published(self.study, self.layout):
            summary, samples = collect(self.study, self.layout, self.options)
            write_reports(summary, samples, self.layout.root, self.options.data_dir)
            write_linears({name: self.layout.variant(name) for name in self.study.variants}, self.layout.root)
            self._spent("report", began)
            self.did = True
        else:
            from harness.records import read_summary

            summary = read_summary(self.layout.summary)
        return RunResult(summary, self.timings, self.did)


def _told_as_published(study: Study, layout: Layout) -> bool:
    """Whether the summary holds what the study says is published, which the study's hash does not tell."""
    from harness.records import read_summary
    from harness.report.published import published_rows

    summary = read_summary(layout.summary)
    return summary.published == published_rows(study.expected, summary, scaled=study.scale is not None)
