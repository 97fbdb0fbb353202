"""Reads back what the cells and panels of a run left, and sums it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.cells import Cell, engine_of_cells, plan_suites, read_state
from harness.distance.in_study import read_distance
from harness.engines import why_not
from harness.errors import CorruptRecordError
from harness.evaluate.served import served_fingerprint
from harness.fingerprint import environment
from harness.layout import Layout
from harness.perplexity_study import perplexity_rows
from harness.records import Environment, Event, SampleRow, SpeedRow, Summary, read_samples
from harness.report.inputs import StudyMeta, SuiteMeta, VariantInput
from harness.speed import panel_plan, speed_row
from harness.study import Study
from suites.registry import suite_hash

if TYPE_CHECKING:
    from harness.run import RunOptions

Rows = dict[tuple[str, str], list[SampleRow]]


def collect(study: Study, layout: Layout, options: RunOptions) -> tuple[Summary, Rows]:
    """The summary of a finished run, and the sample rows that it rests on.

    Raises:
        CorruptRecordError: A record is damaged or missing.
    """
    from dataclasses import replace

    from harness.report.published import published_rows
    from harness.report.summarize import summarize
    from sparsify.variant import read_variant

    plans = plan_suites(study, options.data_dir)
    engine = engine_of_cells(study, options.device)
    fallen_back = _fallen_back(study, options.device)
    samples: Rows = {}
    variants = []
    for name in study.variants:
        refused: dict[str, str] = {}
        events = list(fallen_back)
        for suite, plan in plans.items():
            state = read_state(Cell(name, plan, engine, layout, served_fingerprint(study, name)))
            if state is not None:
                events += [Event(**dict(event)) for event in state.events]
            if state is not None and state.refused:
                refused[suite] = state.refused
            elif layout.samples(name, suite).is_file():
                samples[name, suite] = read_samples(layout.samples(name, suite))
        endpoint = study.variants[name].endpoint
        info = {"base": endpoint.model} if endpoint else read_variant(layout.variant(name)).model_dump(mode="json")
        variant = VariantInput.from_variant_json(info, name=name, baseline=study.baseline_of(name), refused=refused)
        distance = read_distance(study, layout, name, options)
        variants.append(replace(variant, events=(*variant.events, *events), distance=distance))
    suites = {
        name: SuiteMeta(
            preset=plan.preset,
            suite_hash=suite_hash(plan.suite, plan.preset),
            metric=plan.suite.primary_metric,
            n_total=len(plan.items()),
            margin=plan.suite.margin,
        )
        for name, plan in plans.items()
    }
    found = environment()
    meta = StudyMeta(
        name=study.name,
        hash=study.hash,
        suites=suites,
        environment=Environment(
            python=found["python"],
            sparsebench=found["sparsebench"] or "unknown",
            platform=found["platform"],
            cpu_model=found["cpu"],
            cores=found["cores"],
            threads=options.threads,
            accelerator=None if options.device == "cpu" else options.device,
            torch=found["torch"],
            transformers=found["transformers"],
            lm_eval=found["lm_eval"],
        ),
        seed=study.seed,
    )
    summary = summarize(meta, variants, samples, _speed(study, layout, options.device))
    summary = summary.model_copy(update={"perplexity": perplexity_rows(study, layout, options)})
    rows = published_rows(study.expected, summary, scaled=study.scale is not None)
    return summary.model_copy(update={"published": rows}), samples


def _fallen_back(study: Study, device: str) -> list[Event]:
    """That engine sparse was wanted where it can run, and why it cannot."""
    why = why_not("sparse", device=device) if study.engine.name == "auto" and device == "cpu" else None
    return [Event(kind="engine", where="suites", detail=f"engine torch instead of sparse: {why}")] if why else []


def _speed(study: Study, layout: Layout, device: str) -> list[SpeedRow]:
    from harness.bench.panel import read_panel

    rows: list[SpeedRow] = []
    for panel in panel_plan(study, layout, device):
        found = read_panel(panel.spec, panel.paths, options=panel.options, out=layout.speed)
        if found is None:
            raise CorruptRecordError(f"the record of speed panel {panel.spec.panel} is missing; run the study again")
        rows += [speed_row(row) for row in found]
    return rows
