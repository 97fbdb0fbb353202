"""What `run --dry-run` shows: stages, cells and panels, what is there already, and a rough time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cells import SuitePlan, plan_suites
from harness.distance.in_study import distance_plan
from harness.gate.margins import PlannedSuite, planning_warnings
from harness.layout import Layout
from harness.models import fetched_directory
from harness.study import Study
from sparsify.recipe import load_recipe

if TYPE_CHECKING:
    from harness.run import RunOptions

# Rough rates of one CPU core, measured with the pocket model; they make an estimate, never a record.
_GENERATE_FLOPS = 1.5e10
_ANSWER_TOKENS = 0.4


def plan_text(study: Study, out: Path, options: RunOptions) -> str:
    """The plan of a run as text; nothing is made, written or fetched except the data of its suites."""
    from sparsify.plan import Machine, plan_stages

    layout = Layout(out)
    plans = plan_suites(study, options.data_dir)
    lines = [
        f"study {study.name}, {len(study.variants)} variants, {len(plans)} suites, {len(study.speed)} speed panels"
    ]
    making = generation = 0.0
    seen: set[tuple[Path, str]] = set()
    requests = {name: plan.requests() for name, plan in plans.items()}
    for name, spec in study.variants.items():
        if spec.endpoint is not None:
            baseline = study.baseline_of(name) or "reference"
            lines.append(f"  {name:26} {'served':8} model {spec.endpoint.model}  (baseline: {baseline})")
            continue
        where = spec.path or study.models[str(spec.source)].path
        recipe = load_recipe(spec.recipe)
        revision = study.models[spec.source].revision if spec.source else None
        stages = " > ".join(stage.kind for stage in recipe.stages) or "as it is"
        baseline = study.baseline_of(name) or "reference"
        directory = fetched_directory(where, revision=revision)
        if directory is None:
            lines.append(f"  {name:26} {'to fetch':8} {stages}  (baseline: {baseline}; {where} is not in the cache)")
            continue
        size = _parameters(directory)
        for suite, plan in plans.items():
            limit = plan.suite.preset(plan.preset).max_new_tokens
            generation += 2.0 * size * requests[suite] * limit * _ANSWER_TOKENS
        made = (layout.variant(name) / "variant.json").is_file()
        there = "there" if made else "to make"
        lines.append(f"  {name:26} {there:8} {stages}  (baseline: {baseline})")
        if recipe.stages and not made:
            # A variant is made by one process with one thread, next to the others.
            for index, stage in enumerate(plan_stages(directory, recipe, Machine())):
                beginning = (directory, repr(recipe.stages[: index + 1]))
                if beginning not in seen:  # recipes that begin alike share the work
                    seen.add(beginning)
                    making += stage.seconds
                    lines += [f"    {stage.kind}:", *(f"    {line}" for line in stage.lines)]
    lines.append("cells (of each variant):")
    for suite, plan in plans.items():
        done = sum(layout.cell(name, suite).is_file() for name in study.variants)
        lines.append(
            f"  {suite:14} preset {plan.preset:8} {requests[suite]:6} requests, {done} of {len(study.variants)} done"
        )
    for panel in study.speed:
        engines = ", ".join((panel.engine, *panel.engines))
        sizes = f"context {panel.context}, batch {panel.batch}, {panel.budget_s:.0f} s"
        lines.append(f"speed: {panel.workload} on {engines}, {sizes}")
    distance = distance_plan(study, layout, options)
    if distance is not None:
        pairs = sum(study.baseline_of(name) not in (None, name) for name in study.variants)
        lines.append(f"distance to baselines: {pairs} of the variants, on {', '.join(distance.texts.names)}")
    lines += planning_warnings(study.gates, {name: _planned(plan) for name, plan in plans.items()})
    total = len(study.variants) * sum(requests.values())
    seconds = (making + generation / _GENERATE_FLOPS) / options.workers
    seconds += sum(panel.budget_s for panel in study.speed)
    lines.append(f"{total} requests in all; roughly {max(1, round(seconds / 60))} min on {options.workers} CPU workers")
    return "\n".join(lines) + "\n"


def _planned(plan: SuitePlan) -> PlannedSuite:
    items = plan.items()
    return PlannedSuite(plan.preset, len(items), plan.suite.margin, [item.cluster for item in items])


def _parameters(directory: Path) -> int:
    """Number of stored weights, read from the safetensors headers."""
    import math
    import struct

    total = 0
    for path in directory.glob("*.safetensors"):
        with path.open("rb") as stream:
            header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
        total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total
