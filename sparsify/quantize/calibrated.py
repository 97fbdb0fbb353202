"""The quantize stage where something is measured: one block after another, each on what the blocks before it give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsify.blocks import find_structure, load_skeleton, load_tokenizer
from sparsify.calibration import CalibrationRecord, draw_sequences, make_batches
from sparsify.checkpoint import Checkpoint, TensorRef, open_checkpoint, write_checkpoint
from sparsify.errors import CheckpointError, SparsifyError
from sparsify.files import sha256_json
from sparsify.gram import full_precision
from sparsify.masks import load_masks, pack, save_masks, unpack
from sparsify.prune.journal import BlockJournal
from sparsify.quantize.layout import parts_of, quantization_config, restored
from sparsify.quantize.linears import BlockWork, solve_block
from sparsify.quantize.recorded import RecordedCall
from sparsify.quantize.stage import check_groups, targets_of
from sparsify.quantize.verify import verify_zeros
from sparsify.recipe import QuantizeStage
from sparsify.shards import torch_dtype
from sparsify.skeleton import StreamedWeights
from sparsify.stage import StageInput, StageResult, event
from sparsify.stream import BlockStream
from sparsify.usage import Meter

_MASK = ".mask"
_PROBE_TOKENS = 256


def run_calibrated(stage: QuantizeStage, given: StageInput) -> StageResult:
    """Quantize the linears of every block of `given.parent` and write the result to `given.out`.

    One block is in memory at a time. Its inputs come from the blocks before it with their weights as already quantized
    (activations stay in float). An interrupted run goes on with the first block that is not in its journal.

    Raises:
        SparsifyError: The model or the calibration text cannot be used, or no linear is left to quantize.
        NumericsError: A solver met values that it cannot continue from, or a zero was lost.
    """
    run = _Run(stage, given)
    with full_precision():
        run.prepare()
        blocks = len(run.structure.blocks)
        for index in range(blocks):
            run.block(index)
            given.progress.update(index + 1, blocks, f"quantized block {index + 1} of {blocks}")
    return run.write()


class _Run:
    def __init__(self, stage: QuantizeStage, given: StageInput) -> None:
        self.meter = Meter(given.device)
        self.stage, self.given = stage, given
        self.source = open_checkpoint(given.parent)
        self.earlier = load_masks(given.parent)
        self.model = load_skeleton(given.parent)
        self.structure = find_structure(self.model)
        self.events: list[dict[str, str]] = []
        self.chosen, self.skipped = targets_of(self.model, self.structure, stage.skip)
        for name in self.chosen:
            if f"{name}.weight" not in self.source.tensors:
                raise CheckpointError(f"{self.source.path} stores no {name}.weight; save it again with transformers")
        check_groups(stage, {name: self.source.tensors[f"{name}.weight"].shape[1] for name in self.chosen})
        self.weights = StreamedWeights(self.model, self.source)
        # Sums run in another order on other hardware or with more threads: the last bits may differ.
        environment = {"torch": torch.__version__, "device": given.device, "threads": torch.get_num_threads()}
        self.journal = BlockJournal(given.work, _fingerprint(stage, given, self.source), environment)
        if self.journal.moved and self.journal.resumed:
            self.events.append(event("resumed_elsewhere", f"block {self.journal.resumed}", self.journal.moved))

    def prepare(self) -> None:
        """Read the calibration text and run it up to the first block."""
        settings = self.stage.calibration
        assert settings is not None, "the recipe asks for it"
        corpus = self.given.corpora[settings.source]
        sequences = draw_sequences(corpus.path, load_tokenizer(self.given.parent), settings)
        if len(sequences) < settings.samples:
            detail = f"{len(sequences)} rows instead of {settings.samples}"
            self.events.append(event("calibration_short", settings.source, detail))
        self.record = CalibrationRecord(settings.source, corpus.sha256, len(sequences), settings.seq, settings.seed)
        self.tokens = sum(map(len, sequences))
        # Smoothing runs each block a dozen times on the first batch, which is therefore kept small.
        few = _few(sequences) if self.stage.smooth is not None else 0
        self.stream = BlockStream(
            self.model,
            self.structure,
            make_batches(sequences[:few]) + make_batches(sequences[few:]),
            device=self.given.device,
            weights=self.weights,
            spill=self.given.work / "activations.bin",
        )

    def block(self, index: int) -> None:
        """Quantize block `index`, or take it from the journal, and move the stream past it."""
        if index >= len(self.journal.entries):
            self._solve(index)
        self.stream.load(index)
        # Read back in either case: the model goes on with what is stored.
        for name, value in restored(self.journal.block(index)[0]).items():
            self.model.get_parameter(name).data.copy_(value)
        self.stream.advance(index)

    def _solve(self, index: int) -> None:
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
            lap=self.meter.lap,
        )
        solved = solve_block(self.stage, work)
        tensors = dict(solved.tensors)
        for name, weight in solved.floats.items():
            # What stays float is stored anew only where smoothing changed it.
            stored = self._masked(name, weight.to(self._dtype(name)))
            if not torch.equal(stored, self.source.read(name)):
                tensors[name] = stored
        tensors |= {name + _MASK: pack(mask) for name, mask in solved.masks.items()}
        self.journal.append(tensors, {}, {"linears": solved.stats, "events": solved.events, "left": list(solved.left)})

    def _masked(self, name: str, stored: Tensor) -> Tensor:
        return stored if name not in self.earlier else stored.masked_fill(~self.earlier[name], 0.0)

    def _dtype(self, name: str) -> torch.dtype:
        return torch_dtype(self.source.tensors[name].dtype)

    def _dtypes(self, prefix: str) -> dict[str, torch.dtype]:
        inside = [name for name in self.source.tensors if name.startswith(prefix + ".")]
        return {name.removeprefix(prefix + "."): self._dtype(name) for name in inside}

    def write(self) -> StageResult:
        """Write the quantized checkpoint and its masks, and check both from disk."""
        self.stream.close()
        entries = self.journal.entries
        stats = {name: stats for entry in entries for name, stats in entry["linears"].items()}
        left = [name for entry in entries for name in entry["left"]]
        if len(left) == len(self.chosen):
            least = min(entry["relative_error"] for entry in stats.values())
            raise SparsifyError(
                f"skip_error {self.stage.skip_error} leaves no linear to quantize; the least error is {least:.3g}"
            )
        finished = self.journal.weights()
        linears = {f"{name}.weight": name for name in self.chosen}

        def rewrite(name: str, tensor: Tensor) -> Mapping[str, Tensor]:
            parts = parts_of(linears[name], finished) if name in linears else {}
            return parts or {name: finished.get(name, tensor)}

        ignored, static = (*self.structure.other_linears, *self.skipped, *left), self.stage.activations == "static"
        quantization = quantization_config(ignored, group=self.stage.group_size, static=static)
        config = {**self.source.config, "quantization_config": quantization}
        write_checkpoint(self.source, self.given.out, rewrite, config=config)
        save_masks(_Masks(self.earlier, finished, self.source.tensors), self.given.out)
        written = open_checkpoint(self.given.out)
        result = {
            "linears": stats,
            "skipped": list(self.skipped),
            "skipped_by_error": left,
            "calibration_tokens": self.tokens,
            "checked": verify_zeros(written, load_masks(self.given.out), self.source, self.chosen),
            "used": {**self.meter.total().as_dict(), "resumed_blocks": self.journal.resumed},
        }
        events = self.events + [found for entry in entries for found in entry["events"]]
        return StageResult(result, events, [self.record.as_dict()])


class _Masks(Mapping[str, Tensor]):
    """Masks that were chosen while quantizing, and the parent's of what was not."""

    def __init__(
        self, earlier: Mapping[str, Tensor], finished: Mapping[str, Tensor], stored: Mapping[str, TensorRef]
    ) -> None:
        self._earlier, self._finished, self._stored = earlier, finished, stored
        self._new = [name.removesuffix(_MASK) for name in finished if name.endswith(_MASK)]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._new:
            return self._earlier[name]
        return unpack(self._finished[name + _MASK], self._stored[name].shape[1])

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._earlier, *self._new)))

    def __len__(self) -> int:
        return len(set(self._earlier) | set(self._new))


def _few(sequences: Sequence[Sequence[int]]) -> int:
    """How many sequences from the start have `_PROBE_TOKENS` tokens together."""
    tokens = 0
    for count, sequence in enumerate(sequences):
        if tokens >= _PROBE_TOKENS:
            return count
        tokens += len(sequence)
    return len(sequences)


def _fingerprint(stage: QuantizeStage, given: StageInput, source: Checkpoint) -> dict[str, Any]:
    assert stage.calibration is not None
    layout = {name: [ref.file.name, ref.dtype, list(ref.shape)] for name, ref in source.tensors.items()}
    return {
        "stage": stage.model_dump(mode="json"),
        "model": sha256_json({"config": source.config, "tensors": layout}),
        "text": given.corpora[stage.calibration.source].sha256,
    }
