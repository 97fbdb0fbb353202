"""What is trained, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsify.train.hooks import Adapter, Single, Strategy


@dataclass(frozen=True)
class TrainJob:
    """What to train, on what, and where.

    Attributes:
        model_dir: Starting checkpoint, an ordinary Hugging Face directory.
        out_dir: Where the result is written, in the dtype of the starting checkpoint, with its curves.
        work_dir: Where the state is kept that an interrupted run resumes from; removed at the end.
        corpus: JSONL files of rows (`sparsify.corpus`). Of a mixture, the files of the sources that are not streamed.
        teacher_dir: Checkpoint of the teacher; needed where a loss compares with one.
        masks: Per weight name the kept positions (True), same shape as the weight.
        device: Where the model is trained.
        teacher_device: Where the teacher runs; the model's device if not given.
        strategy: How the run is spread over processes.
        adapter: Added weights that are trained in place of the model's own.
    """

    model_dir: Path
    out_dir: Path
    work_dir: Path
    corpus: Sequence[Path]
    teacher_dir: Path | None = None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    device: str = "cpu"
    teacher_device: str | None = None
    strategy: Strategy = field(default_factory=Single)
    adapter: Adapter | None = None


@dataclass(frozen=True)
class TrainStats:
    """What a training run did; losses are means over the last tenth of its steps.

    Attributes:
        losses: total, as minimised, and each loss before it is weighted.
        chosen: What the dev split chose: {lr, step, dev}, and every trial; empty without `select`.
        merged: What merging adapters cost (`sparsify.train.lora.MergeReport`); empty without them.
        sources: Of a mixture, {source, sha256, tokens, epochs} of each source.
    """

    steps: int
    tokens: int
    seconds: float
    losses: dict[str, float]
    resumed_at: int
    chosen: dict[str, Any] = field(default_factory=dict)
    merged: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
