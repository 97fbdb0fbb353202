"""The prune stage: calibrate, solve and write one block after another."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from sparsify.blocks import Structure, chosen_linears, find_structure, load_model, load_tokenizer
from sparsify.calibration import CalibrationRecord, draw_sequences, make_batches
from sparsify.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.gram import Gram, full_precision
from sparsify.masks import broken_groups, count_violations, load_masks, save_masks
from sparsify.prune.journal import BlockJournal
from sparsify.prune.magnitude import magnitude
from sparsify.prune.problem import Budget, Scope, Solution, relative_error
from sparsify.prune.sparsegpt import sparsegpt
from sparsify.prune.wanda import wanda
from sparsify.recipe import PruneStage
from sparsify.stage import StageInput, StageResult, event
from sparsify.stream import BlockStream


def solve(stage: PruneStage, weight: Tensor, hessian: Tensor | None, keep: Tensor | None) -> Solution:
    """Prune one weight [out, in] as `stage` says; `hessian` may be None for magnitude only."""
    budget = Budget(stage.sparsity, stage.nm, cast(Scope, stage.scope))
    if stage.method == "magnitude" or hessian is None:
        return magnitude(weight, budget, keep=keep)
    if stage.method == "wanda":
        return wanda(weight, hessian, budget, keep=keep)
    return sparsegpt(weight, hessian, budget, percdamp=stage.percdamp, block_size=stage.block_size, keep=keep)


def run_prune(stage: PruneStage, given: StageInput) -> StageResult:
    """Prune the linears of every block of `given.parent` and write the result with its masks to `given.out`.

    The inputs of each block come from the blocks before it as already pruned, all linears of a block being solved from
    one pass. Zeros of earlier stages (the parent's masks) stay zeros.

    Raises:
        SparsifyError: The model or the calibration text cannot be used.
        NumericsError: A solver met values that it cannot continue from.
    """
    run = _Run(stage, given)
    with full_precision():
        for index in range(len(run.structure.blocks)):
            run.block(index)
            given.progress.update(index + 1, len(run.structure.blocks), f"pruned block {index + 1}")
    return run.write()


@dataclass(frozen=True)
class _Target:
    """A linear that is to be pruned."""

    name: str
    weight_name: str
    module: nn.Linear


class _Run:
    def __init__(self, stage: PruneStage, given: StageInput) -> None:
        self.stage, self.given = stage, given
        self.source = open_checkpoint(given.parent)
        if self.source.is_quantized:
            raise SparsifyError(f"{given.parent} is quantized; prune the unquantized model")
        self.earlier = load_masks(given.parent)
        self.model = load_model(given.parent)
        self.structure: Structure = find_structure(self.model)
        self.chosen, self.skipped = chosen_linears(self.structure.all_linears, stage.skip)
        _check_stored(self.source, self.chosen)
        self.journal = BlockJournal(given.work)
        self.events: list[dict[str, str]] = []
        self.calibration: list[dict[str, Any]] = []
        self.tokens = 0
        self.stream = self._open_stream()

    def _open_stream(self) -> BlockStream | None:
        settings = self.stage.calibration
        if settings is None:
            return None
        tokenizer = load_tokenizer(self.given.parent)
        corpus = self.given.corpora[settings.source]
        sequences = draw_sequences(corpus.path, tokenizer, settings)
        if len(sequences) < settings.samples:
            detail = f"{len(sequences)} rows instead of {settings.samples}"
            self.events.append(event("calibration_short", settings.source, detail))
        self.tokens = sum(map(len, sequences))
        record = CalibrationRecord(settings.source, corpus.sha256, len(sequences), settings.seq, settings.seed)
        self.calibration.append(record.as_dict())
        return BlockStream(self.model, self.structure, make_batches(sequences), device=self.given.device)

    def block(self, index: int) -> None:
        """Prune block `index`, or take it from the journal, and move the stream past it."""
        targets = [self._target(name) for name in self.structure.linears[index] if name in self.chosen]
        if index < len(self.journal.entries):
            weights, _ = self.journal.block(index)
            for target in targets:
                target.module.weight.data.copy_(weights[target.weight_name])
        else:
            self._solve_block(index, targets)
        if self.stream is not None:
            self.stream.advance(index)

    def _solve_block(self, index: int, targets: list[_Target]) -> None:
        began = time.monotonic()
        grams = self.stream.grams(index) if self.stream is not None and targets else {}
        weights: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        linears: dict[str, dict[str, float]] = {}
        events: list[dict[str, str]] = []
        hessians: dict[int, Tensor] = {}
        for target in targets:
            hessian = self._hessian(target, self.structure.blocks[index], grams, hessians)
            solution = self._solve(target, hessian)
            weights[target.weight_name], masks[target.weight_name] = self._write_back(target, solution)
            events += [event(note.kind, target.name, note.detail) for note in solution.notes]
            linears[target.name] = self._stats(solution)
        entry = {"linears": linears, "events": events, "seconds": round(time.monotonic() - began, 3)}
        self.journal.append(weights, masks, entry)

    def _hessian(
        self, target: _Target, block: str, grams: Mapping[str, Gram], made: dict[int, Tensor]
    ) -> Tensor | None:
        if self.stream is None:
            return None
        gram = grams.get(target.name.removeprefix(block + "."), Gram())
        if id(gram) not in made:
            made[id(gram)] = gram.hessian(target.name)
        return made[id(gram)]

    def _solve(self, target: _Target, hessian: Tensor | None) -> Solution:
        weight = target.module.weight.data.to(torch.float32)
        keep = self.earlier.get(target.weight_name)
        try:
            solution = solve(self.stage, weight, hessian, None if keep is None else keep.to(weight.device))
        except (NumericsError, SparsifyError) as error:
            raise type(error)(f"{target.name}: {error}") from None
        if hessian is not None:
            solution.stats["relative_error"] = relative_error(weight, solution.weight, hessian)
        return solution

    def _write_back(self, target: _Target, solution: Solution) -> tuple[Tensor, Tensor]:
        # The model goes on with what is stored, rounding included; the mask is applied again after the cast.
        dtype = self.source.read(target.weight_name).dtype
        mask = solution.mask.cpu()
        stored = solution.weight.cpu().to(dtype).masked_fill(~mask, 0.0)
        target.module.weight.data.copy_(stored)
        return stored, mask

    @staticmethod
    def _stats(solution: Solution) -> dict[str, float]:
        return {"sparsity": 1 - float(solution.mask.float().mean()), **solution.stats}

    def _target(self, name: str) -> _Target:
        module = self.model.get_submodule(name)
        assert isinstance(module, nn.Linear)
        return _Target(name, f"{name}.weight", module)

    def write(self) -> StageResult:
        """Write the pruned checkpoint and its masks, and check both from disk."""
        weights: dict[str, Tensor] = {}
        masks = {name: mask for name, mask in self.earlier.items() if name.removesuffix(".weight") not in self.chosen}
        for index in range(len(self.journal.entries)):
            block_weights, block_masks = self.journal.block(index)
            weights |= block_weights
            masks |= block_masks
        write_checkpoint(self.source, self.given.out, lambda name, tensor: {name: weights.get(name, tensor)})
        save_masks(masks, self.given.out)
        self._verify(open_checkpoint(self.given.out), masks)
        linears = {name: stats for entry in self.journal.entries for name, stats in entry["linears"].items()}
        events = self.events + [found for entry in self.journal.entries for found in entry["events"]]
        stats = {"linears": linears, "skipped": list(self.skipped), "calibration_tokens": self.tokens}
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


def _check_stored(source: Checkpoint, linears: tuple[str, ...]) -> None:
    for name in linears:
        if f"{name}.weight" not in source.tensors:
            raise CheckpointError(f"{source.path} stores no {name}.weight; save the model again with transformers")
