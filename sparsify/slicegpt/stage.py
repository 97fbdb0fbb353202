"""The slice stage: rotate and cut one block after another, with one block in memory (2401.15024, algorithm 1)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.activations import MEMORY_BYTES, Activations
from sparsify.blocks import find_structure, load_skeleton, load_tokenizer
from sparsify.calibration import CalibrationRecord, draw_sequences, make_batches
from sparsify.checkpoint import MASKS, Checkpoint, copy_companions, open_checkpoint, write_index
from sparsify.errors import NumericsError, SparsifyError
from sparsify.files import sha256_json, write_json
from sparsify.gram import full_precision
from sparsify.prune.journal import BlockJournal
from sparsify.recipe import SliceStage
from sparsify.shards import ShardedWriter, torch_dtype
from sparsify.skeleton import StreamedWeights
from sparsify.slicegpt.bases import write_bases
from sparsify.slicegpt.block import FoldedBlock, fold_block
from sparsify.slicegpt.dense import dense_moments, stream_moments
from sparsify.slicegpt.families import Family, check_config, family_of
from sparsify.slicegpt.fold import NormParts, parts_of_norm
from sparsify.slicegpt.model import narrow_block, set_parameter, sliced_config
from sparsify.slicegpt.norm import ScaleFreeNorm
from sparsify.slicegpt.outside import folded_head, rotated_embedding
from sparsify.slicegpt.pca import Covariance, principal_components, random_orthogonal
from sparsify.slicegpt.shared import shared_config, shared_width, stock_tensors
from sparsify.slicegpt.sizes import uniform_widths, widths_by_mass
from sparsify.stage import StageInput, StageResult, event
from sparsify.stream import BlockStream
from sparsify.usage import Meter

_BASIS = "basis"


def run_slice(stage: SliceStage, given: StageInput) -> StageResult:
    """Slice `given.parent` and write the result to `given.out`.

    The basis at each cut comes from signals of the blocks before it as already sliced and stored. An interrupted run
    goes on with the first block that is not in its journal.

    Raises:
        SparsifyError: The model cannot be sliced, is pruned or quantized, or the text has fewer tokens than the stream
            is wide.
        NumericsError: A value is not finite.
    """
    run = _Run(stage, given)
    with full_precision(), torch.no_grad():
        run.prepare()
        run.measure()
        for index in range(len(run.structure.blocks)):
            run.block(index)
            given.progress.update(index + 1, run.work, f"sliced block {index + 1} of {len(run.structure.blocks)}")
        result = run.write()
    return result


class _Run:
    def __init__(self, stage: SliceStage, given: StageInput) -> None:
        self.meter = Meter(given.device)
        self.stage, self.given, self.device = stage, given, torch.device(given.device)
        self.source = open_checkpoint(given.parent)
        if self.source.is_quantized:
            raise SparsifyError(f"{given.parent} is quantized; slice the unquantized model, and quantize it afterwards")
        if (given.parent / MASKS).exists():
            raise SparsifyError(
                f"{given.parent} is pruned, and rotating it would fill its zeros; slice first, then prune"
            )
        self.model_type = str(self.source.config.get("model_type"))
        self.family: Family = family_of(self.model_type)
        self.model: Any = load_skeleton(given.parent)
        check_config(self.model_type, self.model.config)
        self.structure = find_structure(self.model)
        if self.structure.head is None:
            raise SparsifyError(f"{type(self.model).__name__} has no head to rotate; slice a causal language model")
        self.weights = StreamedWeights(self.model, self.source)
        self.width = int(self.model.get_submodule(self.structure.embedding).weight.shape[1])
        self.cuts = len(self.structure.blocks) * self.family.cuts + 1
        self.events: list[dict[str, str]] = []
        self.names = [f"{block} cut {cut}" for block in self.structure.blocks for cut in range(self.family.cuts)]
        self.names.append("the last cut")
        # Refuses a fraction that leaves nothing before any work is done.
        self.widths = self._even_widths()
        self.work = len(self.structure.blocks)
        environment = {"torch": torch.__version__, "device": given.device, "threads": torch.get_num_threads()}
        self.journal = BlockJournal(given.work, _fingerprint(stage, given, self.source), environment)
        if self.journal.moved and self.journal.resumed:
            self.events.append(event("resumed_elsewhere", f"block {self.journal.resumed}", self.journal.moved))

    def _even_widths(self) -> list[int]:
        stage = self.stage
        if stage.basis == "shared":
            return [shared_width(self.model.config, self.family, self.width, stage)] * self.cuts
        return uniform_widths(self.width, self.cuts, stage.fraction, stage.round_to, slice_head=not stage.whole_head)

    def prepare(self) -> None:
        """Read the calibration text and run it up to the first block."""
        settings = self.stage.calibration
        corpus = self.given.corpora[settings.source]
        sequences = draw_sequences(corpus.path, load_tokenizer(self.given.parent), settings)
        if len(sequences) < settings.samples:
            detail = f"{len(sequences)} rows instead of {settings.samples}"
            self.events.append(event("calibration_short", settings.source, detail))
        self.tokens = sum(map(len, sequences))
        if self.tokens < self.width:
            raise SparsifyError(
                f"{self.tokens} calibration tokens do not span a stream of width {self.width}; raise "
                f"calibration.samples or seq to {self.width} tokens and, better, ten times as many"
            )
        self.record = CalibrationRecord(settings.source, corpus.sha256, len(sequences), settings.seq, settings.seed)
        self.stream = BlockStream(
            self.model,
            self.structure,
            make_batches(sequences),
            device=self.given.device,
            weights=self.weights,
            spill=self.given.work / "activations.bin",
        )

    def measure(self) -> None:
        """What must be known of the whole model first: widths by energy, the shared basis, the first basis."""
        self.head_norm = self._final_norm()
        if self.journal.entries:
            begun = self.journal.entries[0]
            self.widths, self.kept = list(begun["widths"]), list(begun["kept"])
            self.basis = self.journal.block(0)[0][_BASIS].to(self.device)
        else:
            first = self._decide()
            self.kept = [first]
            self.journal.append({_BASIS: self.basis.cpu()}, {}, {"widths": self.widths, "kept": [first]})
        if self.stage.basis == "block":
            for index, hidden in enumerate(self.stream.hidden):
                exact = self._centred(hidden.to(self.device).double())
                self.stream.hidden[index] = (exact @ self.basis).float().cpu()

    def _decide(self) -> float:
        """Set `widths` and the first basis; returns the share of energy that the first cut keeps."""
        if self.stage.basis == "shared" or self.stage.schedule == "mass":
            found = list(dense_moments(self.stream, self.structure, self.family, self._exact_signal, self._told))
            if self.stage.basis == "shared":
                # Every cut counts alike, however large its signals are.
                pooled = torch.stack([moments / moments.trace() for moments in found]).sum(0)
                return self._take(pooled, 0)
            spectra = [
                principal_components(moments, name, self.stage.percdamp)[1].cpu()
                for moments, name in zip(found, self.names, strict=True)
            ]
            self.widths = widths_by_mass(
                spectra, self.stage.fraction, self.stage.round_to, slice_head=not self.stage.whole_head
            )
            self.stream.restart()
        return self._take(stream_moments(self.stream, self._exact_signal), 0)

    def block(self, index: int) -> None:
        """Slice block `index`, or take it from the journal, and move the stream past it."""
        stock = copy.deepcopy(self.stream.load(index))
        self.stream.release()
        if index + 1 >= len(self.journal.entries):
            tensors, entry = self._solve(index, stock)
            stored = {name: self._stored(index, name, value) for name, value in tensors.items()}
            self.journal.append({**stored, _BASIS: self.basis.cpu()}, {}, entry)
        tensors = self.journal.block(index + 1)[0]
        self.basis = tensors.pop(_BASIS).to(self.device)
        self.kept += self.journal.entries[index + 1]["kept"]
        if self.stage.basis == "block" and index + 1 < len(self.structure.blocks):
            self._advance(index, stock, tensors)

    def _solve(self, index: int, stock: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The parameters of sliced block `index`, and what is recorded; `basis` becomes that behind the block."""
        self.meter.lap()
        folded = fold_block(stock, self.family)
        if self.stage.basis == "shared":
            tensors = stock_tensors(folded, self.basis, self.family, self.width)
            return tensors, {"kept": [], "seconds": self.meter.lap().seconds}
        taken, at = self.basis, (index + 1) * self.family.cuts
        if self.family.parallel:
            kept = [self._behind(index, stock, folded, at)]
            tensors = folded.sliced(taken, None, self.basis)
        else:
            self._set(stock, folded.attention.reading(taken), folded.attention.writing(None))
            middle = self._behind_attention(index, stock, folded)
            kept = [self._take(self.moments, at - 1)]
            between = self.basis
            self._set(stock, folded.mlp.reading(between), folded.mlp.writing(None))
            kept.append(self._behind_mlp(stock, folded, middle, at))
            middle.close()
            tensors = folded.sliced(taken, between, self.basis)
        return tensors, {"kept": kept, "seconds": self.meter.lap().seconds}

    def _behind_attention(self, index: int, block: Any, folded: FoldedBlock) -> Activations:
        """The stream behind attention in its original basis, for every batch; `moments` is summed over it."""
        norm = self._norm(folded.attention.norm)
        middle = self._scratch()
        moments = Covariance()
        for batch in range(len(self.stream.hidden)):
            hidden = self.stream.hidden[batch].to(self.device)
            added = self.family.attend(block, norm(hidden), self.stream.arguments(index, batch))
            whole = hidden.double() @ self.basis.T + added
            moments.add(self._signal(whole), self.stream.batches[batch].real.to(self.device))
            middle.append(whole.float().cpu())
        assert moments.total is not None
        self.moments = moments.total
        return middle

    def _behind_mlp(self, block: Any, folded: FoldedBlock, middle: Activations, at: int) -> float:
        """Set `basis` to that behind the MLP; returns the share of energy kept there."""
        if self._whole(at):
            return self._whole_basis()
        norm = self._norm(folded.mlp.norm)
        moments = Covariance()
        for batch in range(len(middle)):
            hidden = (middle[batch].to(self.device).double() @ self.basis).float()
            added = self.family.feed(block, norm(hidden))
            whole = hidden.double() @ self.basis.T + added
            moments.add(self._signal(whole), self.stream.batches[batch].real.to(self.device))
        assert moments.total is not None
        return self._take(moments.total, at)

    def _behind(self, index: int, block: Any, folded: FoldedBlock, at: int) -> float:
        """The same behind a block whose attention and MLP stand side by side."""
        if self._whole(at):
            return self._whole_basis()
        sides = (folded.attention, folded.mlp)
        for side in sides:
            self._set(block, side.reading(self.basis), side.writing(None))
        norm = self._norm(folded.attention.norm)
        moments = Covariance()
        for batch in range(len(self.stream.hidden)):
            hidden = self.stream.hidden[batch].to(self.device)
            normed = norm(hidden)
            added = self.family.attend(block, normed, self.stream.arguments(index, batch))
            whole = hidden.double() @ self.basis.T + added + self.family.feed(block, normed)
            moments.add(self._signal(whole), self.stream.batches[batch].real.to(self.device))
        assert moments.total is not None
        return self._take(moments.total, at)

    def _advance(self, index: int, stock: Any, tensors: Mapping[str, Tensor]) -> None:
        """Run the sliced block as it is stored; its outputs become the inputs of the next."""
        at = index * self.family.cuts
        narrow_block(stock, self.model_type, self.widths[at : at + self.family.cuts + 1], self.width)
        self._set(stock, tensors)
        for batch in range(len(self.stream.hidden)):
            hidden = self.stream.hidden[batch].to(self.device)
            output = stock(hidden, **self.stream.arguments(index, batch))
            self.stream.hidden[batch] = (output[0] if isinstance(output, tuple) else output).cpu()

    def _take(self, moments: Tensor, at: int) -> float:
        """Set `basis` to the first principal components at cut `at`; returns the share of energy that they hold."""
        vectors, values = principal_components(moments, self.names[at], self.stage.percdamp)
        kept = self.widths[at]
        self.basis = vectors[:, :kept]
        if self.stage.orientation == "random":
            turn = random_orthogonal(kept, self.stage.seed * 1_000_003 + at)
            self.basis = self.basis @ turn.to(self.basis.device)
        total = float(values.sum())
        return float(values[:kept].sum()) / total if total > 0 else 1.0

    def _whole(self, at: int) -> bool:
        """Whether cut `at` is the one in front of a head that is not sliced: it needs no basis."""
        return at == self.cuts - 1 and self.stage.whole_head

    def _whole_basis(self) -> float:
        self.basis = torch.eye(self.width, dtype=torch.float64, device=self.device)
        return 1.0

    def _signal(self, hidden: Tensor) -> Tensor:
        """What principal components are taken of: the stream, or what a norm makes of it (equation 8 of the paper)."""
        if self.stage.signals == "stream":
            return hidden
        return ScaleFreeNorm(self.width, self.head_norm.eps)(hidden)

    def _exact_signal(self, hidden: Tensor) -> Tensor:
        return self._signal(self._centred(hidden.to(self.device).double()))

    def _told(self, index: int) -> None:
        self.given.progress.update(0, self.work, f"measured block {index + 1} of {self.work}")

    def _centred(self, hidden: Tensor) -> Tensor:
        return hidden - hidden.mean(-1, keepdim=True) if self.head_norm.centred else hidden

    def _final_norm(self) -> NormParts:
        self.weights.load(self.family.final_norm)
        found = parts_of_norm(self.model.get_submodule(self.family.final_norm), self.family.scale_offset)
        self.weights.free(self.family.final_norm)
        return found

    def _norm(self, parts: NormParts) -> ScaleFreeNorm:
        return ScaleFreeNorm(self.width, parts.eps)

    def _scratch(self) -> Activations:
        size = 4 * self.width * sum(batch.ids.numel() for batch in self.stream.batches)
        return Activations(self.given.work / "middle.bin" if size > MEMORY_BYTES else None)

    def _set(self, block: nn.Module, *parts: Mapping[str, Tensor]) -> None:
        for tensors in parts:
            for name, value in tensors.items():
                set_parameter(block, name, value.to(self.device, torch.float32))

    def _stored(self, index: int, name: str, value: Tensor) -> Tensor:
        return value.to("cpu", self._dtype(f"{self.structure.blocks[index]}.{name}"))

    def _dtype(self, name: str) -> torch.dtype:
        """The dtype in which a parameter is stored: its own, or that of the embedding."""
        known = self.source.tensors.get(name) or self.source.tensors.get(f"{self.structure.embedding}.weight")
        return torch_dtype(known.dtype) if known is not None else torch.float32

    def write(self) -> StageResult:
        """Write the sliced checkpoint with its config."""
        self.stream.close()
        writer = ShardedWriter(self.given.out)
        for index, prefix in enumerate(self.structure.blocks):
            tensors = self.journal.block(index + 1)[0]
            for name, tensor in tensors.items():
                if name != _BASIS:
                    writer.add(f"{prefix}.{name}", tensor)
        self._write_outside(writer)
        writer.close()
        write_index(self.given.out, writer.files)
        if self.stage.keep_bases:
            journaled = range(1, len(self.structure.blocks) + 1)
            write_bases(self.given.out, (self.journal.block(at)[0][_BASIS] for at in journaled), self.head_norm)
        config = self._config()
        write_json(self.given.out / "config.json", config)
        copy_companions(self.source.path, self.given.out)
        _check_finite(open_checkpoint(self.given.out))
        before = sum(parameter.numel() for parameter in self.model.parameters())
        after = sum(ref.numel for ref in open_checkpoint(self.given.out).tensors.values())
        cuts = dict(zip(self.names, zip(self.widths, self.kept, strict=False), strict=False))
        stats = {
            "cuts": {name: {"width": width, "energy_kept": kept} for name, (width, kept) in cuts.items()},
            "width": self.width,
            "parameters_before": before,
            "parameters_after": after,
            "calibration_tokens": self.tokens,
            "used": {**self.meter.total().as_dict(), "resumed_blocks": max(0, self.journal.resumed - 1)},
        }
        return StageResult(stats, self.events, [self.record.as_dict()])

    def _write_outside(self, writer: ShardedWriter) -> None:
        """Embeddings, head, and of a stock model the final norm."""
        first = self.journal.block(0)[0][_BASIS].to(self.device)
        shared = self.stage.basis == "shared"
        for name in (self.structure.embedding, *self.family.positions):
            stored = self._dtype(f"{name}.weight")
            self.weights.load(name)
            rows = self.model.get_submodule(name).weight
            writer.add(f"{name}.weight", rotated_embedding(rows, first, centred=self.head_norm.centred, stored=stored))
            self.weights.free(name)
        name = self.structure.head or ""
        self.weights.load(name)
        head, stored = self.model.get_submodule(name), self._dtype(f"{name}.weight")
        scale = math.sqrt(self.width / self.widths[0]) if shared else 1.0
        weight, bias = folded_head(head, self.head_norm, self.basis, scale=scale, stored=stored)
        self.weights.free(name)
        writer.add(f"{name}.weight", weight)
        if bias is not None:
            writer.add(f"{name}.bias", bias)
        if shared:
            norm = f"{self.family.final_norm}.weight"
            writer.add(norm, torch.full((self.widths[0],), 1 - self.family.scale_offset).to(self._dtype(norm)))

    def _config(self) -> dict[str, Any]:
        if self.stage.basis == "shared":
            return shared_config(self.source.config, self.model.config, self.width, self.widths[0])
        slicing = {
            "width": self.width,
            "widths": self.widths,
            "round_to": self.stage.round_to,
            "fraction": self.stage.fraction,
        }
        return sliced_config(self.source.config, slicing)


def _check_finite(written: Checkpoint) -> None:
    for name in written.tensors:
        if not bool(torch.isfinite(written.read(name)).all()):
            raise NumericsError(f"{name} is not finite after slicing; check the model's weights")


def _fingerprint(stage: SliceStage, given: StageInput, source: Checkpoint) -> dict[str, Any]:
    layout = {name: [ref.file.name, ref.dtype, list(ref.shape)] for name, ref in source.tensors.items()}
    return {
        "stage": stage.model_dump(mode="json"),
        "model": sha256_json({"config": source.config, "tensors": layout}),
        "text": given.corpora[stage.calibration.source].sha256,
    }
