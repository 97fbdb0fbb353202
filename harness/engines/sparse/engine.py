"""The sparse engine: a variant on packed weights, on the CPU.

Import it through `harness.engines.load_engine`; this module imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.engines._load import load_tokenizer, read_config
from harness.engines._run import ModelRunner, Runner
from harness.engines._session import Session, TorchSession
from harness.engines.base import Completion, Request
from harness.engines.sparse import load_kernels
from harness.engines.sparse.cached import Source, open_cached
from harness.engines.sparse.linear import SparseLinear
from harness.engines.sparse.packed import FORMAT, MEMORY, Memory, Packed, write_packed
from harness.engines.sparse.packing import Head, Plan, pack_linears, plan_packing
from harness.engines.torch import TorchEngine
from harness.errors import ConfigError, EngineError
from harness.models import model_directory
from sparsify.blocks import load_skeleton
from sparsify.checkpoint import Checkpoint, open_checkpoint
from sparsify.corpus import sha256_file
from sparsify.files import sha256_json
from sparsify.packed import is_packed
from sparsify.skeleton import StreamedWeights

if TYPE_CHECKING:
    from harness.engines.sparse._kernels import Matrix
    from harness.engines.sparse.native import NativeModel


class SparseEngine:
    """Executes a variant with linears on packed weights; what it does with text is what the torch engine does.

    Attributes:
        model: The model of transformers, its linears replaced.
        packing: What was packed and how: `isa`, `bytes`, `matrices` by form, `memory`, `path` (native or transformers).
        events: Fall-backs that were taken, as records keep them.
    """

    name = "sparse"

    def __init__(
        self, model: Any, tokenizer: Any, packed: Packed, *, label: str, native: bool = True, notes: Sequence[str] = ()
    ) -> None:
        """Wrap a model whose linears are packed.

        Args:
            model: The model of transformers with `SparseLinear` modules.
            tokenizer: Its tokenizer.
            packed: The packed weights.
            label: What messages call the variant.
            native: Use the native decoder where it knows the model.
            notes: Fall-backs so far.
        """
        self.model = model
        self.events = [{"kind": "sparse_engine", "where": label, "detail": note} for note in notes]
        runner: Runner = ModelRunner(model)
        self._native: NativeModel | None = None
        if native:
            self._native, why = _build_native(model, packed.matrices)
            if self._native is None:
                self._note(label, f"the native decoder does not know this model ({why}); transformers runs it")
        if self._native is not None:
            runner = self._native
        self.packing = {**describe(packed), "path": "transformers" if self._native is None else "native"}
        self._front = TorchEngine(model, tokenizer, label=label, runner=runner)

    @classmethod
    def load(
        cls,
        variant_dir: Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int | None = None,
        head: Head = "own",
        memory: Memory = "auto",
        native: bool = True,
    ) -> SparseEngine:
        """Open a model directory: plain safetensors, bitmask storage, or compressed-tensors W8A8 and W4A16.

        Args:
            variant_dir: Directory with config.json, safetensors and a tokenizer.
            device: `cpu` (or `auto`, which is the CPU here).
            dtype: What weights that are not quantized are packed as: `float32`, `bfloat16`, or `auto` (as saved).
                Activations are float32 in any case.
            threads: CPU threads of this process; None leaves them.
            head: `int8` also rounds an output layer that is not quantized; `own` leaves it as `dtype` says.
            memory: How the packed file is held: `mmap`, `copy` (in huge pages), or `auto`.
            native: Use the native decoder where it knows the model.

        Raises:
            ConfigError: A wrong option or no such directory.
            CheckpointError: The directory's files cannot be read.
            EngineError: The kernels are not built here, another device is asked for, or the checkpoint is quantized in
                a way that the kernels do not know.
        """
        if device not in ("cpu", "auto"):
            raise EngineError(f"engine sparse runs on the CPU, not on {device!r}; use device cpu, or engine torch")
        if memory not in MEMORY:
            raise ConfigError(f"unknown memory {memory!r}; choose one of: {', '.join(MEMORY)}")
        load_kernels()
        if threads is not None:
            torch.set_num_threads(threads)
        variant_dir = Path(variant_dir)
        label = variant_dir.name
        read_config(variant_dir)
        if is_packed(variant_dir):
            variant_dir = model_directory(str(variant_dir), offline=True)
        source = open_checkpoint(variant_dir)
        model: Any = load_skeleton(variant_dir)
        plan = plan_packing(model, source, dtype=dtype, head=head)
        packed, notes = _open_packed(source, plan, model, memory)
        if any(matrix.kind == "i4" for matrix in packed.matrices.values()):
            notes.append("inputs of 4-bit linears are rounded to int8 per group; W4A16 keeps them in float")
        left = _unpacked(model)
        if left:
            notes.append(f"{len(left)} weights of three dimensions, such as {left[0]}, stay with torch")
        _replace_linears(model, source, packed.matrices)
        StreamedWeights(model, source).load("")
        _read_generation_config(model, variant_dir)
        return cls(model, load_tokenizer(variant_dir), packed, label=label, native=native, notes=notes)

    @property
    def context_length(self) -> int:
        """Tokens that prompt and completion may have together."""
        return self._front.context_length

    @property
    def vocabulary(self) -> int:
        """Rows of the output layer."""
        return self._front.vocabulary

    def encode(self, text: str | None = None, *, chat: Sequence[Mapping[str, str]] | None = None) -> list[int]:
        """Token ids of a text or of chat messages; see `TorchEngine.encode`."""
        return self._front.encode(text, chat=chat)

    def generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete one fixed batch, in order; see `TorchEngine.generate_batch`."""
        self._follow_torch()
        return self._front.generate_batch(requests)

    def loglikelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations; see `TorchEngine.loglikelihoods`."""
        self._follow_torch()
        return self._front.loglikelihoods(pairs)

    def logits(self, sequences: Sequence[Sequence[int]], *, keep: Sequence[int]) -> list[torch.Tensor]:
        """Logits by position; see `TorchEngine.logits`."""
        self._follow_torch()
        return self._front.logits(sequences, keep=keep)

    def session(self, *, batch: int, tokens: int) -> Session:
        """A fresh key/value cache for `batch` rows of at most `tokens` tokens, to be driven token by token."""
        self._follow_torch()
        if self._native is not None:
            from harness.engines.sparse.session import NativeSession

            return NativeSession(self._native, batch=batch, tokens=tokens)
        return TorchSession(self.model)

    def synchronise(self) -> None:
        """Do nothing: the CPU has finished when a call returns."""

    def _follow_torch(self) -> None:
        """Use as many threads as torch does now."""
        if self._native is not None:
            self._native.threads = torch.get_num_threads()

    def _note(self, label: str, detail: str) -> None:
        self.events.append({"kind": "sparse_engine", "where": label, "detail": detail})


def describe(packed: Packed) -> dict[str, Any]:
    """Facts about packed weights for a record: instruction set, bytes, and how many matrices took which form."""
    forms: dict[str, int] = {}
    for matrix in packed.matrices.values():
        form = f"{'sparse' if matrix.sparse else 'dense'} {matrix.kind}"
        forms[form] = forms.get(form, 0) + 1
    return {
        "isa": load_kernels().best_isa(),
        "bytes": packed.bytes,
        "matrices": dict(sorted(forms.items())),
        "memory": packed.memory,
    }


def _open_packed(source: Checkpoint, plan: Plan, model: Any, memory: Memory) -> tuple[Packed, list[str]]:
    output = model.get_output_embeddings()
    head = next((name for name, module in model.named_modules() if module is output), None)

    def pack(path: Path) -> None:
        matrices = pack_linears(plan, source, head=head, threads=torch.get_num_threads())
        write_packed(path, matrices, names=plan.stored, key=cached.key)

    settings = {**plan.settings, "format": FORMAT, "config": sha256_file(source.path / "config.json")}
    cached = Source(source.path, source.weights_sha256, sha256_json(settings), pack)
    return open_cached(cached, memory=memory)


def _replace_linears(model: nn.Module, source: Checkpoint, matrices: Mapping[str, Matrix]) -> None:
    for name, matrix in matrices.items():
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        bias = source.read(f"{name}.bias") if linear.bias is not None else None
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, SparseLinear(matrix, bias))


def _unpacked(model: nn.Module) -> list[str]:
    """Weights of several matrices in one, as fused experts have them; no kernel here reads them."""
    return [name for name, parameter in model.named_parameters() if parameter.ndim == 3]


def _read_generation_config(model: Any, variant_dir: Path) -> None:
    """Take end tokens from where transformers takes them when it loads a model with its weights."""
    from transformers import GenerationConfig

    if (variant_dir / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(variant_dir, local_files_only=True)


def _build_native(model: Any, matrices: Mapping[str, Matrix]) -> tuple[NativeModel | None, str]:
    from harness.engines.sparse.native import NativeModel, Unsupported

    try:
        return NativeModel.build(model, matrices), ""
    except Unsupported as reason:
        return None, str(reason)
