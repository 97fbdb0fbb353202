"""What a recipe will take before it is carried out: memory, disk and time, from the shapes of the model alone.

Memory follows from counting what lives at the same time; seconds are a rough estimate from the stated rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sparsify.activations import MEMORY_BYTES
from sparsify.blocks import Structure, chosen_linears, find_structure, linear_weight, load_skeleton
from sparsify.calibration import BATCH_TOKENS
from sparsify.checkpoint import open_checkpoint
from sparsify.recipe import FinetuneStage, PretrainStage, PruneStage, Recipe
from sparsify.slicegpt.plan import plan_slice
from sparsify.train.plan import TrainPlan, plan_training
from sparsify.train.settings import TrainSettings

# Float32 operations a second: of one CPU thread, and of a data-centre GPU without TF32. They make an estimate, never a
# record.
RATES = {"cpu": 4e10, "cuda": 3e13}
# The same in bfloat16, as training under autocast computes: half of the 312e12 that an A100's data sheet promises. No
# gain is counted on for a processor.
HALF_RATES = {"cpu": 4e10, "cuda": 1.5e14}
# Values that are compared or sorted a second, per CPU thread and on a GPU.
_SORTS = {"cpu": 2e7, "cuda": 2e9}
_ADMM_LEVELS, _ADMM_STEPS, _REFINE_STEPS = 10, 60, 24
_FLOAT = 4
# What libraries that are loaded during the work, and the allocator, take on the host.
_LIBRARIES = 60_000_000


@dataclass(frozen=True)
class Machine:
    """Where the work is to be done."""

    device: str = "cpu"
    threads: int = 1

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.split(":")[0]

    def scale(self, rates: dict[str, float]) -> float:
        """The rate of the whole machine."""
        return rates[self.kind] * (self.threads if self.kind == "cpu" else 1)

    def training_rate(self, settings: TrainSettings) -> float:
        """Operations a second of a training stage, by its precision."""
        return self.scale(HALF_RATES if settings.precision == "bf16" else RATES)


@dataclass(frozen=True)
class PrunePlan:
    """The expected costs of a prune stage.

    Attributes:
        blocks: How many blocks.
        parameters: Of the whole model.
        pruned: Weights of the linears that are pruned.
        tokens: Calibration tokens at most.
        device_bytes: Peak on the device; 0 on the CPU, where it is part of `host_bytes`.
        host_bytes: Peak of the process above its start.
        disk_bytes: Peak of what is written: journal, the stage's result, activations.
        seconds: Estimate.
        machine: What the estimate is for.
    """

    blocks: int
    parameters: int
    pruned: int
    tokens: int
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    seconds: float
    machine: Machine

    def lines(self, verb: str = "prune") -> list[str]:
        """The plan for people; `verb` is what is done to the linears."""
        rate = RATES[self.machine.kind]
        per = "a thread" if self.machine.kind == "cpu" else "in all"
        threads = "1 CPU thread" if self.machine.threads == 1 else f"{self.machine.threads} CPU threads"
        on = threads if self.machine.kind == "cpu" else self.machine.device
        device = f"device memory {_gb(self.device_bytes)}, " if self.device_bytes else ""
        return [
            f"  {self.blocks} blocks, {self.parameters:,} parameters, {self.pruned:,} of them in linears to {verb}",
            f"  at most {self.tokens:,} calibration tokens",
            f"  {device}host memory {_gb(self.host_bytes)} above the start, disk {_gb(self.disk_bytes)} while it works",
            f"  roughly {duration(self.seconds)} on {on} (taking {rate:.0e} float32 operations a second {per})",
        ]


@dataclass(frozen=True)
class StagePlan:
    """The expected costs of one stage of a recipe.

    Attributes:
        kind: Of the stage.
        lines: The costs for people.
        seconds: Estimate; 0 where it is less than anyone waits for.
        host_bytes: Peak of the process above its start, on the CPU; 0 where it is not estimated.
        memory_bytes: Peak where the work is done, on the device or the host; 0 where it is not estimated.
        disk_bytes: Peak of what is written; 0 where it is not estimated.
    """

    kind: str
    lines: tuple[str, ...]
    seconds: float
    host_bytes: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0


def plan_stages(model_dir: Path, recipe: Recipe, machine: Machine) -> list[StagePlan]:
    """The plan of every stage of a recipe for a model; nothing is read of the weights but their headers.

    Raises:
        SparsifyError: The model cannot be used.
    """
    stored = open_checkpoint(model_dir).bytes
    return plan_shapes(load_skeleton(model_dir), recipe, machine, stored=stored)


def plan_shapes(model: nn.Module, recipe: Recipe, machine: Machine, *, stored: int) -> list[StagePlan]:
    """The plan of every stage of a recipe for a model of which the shapes are known.

    Args:
        model: A skeleton is enough.
        recipe: The recipe.
        machine: Where it runs.
        stored: Bytes of the weight files.

    Raises:
        SparsifyError: The model cannot be used.
    """
    structure = find_structure(model)
    plans = []
    for stage in recipe.stages:
        seconds, host, memory, disk = 0.0, 0, 0, 0
        if stage.slice is not None:
            cut = plan_slice(model, structure, stage.slice, machine.scale(RATES), stored=stored)
            seconds, host, memory, disk = cut.seconds, _LIBRARIES + cut.bytes, cut.bytes, cut.disk_bytes
            where = "memory" if machine.kind == "cpu" else "device memory"
            took = f"{where} {_gb(host)} above the start, disk {_gb(cut.disk_bytes)} while it works"
            lines = [*cut.lines, f"  {took}; roughly {duration(seconds)}"]
        elif stage.prune is not None:
            plan = plan_prune(model, structure, stage.prune, machine, stored=stored)
            lines, seconds, host, disk = plan.lines(), plan.seconds, plan.host_bytes, plan.disk_bytes
            memory = plan.device_bytes or host
        elif stage.training is not None:
            work = plan_training(
                model,
                stage.training.settings,
                blocks=len(structure.blocks),
                width=max(1, _width(model, structure)),
                stored=stored,
            )
            seconds = work.operations / machine.training_rate(stage.training.settings)
            memory, disk = work.bytes, work.disk_bytes
            lines = _training_lines(stage.training, work, seconds)
        elif stage.quantize is not None and stage.quantize.calibration is not None:
            # GPTQ lives on what SparseGPT lives on: a block, its Gram matrices, a factor and a few copies of a weight.
            settings, skip = stage.quantize.calibration, stage.quantize.skip
            like = PruneStage(method="sparsegpt", sparsity=0.5, calibration=settings, skip=skip)
            plan = plan_prune(model, structure, like, machine, stored=stored)
            lines, seconds, host, disk = plan.lines("quantize"), plan.seconds, plan.host_bytes, plan.disk_bytes
            memory = plan.device_bytes or host
        else:
            largest = max(linear_weight(model, name).numel() for name in structure.all_linears)
            memory, disk = 4 * _FLOAT * largest, stored
            lines = [f"  one linear at a time: host memory about {_gb(memory)}, disk {_gb(disk)}"]
        plans.append(StagePlan(stage.kind, tuple(lines), seconds, host, memory, disk))
    return plans


def _training_lines(stage: PretrainStage | FinetuneStage, work: TrainPlan, seconds: float) -> list[str]:
    runs = "" if work.runs == 1 else f", {work.runs:.1f} runs to choose the learning rate"
    lines = [f"  {stage.tokens:,} tokens in about {work.steps:,} steps of {stage.batch_tokens:,}{runs}"]
    if isinstance(stage, PretrainStage):
        whole = sum(source.share for source in stage.mixture)
        shares = ", ".join(f"{100 * source.share / whole:.0f} % {source.source}" for source in stage.mixture)
        lines.append(f"  mixture: {shares}")
    memory = f"{_gb(work.bytes)} for weights, gradients, moments and activations"
    return [*lines, f"  {memory}, disk {_gb(work.disk_bytes)} while it works; roughly {duration(seconds)}"]


def plan_text(model_dir: Path, recipe: Recipe, machine: Machine) -> str:
    """The plan of a recipe for a model, as text.

    Raises:
        SparsifyError: The model cannot be used.
    """
    lines = [f"recipe {recipe.name}: {' > '.join(stage.kind for stage in recipe.stages) or 'a copy'}"]
    for plan in plan_stages(model_dir, recipe, machine):
        lines += [f"{plan.kind}:", *plan.lines]
    return "\n".join(lines) + "\n"


def plan_prune(
    model: nn.Module, structure: Structure, stage: PruneStage, machine: Machine, *, stored: int
) -> PrunePlan:
    """The costs of a prune stage.

    Args:
        model: A skeleton is enough.
        structure: Of the model.
        stage: The stage.
        machine: Where it runs.
        stored: Bytes of the weight files.
    """
    chosen = set(chosen_linears(structure.prunable, stage.skip)[0])
    blocks = [
        _Block(model.get_submodule(name), [tuple(linear_weight(model, n).shape) for n in linears if n in chosen])
        for name, linears in zip(structure.blocks, structure.linears, strict=True)
    ]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    settings = stage.calibration
    width = max(1, _width(model, structure))
    tokens = settings.samples * settings.seq if settings is not None else 0
    limit = stage.reconstruct.batch_tokens if stage.reconstruct is not None else BATCH_TOKENS
    batch = min(tokens, max(limit, settings.seq)) if settings is not None else 0
    # Reconstruction runs the dense model beside the pruned one.
    hidden = (2 if stage.reconstruct is not None else 1) * _FLOAT * tokens * width
    size = stored / max(1, parameters)
    working = max(block.working(stage, batch, width) for block in blocks)
    # On the host: one block as it is stored and as float32, with masks of a byte a weight, or the embedding.
    embedding = model.get_submodule(structure.embedding)
    outside = (_FLOAT + size) * sum(parameter.numel() for parameter in embedding.parameters()) if tokens else 0
    largest = max(block.parameters for block in blocks)
    solved = (size + 1) * max(block.pruned for block in blocks)
    kept = hidden if hidden <= MEMORY_BYTES else 2 * _FLOAT * batch * width
    on_host = machine.kind == "cpu"
    host = _LIBRARIES + kept + max(outside, solved + (working if on_host else (_FLOAT + size) * largest))
    disk = 2 * stored + parameters / 8 + (hidden if hidden > MEMORY_BYTES else 0)
    passes = 1 + _choosing(stage)
    operations = sum(block.operations(stage, tokens, settings.seq if settings else 0) for block in blocks)
    seconds = passes * operations / machine.scale(RATES) + sum(b.pruned for b in blocks) / machine.scale(_SORTS)
    return PrunePlan(
        blocks=len(blocks),
        parameters=parameters,
        pruned=sum(block.pruned for block in blocks),
        tokens=tokens,
        device_bytes=0 if on_host else int(working),
        host_bytes=int(host),
        disk_bytes=int(disk),
        seconds=seconds,
        machine=machine,
    )


class _Block:
    """Sizes of a block and of its linears, each (out, in)."""

    def __init__(self, block: nn.Module, linears: Sequence[tuple[int, ...]]) -> None:
        self.parameters = sum(parameter.numel() for parameter in block.parameters())
        self.linears = linears
        self.pruned = sum(out * columns for out, columns in linears)

    def working(self, stage: PruneStage, batch: int, width: int) -> float:
        """Peak bytes where the block runs: its weights and Gram matrices, and the larger of a pass and a solve."""
        if not self.linears:
            return _FLOAT * self.parameters
        grams = sum(columns**2 for columns in self._inputs()) if stage.calibration is not None else 0
        widest = max(max(shape) for shape in self.linears)
        # A pass: queries, keys, values and residuals, three tensors of the MLP's width, and a copy without padding.
        run = batch * (8 * width + 4 * widest) if batch else 0
        solve = max(self._solving(stage, out, columns) for out, columns in self.linears)
        train = 0.0
        if stage.reconstruct is not None:
            # Gradient, two moments and the best weights so far; and what a step keeps for its backward pass.
            train = 4 * self.pruned + 3 * run
        return _FLOAT * (self.parameters + max(grams + max(run, solve), train))

    def operations(self, stage: PruneStage, tokens: int, seq: int) -> float:
        """Float32 operations."""
        passes = 2 + (len(self._inputs()) if stage.order == "sequential" else 0)
        forward = passes * tokens * (2 * self.parameters + 4 * seq * max((c for _, c in self.linears), default=0))
        grams = 2 * tokens * sum(columns**2 for columns in self._inputs())
        total: float = forward + grams
        if stage.reconstruct is not None:
            # A step is a forward and a backward pass over the training share, and all of it is looked at once more.
            total += (3 * stage.reconstruct.epochs + 1) * tokens * 2 * self.parameters
        for out, columns in self.linears:
            if stage.method == "sparsegpt":
                total += 2 * columns**3 + 2 * out * columns**2
            elif stage.method == "admm":
                total += _ADMM_LEVELS * 2 * columns**3 + _ADMM_STEPS * 2 * out * columns**2
            if stage.refine:
                total += _REFINE_STEPS * 2 * out * columns**2
        return total

    def _inputs(self) -> list[int]:
        """Columns of each Gram matrix, taking linears of equal columns that follow each other to share one."""
        found: list[int] = []
        for index, (_, columns) in enumerate(self.linears):
            if not index or columns != self.linears[index - 1][1] or index == 3:
                found.append(columns)
        return found

    def _solving(self, stage: PruneStage, out: int, columns: int) -> float:
        matrix, weight = columns**2, out * columns
        if stage.method == "sparsegpt":
            return 5 * matrix + 6 * weight
        if stage.method == "admm":
            return 5 * matrix + 9 * weight
        return (matrix if stage.calibration is not None else 0) + 5 * weight


def _choosing(stage: PruneStage) -> float:
    """Further passes that the choice of budgets takes, in units of the stage's own."""
    if stage.allocation.kind == "owl":
        return 1
    return 5 * 0.5 if stage.allocation.kind == "slope" and stage.allocation.beta is None else 0


def _width(model: nn.Module, structure: Structure) -> int:
    weight = next(model.get_submodule(structure.embedding).parameters())
    return int(weight.shape[-1])


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def duration(seconds: float) -> str:
    """A rough time for people."""
    for unit, size in (("years", 365 * 86400.0), ("days", 86400.0)):
        if seconds >= 3 * size:
            return f"{seconds / size:,.0f} {unit}"
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{max(1, round(seconds / 60))} min" if seconds > 60 else "a minute or less"
