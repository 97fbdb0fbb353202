"""The quantize stage where something is measured: one block after another, each on what the blocks before it give."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsify.blocks import chosen_linears, find_structure, load_skeleton, load_tokenizer
from sparsify.calibration import CalibrationRecord, draw_sequences, make_batches
from sparsify.checkpoint import open_checkpoint, write_checkpoint
from sparsify.errors import CheckpointError, SparsifyError
from sparsify.gram import full_precision
from sparsify.masks import load_masks, pack, save_masks, unpack
from sparsify.prune.journal import BlockJournal
from sparsify.quantize.layout import parts_of, quantization_config, restored
from sparsify.quantize.linears import BlockWork, solve_block
from sparsify.quantize.recorded import RecordedCall
from sparsify.quantize.stage import check_groups
from sparsify.quantize.verify import verify_zeros
from sparsify.recipe import QuantizeStage
from sparsify.skeleton import StreamedWeights
from sparsify.stage import StageInput, StageResult, event
from sparsify.stream import BlockStream

_MASK = ".mask"
_PROBE_TOKENS = 256
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def run_calibrated(stage: QuantizeStage, given: StageInput) -> StageResult:
    """Quantize the linears of every block of `given.parent` and write the result to `given.out`.

    The inputs of each block come from the blocks before it with their weights as already quantized (activations stay
    in float). An interrupted run goes on with the first block that is not in its journal.

    Raises:
        SparsifyError: The model or the calibration text cannot be used, or no linear is left to quantize.
        NumericsError: A solver met values that it cannot continue from, or a zero was lost.
    """
    run = _Run(stage, given)
    with full_precision():
        for index in range(len(run.structure.blocks)):
            run.block(index)
            given.progress.update(index + 1, len(run.structure.blocks), f"quantized block {index + 1}")
    return run.write()


class _Run:
    def __init__(self, stage: QuantizeStage, given: StageInput) -> None:
        self.stage, self.given = stage, given
        self.source = open_checkpoint(given.parent)
        self.earlier = load_masks(given.parent)
        self.model = load_skeleton(given.parent)
        self.structure = find_structure(self.model)
        self.chosen, self.skipped = chosen_linears(self.structure.all_linears, stage.skip)
        for name in self.chosen:
            if f"{name}.weight" not in self.source.tensors:
                raise CheckpointError(f"{self.source.path} stores no {name}.weight; save it again with transformers")
        check_groups(stage, {name: self.source.tensors[f"{name}.weight"].shape[1] for name in self.chosen})
        self.journal = BlockJournal(given.work)
        self.events: list[dict[str, str]] = []
        self.stream, self.record, self.tokens = self._open_stream()

    def _open_stream(self) -> tuple[BlockStream, CalibrationRecord, int]:
        settings = self.stage.calibration
        assert settings is not None, "the recipe asks for it"
        corpus = self.given.corpora[settings.source]
        sequences = draw_sequences(corpus.path, load_tokenizer(self.given.parent), settings)
        if len(sequences) < settings.samples:
            detail = f"{len(sequences)} rows instead of {settings.samples}"
            self.events.append(event("calibration_short", settings.source, detail))
        record = CalibrationRecord(settings.source, corpus.sha256, len(sequences), settings.seq, settings.seed)
        # Smoothing runs each block a dozen times on the first batch, which is therefore kept small.
        few = _few(sequences) if self.stage.smooth is not None else 0
        batches = make_batches(sequences[:few]) + make_batches(sequences[few:])
        stream = BlockStream(
            self.model,
            self.structure,
            batches,
            device=self.given.device,
            weights=StreamedWeights(self.model, self.source),
            spill=self.given.work / "activations.bin",
        )
        return stream, record, sum(map(len, sequences))

    def block(self, index: int) -> None:
        """Quantize block `index`, or take it from the journal, and move the stream past it."""
        if index >= len(self.journal.entries):
            self._solve(index)
        # Read back in either case: the model goes on with what is stored.
        self.stream.load(index)
        tensors, _ = self.journal.block(index)
        for name, value in restored(tensors).items():
            self.model.get_parameter(name).data.copy_(value)
        self.stream.advance(index)

    def _solve(self, index: int) -> None:
        began = time.monotonic()
        prefix = self.structure.blocks[index]
        block = self.model.get_submodule(prefix)
        with RecordedCall(block) as call:
            grams = self.stream.grams(index)
        names = self.structure.linears[index]
        work = BlockWork(
            name=prefix,
            block=block,
            run=call.replay,
            grams=grams,
            chosen=tuple(name for name in names if name in self.chosen),
            frozen=tuple(name for name in names if name not in self.chosen),
            masks=self.earlier,
            dtypes=self._dtypes(prefix),
        )
        solved = solve_block(self.stage, work)
        tensors = dict(solved.tensors)
        for name, weight in solved.floats.items():
            # What stays float is stored anew only where smoothing changed it.
            stored = self._masked(name, weight.to(self._dtype(name)))
            if not torch.equal(stored, self.source.read(name)):
                tensors[name] = stored
        tensors |= {name + _MASK: pack(mask) for name, mask in solved.masks.items()}
        entry = {"linears": solved.stats, "events": solved.events, "seconds": round(time.monotonic() - began, 3)}
        self.journal.append(tensors, {}, {**entry, "left": list(solved.left)})

    def _masked(self, name: str, stored: Tensor) -> Tensor:
        return stored if name not in self.earlier else stored.masked_fill(~self.earlier[name], 0.0)

    def _dtype(self, name: str) -> torch.dtype:
        return _DTYPES.get(self.source.tensors[name].dtype, torch.float32)

    def _dtypes(self, prefix: str) -> dict[str, torch.dtype]:
        inside = [name for name in self.source.tensors if name.startswith(prefix + ".")]
        return {name.removeprefix(prefix + "."): self._dtype(name) for name in inside}

    def write(self) -> StageResult:
        """Write the quantized checkpoint and its masks, and check both from disk."""
        entries = self.journal.entries
        left = [name for entry in entries for name in entry["left"]]
        if len(left) == len(self.chosen):
            raise SparsifyError(
                f"skip_error {self.stage.skip_error} leaves no linear to quantize; the least error is "
                f"{min(s['relative_error'] for entry in entries for s in entry['linears'].values()):.3g}"
            )
        ignored = (*self.structure.other_linears, *self.skipped, *left)
        quantization = quantization_config(
            ignored, group=self.stage.group_size, static=self.stage.activations == "static"
        )
        finished = _Finished(self.journal, self.structure.blocks)
        linears = {f"{name}.weight": name for name in self.chosen}

        def rewrite(name: str, tensor: Tensor) -> Mapping[str, Tensor]:
            tensors = finished.holding(name)
            parts = parts_of(linears[name], tensors) if name in linears else {}
            return parts or {name: tensors.get(name, tensor)}

        write_checkpoint(
            self.source, self.given.out, rewrite, config={**self.source.config, "quantization_config": quantization}
        )
        masks = {**self.earlier, **finished.masks(self.source.tensors)}
        save_masks(masks, self.given.out)
        self.stream.close()
        written = open_checkpoint(self.given.out)
        checked = verify_zeros(written, load_masks(self.given.out), self.source, self.chosen)
        stats = {
            "linears": {name: stats for entry in entries for name, stats in entry["linears"].items()},
            "skipped": list(self.skipped),
            "skipped_by_error": left,
            "calibration_tokens": self.tokens,
            "checked": checked,
        }
        events = self.events + [found for entry in entries for found in entry["events"]]
        return StageResult(stats, events, [self.record.as_dict()])


def _few(sequences: Sequence[Sequence[int]]) -> int:
    """How many sequences from the start have `_PROBE_TOKENS` tokens together."""
    tokens = 0
    for count, sequence in enumerate(sequences):
        if tokens >= _PROBE_TOKENS:
            return count
        tokens += len(sequence)
    return len(sequences)


class _Finished:
    """The journal's tensors by name, one block in memory at a time."""

    def __init__(self, journal: BlockJournal, blocks: tuple[str, ...]) -> None:
        self._journal, self._blocks = journal, blocks
        self._index, self._tensors = -1, dict[str, Tensor]()

    def holding(self, name: str) -> dict[str, Tensor]:
        """The tensors of the block that a parameter lies in; empty for one outside the blocks."""
        for index, block in enumerate(self._blocks):
            if name.startswith(block + "."):
                if index != self._index:
                    self._index, self._tensors = index, self._journal.block(index)[0]
                return self._tensors
        return {}

    def masks(self, stored: Mapping[str, Any]) -> dict[str, Tensor]:
        """Masks that were chosen while quantizing, by weight name; `stored` says how wide the weights are."""
        found: dict[str, Tensor] = {}
        for index in range(len(self._blocks)):
            for name, packed in self._journal.block(index)[0].items():
                if name.endswith(_MASK):
                    weight = name.removesuffix(_MASK)
                    found[weight] = unpack(packed, stored[weight].shape[1])
        return found
