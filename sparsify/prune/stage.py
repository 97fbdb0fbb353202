"""The prune stage: calibrate, solve and write one block after another, with one block in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparsify.blocks import Structure, chosen_linears, find_structure, linear_weight, load_skeleton, load_tokenizer
from sparsify.calibration import CalibrationRecord, TokenBatch, draw_sequences, make_batches
from sparsify.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.files import sha256_json
from sparsify.gram import Gram, full_precision
from sparsify.masks import broken_groups, count_violations, load_masks, save_masks
from sparsify.prune.allocate import Layer
from sparsify.prune.budgets import Budgets, Planner
from sparsify.prune.journal import BlockJournal
from sparsify.prune.problem import Note, Solution
from sparsify.prune.rebuild import Rebuilder
from sparsify.prune.solve import Inputs, cast, solve, stats_of
from sparsify.recipe import PruneStage
from sparsify.shards import torch_dtype
from sparsify.skeleton import StreamedWeights
from sparsify.stage import StageInput, StageResult, event
from sparsify.stream import BlockStream
from sparsify.usage import Meter, give_back

# A dense checkpoint has a few exact zeros by rounding; a linear with a larger share was pruned by somebody.
_PRUNED = 0.05


def run_prune(stage: PruneStage, given: StageInput) -> StageResult:
    """Prune the linears of every block of `given.parent` and write the result with its masks to `given.out`.

    The inputs of each block come from the blocks before it as already pruned. All linears of a block are solved from
    one pass, or with `order: sequential` each group of linears from a pass over what is pruned already. With
    `reconstruct`, what survived in a block is then trained against the dense block's outputs. Zeros of earlier stages
    (the parent's masks) stay zeros unless `keep_zeros` is off.

    Raises:
        SparsifyError: The model or the calibration text cannot be used.
        NumericsError: A solver met values that it cannot continue from.
    """
    run = _Run(stage, given)
    with full_precision():
        run.prepare()
        blocks = len(run.structure.blocks)
        for index in range(blocks):
            run.block(index)
            given.progress.update(index + 1, blocks, f"pruned block {index + 1} of {blocks}")
        if stage.include:
            run.head()
    return run.write()


@dataclass(frozen=True)
class _Target:
    """A linear that is to be pruned: its name, and its place within its block."""

    name: str
    inner: str

    @property
    def weight_name(self) -> str:
        """What files call its weight."""
        return f"{self.name}.weight"

    @property
    def expert(self) -> bool:
        """Whether it sees only the tokens that a router sends it."""
        return ".experts." in self.inner


@dataclass(frozen=True)
class _Solved:
    """A solved block: weights as they are stored and masks, by weight name, and what is recorded about them."""

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    entry: dict[str, Any]

    def record(self, journal: BlockJournal) -> None:
        """Append the block to the journal."""
        journal.append(self.weights, self.masks, self.entry)


class _Run:
    def __init__(self, stage: PruneStage, given: StageInput) -> None:
        self.meter = Meter(given.device)
        self.stage, self.given = stage, given
        self.source = open_checkpoint(given.parent)
        if self.source.is_quantized:
            raise SparsifyError(f"{given.parent} is quantized; prune the unquantized model")
        self.earlier = load_masks(given.parent)
        self.model = load_skeleton(given.parent)
        self.structure: Structure = find_structure(self.model)
        self.chosen, self.skipped = chosen_linears(self.structure.prunable, stage.skip)
        if stage.include:
            self.chosen = (*self.chosen, _head_of(self.structure))
        _check_stored(self.source, self.chosen)
        self.weights = StreamedWeights(self.model, self.source)
        # Sums run in another order on other hardware or with more threads: the last bits may differ.
        environment = {"torch": torch.__version__, "device": given.device, "threads": torch.get_num_threads()}
        self.journal = BlockJournal(given.work, _fingerprint(stage, given, self.source), environment)
        self.events: list[dict[str, str]] = []
        if self.journal.moved and self.journal.resumed:
            self.events.append(event("resumed_elsewhere", f"block {self.journal.resumed}", self.journal.moved))
        self.calibration: list[dict[str, Any]] = []
        self.sequences: list[tuple[int, ...]] = []
        self.stream: BlockStream | None = None
        self.rebuilder: Rebuilder | None = None
        self.budgets = Budgets(stage, {})

    def prepare(self) -> None:
        """Read the calibration text, decide on the budgets and run the text up to the first block."""
        settings = self.stage.calibration
        if settings is not None:
            corpus = self.given.corpora[settings.source]
            self.sequences = draw_sequences(corpus.path, load_tokenizer(self.given.parent), settings)
            if len(self.sequences) < settings.samples:
                detail = f"{len(self.sequences)} rows instead of {settings.samples}"
                self.events.append(event("calibration_short", settings.source, detail))
            record = CalibrationRecord(
                settings.source, corpus.sha256, len(self.sequences), settings.seq, settings.seed, settings.holdout
            )
            self.calibration.append(record.as_dict())
        layers = [
            Layer(name, self.source.tensors[f"{name}.weight"].numel, index)
            for index, names in enumerate(self.structure.linears)
            for name in names
            if name in self.chosen
        ]
        self.budgets = Planner(self.stage, self.given, self.structure, layers, self.open_stream).plan(self.sequences)
        if self.stage.reconstruct is not None:
            _refuse_experts(self.chosen)
            batches = make_batches(self.sequences, batch_tokens=self.stage.reconstruct.batch_tokens)
            self.stream = self.open_stream(batches)
            dense = self.open_stream(batches, "dense.bin")
            self.rebuilder = Rebuilder(self.stage.reconstruct, self.stream, dense)
        elif settings is not None:
            self.stream = self.open_stream(make_batches(self.sequences))

    def open_stream(self, batches: list[TokenBatch], spill: str = "activations.bin") -> BlockStream:
        """A stream of text through the dense model; large activations wait in the file `spill` of the work folder."""
        return BlockStream(
            self.model,
            self.structure,
            batches,
            device=self.given.device,
            weights=self.weights,
            spill=self.given.work / spill,
        )

    def block(self, index: int) -> None:
        """Prune block `index`, or take it from the journal, and move the stream past it."""
        name = self.structure.blocks[index]
        targets = [_Target(n, n.removeprefix(name + ".")) for n in self.structure.linears[index] if n in self.chosen]
        if self.rebuilder is not None:
            self.rebuilder.pass_dense(index)
        if index >= len(self.journal.entries):
            self._solve_block(index, targets)
        elif self.stream is not None:
            self.stream.load(index)
            for weight_name, stored in self.journal.block(index)[0].items():
                linear_weight(self.model, weight_name.removesuffix(".weight")).copy_(stored)
        if self.stream is not None:
            self.stream.advance(index)
        else:
            self.weights.free(name)
            give_back()

    def head(self) -> None:
        """Prune the output projection, or take it from the journal; it is like a last block of one linear."""
        name = _head_of(self.structure)
        if len(self.journal.entries) > len(self.structure.blocks):
            return
        inputs = None
        if self.stream is not None:
            inputs = Inputs.of(self.stream.head_gram(name), name, self.stage, expert=False)
        self.weights.load(name)
        target = _Target(name, name)
        self._solve_targets([target], [(target, inputs)]).record(self.journal)
        self.weights.free(name)

    def _solve_block(self, index: int, targets: list[_Target]) -> None:
        if self.stream is None:
            self.weights.load(self.structure.blocks[index])
        solved = self._solve_targets(targets, self._in_order(index, targets))
        if self.rebuilder is not None and targets:
            self._rebuild(index, targets, solved)
        solved.record(self.journal)

    def _rebuild(self, index: int, targets: list[_Target], solved: _Solved) -> None:
        """Train the block's survivors, and take what was learned in place of what the solver found."""
        assert self.rebuilder is not None
        masks = {f"{target.inner}.weight": solved.masks[target.weight_name] for target in targets}
        record, notes = self.rebuilder.train(index, masks)
        for target in targets:
            weight, mask = linear_weight(self.model, target.name), solved.masks[target.weight_name]
            stored = weight.detach().cpu().to(self._dtype(target)).masked_fill(~mask, 0.0)
            weight.data.copy_(stored)
            solved.weights[target.weight_name] = stored
        block = self.structure.blocks[index]
        solved.entry["events"] += [event(note.kind, block, note.detail) for note in notes]
        solved.entry["reconstruction"] = {block: {**record, "seconds": self.meter.lap().seconds}}

    def _solve_targets(self, targets: list[_Target], work: Iterable[tuple[_Target, Inputs | None]]) -> _Solved:
        self.meter.lap()
        weights: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        linears: dict[str, Mapping[str, float]] = {}
        events: dict[str, list[dict[str, str]]] = {}
        for target, inputs in work:
            solution = self._solve(target, inputs)
            stored, masks[target.weight_name] = cast(solution, self._dtype(target))
            linear_weight(self.model, target.name).copy_(stored)
            weights[target.weight_name] = stored
            events[target.name] = [event(note.kind, target.name, note.detail) for note in solution.notes]
            used = self.meter.lap()
            peak = {"host_bytes": float(used.host_bytes), "device_bytes": float(used.device_bytes)}
            linears[target.name] = {**stats_of(solution), "seconds": used.seconds, **peak}
        entry = {
            "linears": {target.name: linears[target.name] for target in targets},
            "events": [found for target in targets for found in events[target.name]],
        }
        return _Solved(weights, masks, entry)

    def _in_order(self, index: int, targets: list[_Target]) -> Iterator[tuple[_Target, Inputs | None]]:
        """The targets of a block in the order in which they are solved, each with what is known of its inputs."""
        if self.stream is None or not targets:
            yield from ((target, None) for target in targets)
            return
        if self.stage.order == "block":
            yield from self._with_inputs(targets, self.stream.grams(index))
            return
        for names in self.stream.groups(index):
            group = [target for target in targets if target.inner in names]
            if group:
                yield from self._with_inputs(group, self.stream.grams(index, [target.inner for target in group]))

    def _with_inputs(self, targets: list[_Target], grams: dict[str, Gram]) -> Iterator[tuple[_Target, Inputs | None]]:
        # Those that share their inputs follow each other, so that only one Hessian is kept at a time.
        left = list(targets)
        while left:
            gram = grams.get(left[0].inner, Gram())
            sharing = [t for t in left if grams.get(t.inner) is gram] or left[:1]
            inputs = Inputs.of(gram, sharing[0].name, self.stage, expert=sharing[0].expert)
            for target in sharing:
                yield target, inputs
            left = [t for t in left if t not in sharing]

    def _solve(self, target: _Target, inputs: Inputs | None) -> Solution:
        weight = linear_weight(self.model, target.name).to(self.given.device, torch.float32)
        keep, notes = self._keep(target, weight)
        try:
            solution = solve(self.stage, weight, inputs, self.budgets.of(target.name), keep)
        except (NumericsError, SparsifyError) as error:
            raise type(error)(f"{target.name}: {error}") from None
        return replace(solution, notes=(*notes, *solution.notes))

    def _keep(self, target: _Target, weight: Tensor) -> tuple[Tensor | None, tuple[Note, ...]]:
        """Where the weight was not pruned before, None if nowhere; and a note if that was guessed."""
        if not self.stage.keep_zeros:
            return None, ()
        if target.weight_name in self.earlier:
            return self.earlier[target.weight_name].to(weight.device), ()
        share = float((weight == 0).float().mean())
        if share < _PRUNED or self.earlier:
            return None, ()
        detail = f"{100 * share:.1f} % zeros without a mask were taken for pruned; `keep_zeros: false` frees them"
        return weight != 0, (Note("zeros_kept", detail),)

    def _dtype(self, target: _Target) -> torch.dtype:
        return torch_dtype(self.source.tensors[target.weight_name].dtype)

    def write(self) -> StageResult:
        """Write the pruned checkpoint and its masks, and check both from disk."""
        weights = self.journal.weights()
        write_checkpoint(
            self.source,
            self.given.out,
            lambda name, tensor: {name: weights.get(name, tensor)},
        )
        save_masks(_Masks(self.earlier, self.journal.masks()), self.given.out)
        self._verify(open_checkpoint(self.given.out), load_masks(self.given.out))
        if self.stream is not None:
            self.stream.close()
        if self.rebuilder is not None:
            self.rebuilder.close()
        entries = self.journal.entries
        linears = {name: stats for entry in entries for name, stats in entry["linears"].items()}
        events = self.events + [found for entry in entries for found in entry["events"]]
        stats = {
            "linears": linears,
            "skipped": list(self.skipped),
            "calibration_tokens": sum(map(len, self.sequences)),
            "order": self.stage.order,
            "allocation": self.budgets.record,
            "used": {**self.meter.total().as_dict(), "resumed_blocks": self.journal.resumed},
        }
        if self.rebuilder is not None:
            stats["reconstruction"] = {
                block: found for entry in entries for block, found in entry.get("reconstruction", {}).items()
            }
        return StageResult(stats, events, self.calibration)

    def _verify(self, written: Checkpoint, masks: Mapping[str, Tensor]) -> None:
        violations = count_violations(masks, written)
        if violations:
            raise NumericsError(f"{violations} pruned weights are not zero in {written.path}; please report this")
        if self.stage.nm is not None:
            n, m = self.stage.nm
            broken = sum(broken_groups(written.read(f"{name}.weight"), n, m) for name in self.chosen)
            if broken:
                raise NumericsError(f"{broken} groups break the pattern {n}:{m} in {written.path}; please report this")


class _Masks(Mapping[str, Tensor]):
    """New masks, and earlier ones of what was not pruned again."""

    def __init__(self, earlier: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
        self._earlier, self._new = earlier, new

    def __getitem__(self, name: str) -> Tensor:
        return self._new[name] if name in self._new else self._earlier[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._earlier, *self._new)))

    def __len__(self) -> int:
        return len(set(self._earlier) | set(self._new))


def _fingerprint(stage: PruneStage, given: StageInput, source: Checkpoint) -> dict[str, Any]:
    layout = {name: [ref.file.name, ref.dtype, list(ref.shape)] for name, ref in source.tensors.items()}
    return {
        "stage": stage.model_dump(mode="json"),
        "model": sha256_json({"config": source.config, "tensors": layout}),
        "text": given.corpora[stage.calibration.source].sha256 if stage.calibration is not None else None,
    }


def _head_of(structure: Structure) -> str:
    if structure.head is None or structure.tied:
        raise SparsifyError("include: the head shares its weight with the embedding or is absent; leave it out")
    return structure.head


def _refuse_experts(chosen: tuple[str, ...]) -> None:
    experts = next((name for name in chosen if ".experts." in name), None)
    if experts is not None:
        raise SparsifyError(f"reconstruct cannot train fused experts ({experts}); leave it out, or skip the experts")


def _check_stored(source: Checkpoint, linears: tuple[str, ...]) -> None:
    for name in linears:
        if f"{name}.weight" not in source.tensors:
            raise CheckpointError(f"{source.path} stores no {name}.weight; save the model again with transformers")
