"""Loads the model that is trained and its teacher, and refuses pairs that cannot be compared."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.blocks import load_tokenizer
from sparsify.checkpoint import copy_companions
from sparsify.errors import SparsifyError
from sparsify.slicegpt import PREFIX
from sparsify.slicegpt.bases import Bases, read_bases
from sparsify.train.attention import attend_by_document
from sparsify.train.gradual import pruned_weights
from sparsify.train.held import HeldMasks
from sparsify.train.hooks import Single, Strategy
from sparsify.train.job import TrainJob
from sparsify.train.settings import TrainSettings

# Tokenizers are compared on this text as well as by their vocabularies: merges and normalisation show in it.
_PROBE = "Zero weights stay 0.00: naïve déjà-vu\n\tdef f(x):\n    return x**2  # 数字 — 12,345.678 don't"


class Student:
    """The model in training.

    Attributes:
        model: As it is run: loaded in float32, with the adapter attached, placed by the strategy.
        params: What is trained, by name.
        held: Its masks.
    """

    def __init__(self, job: TrainJob, settings: TrainSettings) -> None:
        """Load the model of `job` and hold its masks.

        Raises:
            SparsifyError: A mask belongs to another model.
        """
        self._job, self._gradual = job, settings.gradual
        self.model = self._load(job.strategy, job.device)
        if job.device == "cpu" and not job.strategy.spread:
            attend_by_document(self.model)
        if settings.checkpoint_activations:
            model: Any = self.model
            with warnings.catch_warnings():
                # Newer transformers have another name for it and warn; older ones know this one alone.
                warnings.simplefilter("ignore", FutureWarning)
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model.train()
        self.params: dict[str, Tensor] = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.held = HeldMasks({} if job.adapter is not None else self.params, self._masks())
        self.held.apply()

    def _load(self, strategy: Strategy, device: str) -> nn.Module:
        adapter = self._job.adapter

        def prepare(module: nn.Module, name: str) -> None:
            if adapter is not None:
                adapter.attach(module, name)

        return strategy.load(self._job.model_dir, device, torch.float32, prepare)

    def _masks(self) -> dict[str, Tensor]:
        # An adapter's own weights have no mask; it minds those of the model when it is merged.
        job = self._job
        if job.adapter is not None:
            return {}
        known = {
            name: job.strategy.shard(name, mask.to(torch.bool), self.params[name])
            if name in self.params and self.params[name].shape == mask.shape
            else mask
            for name, mask in job.masks.items()
        }
        return {**self._free(), **known}

    def _free(self) -> dict[str, Tensor]:
        """Masks that keep all, of the weights that are pruned while training goes on."""
        if self._gradual is None:
            return {}
        if self._job.strategy.spread or self._job.adapter is not None:
            raise SparsifyError(
                "gradual pruning trains all weights in one process; remove gradual, or lora and torchrun"
            )
        names = pruned_weights(self.model, self._gradual)
        return {name: torch.ones_like(self.params[name], dtype=torch.bool) for name in names}

    def write(self) -> dict[str, Any]:
        """Write the model to the job's `out_dir` in the dtype that it was stored in; pruned places are +0.0.

        Every process must call it; the main one writes.

        Returns:
            What merging an adapter cost (see `Adapter.merge`); empty without one, and off the main process.
        """
        job = self._job
        model: Any = job.strategy.gathered(self.model, lambda: self._load(Single(), "cpu"))
        if model is None:
            return {}
        name = json.loads((job.model_dir / "config.json").read_text()).get("dtype", "float32")
        dtype = getattr(torch, name)
        merged = {} if job.adapter is None else job.adapter.merge(model, job.masks, dtype)
        model.to(dtype)
        self.held.apply()
        job.out_dir.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(job.out_dir)
        copy_companions(job.model_dir, job.out_dir)
        return merged


def load_teacher(job: TrainJob, settings: TrainSettings) -> nn.Module | None:
    """The teacher in eval mode, without gradients, on its device; None where no loss needs one.

    Raises:
        SparsifyError: None was named, its tokenizer differs, or its blocks do not match those of the student.
    """
    if not settings.losses.needs_teacher:
        return None
    if job.teacher_dir is None:
        raise SparsifyError("losses kl and squarehead need a teacher; name one or set their weights to 0")
    check_tokenizers(job.model_dir, job.teacher_dir)
    check_shapes(job.model_dir, job.teacher_dir, hidden=settings.losses.squarehead > 0)
    # As the student is, with autocast where it has it: a student that equals its teacher is at distance 0.
    teacher = job.strategy.load(
        job.teacher_dir, job.teacher_device or job.device, torch.float32, lambda module, _: _freeze(module)
    )
    if (job.teacher_device or job.device) == "cpu" and not job.strategy.spread:
        attend_by_document(teacher)
    return teacher.eval()


def bases_for(job: TrainJob, settings: TrainSettings) -> Bases | None:
    """The bases of a sliced student whose hidden states are compared with its teacher's; None for any other.

    Raises:
        SparsifyError: It is sliced and its bases were not kept.
    """
    kind = str(json.loads((job.model_dir / "config.json").read_text()).get("model_type", ""))
    if not settings.losses.squarehead or not kind.startswith(PREFIX):
        return None
    return read_bases(job.model_dir)


def _freeze(module: nn.Module) -> None:
    module.requires_grad_(False)


def check_tokenizers(student: Path, teacher: Path) -> None:
    """Refuse a teacher that reads other tokens than its student.

    Raises:
        SparsifyError: The vocabularies differ, or the same text becomes other tokens.
    """
    ours, theirs = load_tokenizer(student), load_tokenizer(teacher)
    fix = "use a teacher with the student's own tokenizer"
    vocabulary, other = ours.get_vocab(), theirs.get_vocab()
    differing = sorted(t for t in vocabulary.keys() | other.keys() if vocabulary.get(t) != other.get(t))
    if differing:
        token = differing[0]
        raise SparsifyError(
            f"teacher and student have different tokenizers: {len(differing)} tokens differ, such as {token!r} "
            f"({vocabulary.get(token)} against {other.get(token)}); {fix}"
        )
    if ours(_PROBE)["input_ids"] != theirs(_PROBE)["input_ids"]:
        raise SparsifyError(f"teacher and student split the same text into different tokens; {fix}")


def check_shapes(student: Path, teacher: Path, *, hidden: bool) -> None:
    """Refuse a teacher whose logits, or whose hidden states where they are compared, have other shapes.

    Raises:
        SparsifyError: They differ.
    """
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (student, teacher))
    for key in ("vocab_size", *(("num_hidden_layers", "hidden_size") if hidden else ())):
        if ours.get(key) != theirs.get(key):
            raise SparsifyError(
                f"the teacher's {key} is {theirs.get(key)}, the student's {ours.get(key)}; "
                "use the dense model that the student was made from"
            )
