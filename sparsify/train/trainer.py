"""The masked trainer: pretraining, fine-tuning and sparse fine-tuning (dense is the case without a mask).

Masks follow Kurtic et al. 2023 (arXiv 2310.06927), but gradients of pruned weights are zeroed as well: masking only the
weights leaves AdamW moments on pruned slots alive and lets them pollute a clipped gradient norm.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsify.checkpoint import copy_companions
from sparsify.corpus import encode_rows, read_rows
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.progress import NullProgress, Progress
from sparsify.train.batches import Batch, collate, plan_steps
from sparsify.train.losses import cross_entropy, kl_divergence, squarehead
from sparsify.train.optim import make_optimizers
from sparsify.train.settings import TrainSettings

_SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class TrainJob:
    """What to train, on what, and where.

    Attributes:
        model_dir: Starting checkpoint, an ordinary Hugging Face directory.
        out_dir: Where the result is written, in the dtype of the starting checkpoint.
        work_dir: Where the state is kept that an interrupted run resumes from; removed at the end.
        corpus: JSONL files, see `sparsify.corpus`.
        teacher_dir: Checkpoint of the teacher; needed where a loss compares with one.
        masks: Per weight name the kept positions (True), same shape as the weight.
    """

    model_dir: Path
    out_dir: Path
    work_dir: Path
    corpus: Sequence[Path]
    teacher_dir: Path | None = None
    masks: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainStats:
    """What a training run did; losses are means over the last tenth of its steps."""

    steps: int
    tokens: int
    seconds: float
    losses: dict[str, float]
    resumed_at: int


def train(job: TrainJob, settings: TrainSettings, *, progress: Progress | None = None) -> TrainStats:
    """Train a model and write it to `job.out_dir`.

    Interrupted at any moment and started again with the same arguments, it continues from the last state saved in
    `job.work_dir` and takes the same steps.

    Raises:
        SparsifyError: A corpus is missing or empty, or a loss needs a teacher that was not given.
        NumericsError: The loss became non-finite.
    """
    run = _Run(job, settings)
    return run.execute(progress or NullProgress())


class _Run:
    def __init__(self, job: TrainJob, settings: TrainSettings) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.job, self.settings = job, settings
        tokenizer = AutoTokenizer.from_pretrained(job.model_dir)
        self.rows = encode_rows([row for path in job.corpus for row in read_rows(path)], tokenizer)
        self.steps = plan_steps([len(row.ids) for row in self.rows], settings)
        self.model = AutoModelForCausalLM.from_pretrained(job.model_dir, dtype=torch.float32)
        self.model.train()
        self.params: dict[str, Tensor] = dict(self.model.named_parameters())
        unknown = sorted(set(job.masks) - set(self.params))
        if unknown:
            raise SparsifyError(f"mask for {unknown[0]} fits no weight of {job.model_dir.name}; make the masks again")
        self.masks = {name: mask.to(torch.bool) for name, mask in job.masks.items()}
        self._apply_masks()
        self.teacher = self._load_teacher()
        self.optimizers = make_optimizers(self.params, settings)
        self.state = {"step": 0, "tokens": 0, "seconds": 0.0, "log": []}  # type: dict[str, Any]

    def _load_teacher(self) -> Any:
        if not self.settings.losses.needs_teacher:
            return None
        if self.job.teacher_dir is None:
            raise SparsifyError("losses kl and squarehead need a teacher; name one or set their weights to 0")
        from transformers import AutoModelForCausalLM

        teacher = AutoModelForCausalLM.from_pretrained(self.job.teacher_dir, dtype=torch.float32)
        return teacher.eval().requires_grad_(False)

    def execute(self, progress: Progress) -> TrainStats:
        resumed = self._resume()
        saved = time.monotonic()
        total = len(self.steps)
        for step in range(self.state["step"], total):
            began = time.monotonic()
            batch = collate(self.steps[step], self.rows, self.settings)
            losses = self._step(batch, self._lr_factor(step, total))
            if not math.isfinite(losses["total"]):
                raise NumericsError(f"the loss became {losses['total']} at step {step}; lower lr or set clip: 1.0")
            now = time.monotonic()
            self.state["step"] = step + 1
            self.state["tokens"] += int(batch.real.sum())
            self.state["seconds"] += now - began
            self.state["log"].append(losses)
            progress.update(step + 1, total, f"loss {losses['total']:.3f}")
            if now - saved > _SAVE_EVERY_S:
                self._save_state()
                saved = time.monotonic()
        self._check_masks()
        self._write_result()
        shutil.rmtree(self.job.work_dir, ignore_errors=True)
        tail = self.state["log"][-max(1, total // 10) :]
        means = {key: sum(entry[key] for entry in tail) / len(tail) for key in tail[0]} if tail else {}
        return TrainStats(total, self.state["tokens"], round(self.state["seconds"], 2), means, resumed)

    def _lr_factor(self, step: int, total: int) -> float:
        warmup = min(self.settings.warmup, max(1, total // 5))
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        if self.settings.schedule == "linear":
            return 1.0 - done
        return 0.5 * (1.0 + math.cos(math.pi * done)) if self.settings.schedule == "cosine" else 1.0

    def _step(self, batch: Batch, factor: float) -> dict[str, float]:
        total, parts = self._losses(batch)
        total.backward()
        for name, mask in self.masks.items():
            grad = self.params[name].grad
            if grad is not None:
                grad.masked_fill_(~mask, 0.0)
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(list(self.params.values()), self.settings.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._apply_masks()
        return {"total": float(total.detach()), **parts}

    def _losses(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        settings, weights = self.settings, self.settings.losses
        # Attention is causal and padding lies on the right, so no real token ever sees it: no mask is needed.
        states = self.model.base_model(
            input_ids=batch.ids, use_cache=False, output_hidden_states=weights.squarehead > 0
        )
        importance = batch.target[:, 1:].float()
        if settings.prompt_weight:
            importance = torch.where(batch.target[:, 1:], 1.0, settings.prompt_weight) * batch.real[:, 1:]
        chosen = importance > 0
        logits = self.model.get_output_embeddings()(states.last_hidden_state[:, :-1][chosen]).float()
        parts: dict[str, Tensor] = {}
        if weights.ce:
            parts["ce"] = weights.ce * cross_entropy(logits, batch.ids[:, 1:][chosen], importance[chosen])
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher.base_model(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
            if weights.squarehead:
                ours, theirs = states.hidden_states[1:], taught.hidden_states[1:]
                distance = squarehead(ours, theirs, batch.real, settings.squarehead_eps)
                parts["squarehead"] = weights.squarehead * distance
            if weights.kl:
                said = batch.target[:, 1:][chosen]
                wanted = self.teacher.get_output_embeddings()(taught.last_hidden_state[:, :-1][chosen][said]).float()
                parts["kl"] = weights.kl * kl_divergence(logits[said], wanted, settings.temperature)
        total = torch.stack(list(parts.values())).sum()
        return total, {name: float(part.detach()) for name, part in parts.items()}

    @torch.no_grad()
    def _apply_masks(self) -> None:
        for name, mask in self.masks.items():
            # masked_fill, not a product: w * 0 leaves -0.0 where w is negative.
            self.params[name].masked_fill_(~mask, 0.0)

    def _check_masks(self) -> None:
        for name, mask in self.masks.items():
            revived = int((self.params[name].detach()[~mask] != 0).sum())
            if revived:
                raise NumericsError(f"{revived} pruned weights of {name} came back during training")

    def _save_state(self) -> None:
        from safetensors.torch import save_file

        tensors = {f"param.{name}": param.detach() for name, param in self.params.items()}
        for index, optimizer in enumerate(self.optimizers):
            for key, state in optimizer.state_dict()["state"].items():
                for field_name, value in state.items():
                    tensors[f"optimizer.{index}.{key}.{field_name}"] = torch.as_tensor(value)
        work = self.job.work_dir
        work.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, work / "state.tmp", metadata=self._header())
        os.replace(work / "state.tmp", work / "state.safetensors")

    def _header(self) -> dict[str, str]:
        settings = self.settings.model_dump()
        return {"run": json.dumps(self.state), "settings": json.dumps(settings, sort_keys=True)}

    def _resume(self) -> int:
        path = self.job.work_dir / "state.safetensors"
        if not path.exists():
            return 0
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as stream:
                header = stream.metadata() or {}
                if header.get("settings") != self._header()["settings"]:
                    return 0
                tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a mapping)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged ({error}); remove it to train from the start") from None
        self.state = json.loads(header["run"])
        with torch.no_grad():
            for name, param in self.params.items():
                param.copy_(tensors[f"param.{name}"])
        for index, optimizer in enumerate(self.optimizers):
            self._load_optimizer(optimizer, f"optimizer.{index}.", tensors)
        return int(self.state["step"])

    @staticmethod
    def _load_optimizer(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        loaded = optimizer.state_dict()
        for key, value in tensors.items():
            if key.startswith(prefix):
                number, field_name = key[len(prefix) :].split(".", 1)
                loaded["state"].setdefault(int(number), {})[field_name] = value
        optimizer.load_state_dict(loaded)

    def _write_result(self) -> None:
        source_dtype = json.loads((self.job.model_dir / "config.json").read_text()).get("dtype", "float32")
        self.model.to(getattr(torch, source_dtype))
        self._apply_masks()
        self.job.out_dir.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(self.job.out_dir)
        copy_companions(self.job.model_dir, self.job.out_dir)
