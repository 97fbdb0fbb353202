"""What `run --dry-run` shows: stages, cells and panels, what is there already, and a rough time.

Nothing is fetched: a model that is not here is planned from its recorded shape (`harness.recorded`), and test data of
the hub by its recorded size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cells import SuitePlan, plan_suites
from harness.distance.in_study import distance_plan
from harness.gate.margins import PlannedSuite, planning_warnings
from harness.layout import Layout
from harness.models import BUNDLED, fetched_directory
from harness.recorded import RecordedModel, recorded_items, recorded_model
from harness.scale import recipe_of
from harness.study import Study, VariantSpec
from sparsify.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from harness.run import RunOptions
    from sparsify.plan import Machine, StagePlan

# Rough rate of generation, of one CPU core measured with the pocket model, and of a data-centre GPU; they make an
# estimate, never a record.
_GENERATE_FLOPS = {"cpu": 1.5e10, "cuda": 2e12}
_ANSWER_TOKENS = 0.4
# Answers of likelihood suites are read, not generated: choices an item, and tokens of each with its context.
_READ_TOKENS = 300
# A model from which on a CPU is no place to make or run it.
_LARGE = 1_000_000_000


@dataclass
class _Time:
    """Seconds of making by kind of machine, counted once where recipes begin alike; operations of generation."""

    device: str
    making: dict[str, float] = field(default_factory=lambda: {"cpu": 0.0, "cuda": 0.0})
    generation: float = 0.0
    bytes: int = 0
    seen: set[tuple[str, str]] = field(default_factory=set)
    largest: int = 0


def plan_text(study: Study, out: Path, options: RunOptions) -> str:
    """The plan of a run as text; nothing is made, written or fetched."""
    from sparsify.plan import duration

    layout = Layout(out)
    plans = plan_suites(study, options.data_dir)
    lines = [
        f"study {study.name}, {len(study.variants)} variants, {len(plans)} suites, {len(study.speed)} speed panels"
    ]
    lines += _models(study)
    requests = {name: _requests(plan) for name, plan in plans.items()}
    answered = sum(_tokens(plan) * requests[name] for name, plan in plans.items())
    time = _Time(options.device)
    for name, spec in study.variants.items():
        lines += _variant(study, name, spec, layout, time)
        time.generation += 2.0 * time.largest * answered if spec.endpoint is None else 0.0
    lines.append("cells (of each variant):")
    for suite, plan in plans.items():
        done = sum(layout.cell(name, suite).is_file() for name in study.variants)
        size = "" if recorded_items(plan) is None else "; size from the record, the data was not asked for"
        count = f"{requests[suite]:6} requests, {done} of {len(study.variants)} done"
        lines.append(f"  {suite:14} preset {plan.preset:8} {count}{size}")
    lines += _others(study, layout, options)
    lines += planning_warnings(study.gates, {name: _planned(plan) for name, plan in plans.items()})
    total = len(study.variants) * sum(requests.values())
    generating = time.generation / _GENERATE_FLOPS[options.device]
    seconds = (time.making[options.device] + generating) / options.workers
    seconds += sum(panel.budget_s for panel in study.speed)
    lines.append(f"{total} requests in all; roughly {duration(seconds)} on {_workers(options)}")
    lines += _needs(time)
    return "\n".join(lines) + "\n"


def _variant(study: Study, name: str, spec: VariantSpec, layout: Layout, time: _Time) -> list[str]:
    """The lines of one variant; its size goes to `time.largest`, its stages to `time.making`."""
    from sparsify.plan import Machine

    baseline = study.baseline_of(name) or "reference"
    time.largest = 0
    if spec.endpoint is not None:
        return [f"  {name:26} {'served':8} model {spec.endpoint.model}  (baseline: {baseline})"]
    where = spec.path or study.models[str(spec.source)].path
    recipe = recipe_of(study, name) if spec.source else load_recipe("dense")
    stages = " > ".join(stage.kind for stage in recipe.stages) or "as it is"
    found = _shape(where, study.models[spec.source].revision if spec.source else None)
    if found is None:
        return [f"  {name:26} {'to fetch':8} {stages}  (baseline: {baseline}; {where} is not in the cache)"]
    time.largest = _parameters(found) if isinstance(found, Path) else found.parameters
    made = (layout.variant(name) / "variant.json").is_file()
    there = "there" if made else "to make" if recipe.stages or isinstance(found, Path) else "to fetch"
    lines = [f"  {name:26} {there:8} {stages}  (baseline: {baseline})"]
    if not recipe.stages or made:
        return lines
    # A variant is made by one process with one thread, next to the others.
    shown = _stages(found, recipe, Machine(time.device))
    other = "cuda" if time.device == "cpu" else "cpu"
    compared = _stages(found, recipe, Machine(other)) if time.largest >= _LARGE else shown
    for index, (stage, elsewhere) in enumerate(zip(shown, compared, strict=True)):
        beginning = (str(where), repr(recipe.stages[: index + 1]))
        if beginning not in time.seen:  # recipes that begin alike share the work
            time.seen.add(beginning)
            time.making[time.device] += stage.seconds
            time.making[other] += elsewhere.seconds
            time.bytes = max(time.bytes, stage.memory_bytes)
            lines += [f"    {stage.kind}:", *(f"    {line}" for line in stage.lines)]
    return lines


def _shape(where: str, revision: str | None) -> Path | RecordedModel | None:
    """A model's directory where it is here, else its recorded shape, else None."""
    directory = fetched_directory(where, revision=revision)
    return directory if directory is not None else recorded_model(where)


def _stages(found: Path | RecordedModel, recipe: Recipe, machine: Machine) -> list[StagePlan]:
    from sparsify.plan import plan_shapes, plan_stages

    if isinstance(found, Path):
        return plan_stages(found, recipe, machine)
    return plan_shapes(found.skeleton(), recipe, machine, stored=found.stored)


def _models(study: Study) -> Iterator[str]:
    """A line for each model of the hub."""
    for name, model in study.models.items():
        if model.path in BUNDLED or Path(model.path).expanduser().is_dir():
            continue
        commit = model.revision or model.path.partition("@")[2]
        pinned = f"commit {commit}" if commit else "not pinned: what its main branch is then, and the record names it"
        line = f"  model {name}: {model.path}, {pinned}"
        shape = _shape(model.path, model.revision)
        if isinstance(shape, RecordedModel):
            line += f"; {shape.parameters:,} parameters from its recorded shape, the hub was not asked"
        yield line
    yield from (f"  {told}" for told in unpinned(study) if told.startswith("data "))


def unpinned(study: Study) -> Iterator[str]:
    """A warning for each hub model and data set of the study that no commit fixes."""
    for name, model in study.models.items():
        here = model.path in BUNDLED or Path(model.path).expanduser().is_dir()
        if not here and model.revision is None and "@" not in model.path:
            yield (
                f"model {name} ({model.path}) is not pinned: another run may load other weights; add "
                f"`revision: COMMIT` (the records name the commit that is loaded)"
            )
    recipes = [recipe_of(study, name) for name, spec in study.variants.items() if spec.source is not None]
    for source in dict.fromkeys(source for recipe in recipes for source in _unpinned_data(recipe)):
        yield f"data {source} is not pinned: another run may read other text; add its commit in a copy of the recipe"


def _unpinned_data(recipe: Recipe) -> Iterator[str]:
    """Data sets of the hub that a recipe reads from no stated commit."""
    for stage in recipe.stages:
        streams = stage.pretrain.mixture if stage.pretrain is not None else ()
        yield from (each.source for each in streams if each.stream and each.revision is None and "@" not in each.source)
        yield from (source for source in stage.sources if source.startswith("hub:") and "@" not in source)


def _requests(plan: SuitePlan) -> int:
    count = recorded_items(plan)
    return plan.requests() if count is None else count * plan.suite.preset(plan.preset).samples


def _tokens(plan: SuitePlan) -> float:
    if plan.suite.kind == "choice":
        return _READ_TOKENS
    return plan.suite.preset(plan.preset).max_new_tokens * _ANSWER_TOKENS


def _others(study: Study, layout: Layout, options: RunOptions) -> Iterator[str]:
    for panel in study.speed:
        engines = ", ".join((panel.engine, *panel.engines))
        sizes = f"context {panel.context}, batch {panel.batch}, {panel.budget_s:.0f} s"
        yield f"speed: {panel.workload} on {engines}, {sizes}"
    distance = distance_plan(study, layout, options)
    if distance is not None:
        pairs = sum(study.baseline_of(name) not in (None, name) for name in study.variants)
        yield f"distance to baselines: {pairs} of the variants, on {', '.join(distance.texts.names)}"
    for spec in study.perplexity:
        windows = "all windows" if spec.windows is None else f"{spec.windows} windows"
        yield f"perplexity: {len(study.variants)} variants on {spec.text}, {windows} of {spec.context} tokens"
    if study.expected:
        doubtful = sum(not spec.verified for spec in study.expected)
        judged = "shown, not judged: of another model" if study.scale else "our interval is held against each"
        yield f"published values: {len(study.expected)}, {doubtful} of them unverified; {judged}"


def _planned(plan: SuitePlan) -> PlannedSuite:
    count = recorded_items(plan)
    clusters = [item.cluster for item in plan.items()] if count is None else [str(index) for index in range(count)]
    return PlannedSuite(plan.preset, len(clusters), plan.suite.margin, clusters)


def _needs(time: _Time) -> Iterator[str]:
    """What a GPU is needed for, where the models are too large for a CPU."""
    if time.making["cuda"] == 0.0 or time.making["cpu"] == time.making["cuda"]:
        return
    from sparsify.plan import duration

    yield (
        f"a GPU is needed for: making ({duration(time.making['cuda'])} on one data-centre GPU in float32 without TF32, "
        f"{duration(time.making['cpu'])} on a CPU thread; up to {time.bytes / 1e9:.0f} GB of memory at a time) and the "
        f"suites ({duration(time.generation / _GENERATE_FLOPS['cuda'])}); speed panels of engine sparse need a CPU"
    )
    yield (
        "  what one GPU's memory does not hold: start the same command with `torchrun --nproc-per-node GPUS "
        "--no-python`, which shares the stages that train"
    )


def _workers(options: RunOptions) -> str:
    if options.device != "cpu":
        return f"{options.workers} worker on {options.device}"
    return f"{options.workers} CPU workers"


def _parameters(directory: Path) -> int:
    """Number of stored weights, read from the safetensors headers."""
    import math
    import struct

    total = 0
    for path in directory.glob("*.safetensors"):
        with path.open("rb") as stream:
            header: Mapping[str, Mapping[str, list[int]]] = json.loads(
                stream.read(struct.unpack("<Q", stream.read(8))[0])
            )
        total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total
