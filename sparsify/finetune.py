"""The stages that train, pretrain and finetune: they hand a checkpoint, its masks and the corpora to the trainer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from sparsify.checkpoint import MASKS, open_checkpoint
from sparsify.errors import NumericsError, SparsifyError
from sparsify.masks import count_violations, load_masks
from sparsify.recipe import FinetuneStage, PretrainStage
from sparsify.stage import StageInput, StageResult, event

if TYPE_CHECKING:
    from torch import Tensor

    from sparsify.train.hooks import Adapter

# A dense checkpoint has a few exact zeros by rounding; above this share somebody pruned it.
_SPARSE = 0.05


def run_training(stage: PretrainStage | FinetuneStage, given: StageInput) -> StageResult:
    """Train `given.parent` into `given.out`; places that its masks prune stay exactly zero.

    Raises:
        SparsifyError: The model is quantized, or a corpus cannot be used.
        NumericsError: The loss became non-finite, or a pruned weight came back.
    """
    from sparsify.train import TrainJob, train
    from sparsify.train.launch import strategy_for

    if open_checkpoint(given.parent).is_quantized:
        raise SparsifyError(f"{given.parent} is quantized; train the unquantized model")
    masks = load_masks(given.parent)
    foreign = count_violations(masks, open_checkpoint(given.parent))
    if foreign:
        raise SparsifyError(
            f"{given.parent / MASKS} prunes {foreign} weights that are not zero: it is the mask of another model; "
            "put the right one there, or remove it to train all weights"
        )
    teachers = {"base": given.base, "dense": given.dense, "given": given.teacher, "none": None}
    strategy, device = strategy_for(given.device)
    if strategy.spread and given.teacher_device is not None:
        raise SparsifyError("a teacher on another device is for one process; torchrun shards it like the model")
    job = TrainJob(
        model_dir=given.parent,
        out_dir=given.out,
        work_dir=given.work,
        corpus=[given.corpora[source].path for source in stage.data],
        teacher_dir=teachers[stage.teacher],
        masks=masks,
        device=device,
        teacher_device=given.teacher_device,
        strategy=strategy,
        adapter=_adapter(stage, given, masks),
    )
    stats = train(job, stage.settings, progress=given.progress)
    if not strategy.main:
        return StageResult()
    if stage.gradual is not None:
        masks = load_masks(given.out)
    elif masks:
        shutil.copyfile(given.parent / MASKS, given.out / MASKS)
    violations = count_violations(masks, open_checkpoint(given.out))
    if violations:
        raise NumericsError(f"{violations} pruned weights came back in {given.out}; please report this")
    corpora = [
        {"source": source, "sha256": given.corpora[source].sha256, "tokens": stats.tokens} for source in stage.data
    ]
    if stats.sources:
        # Of a mixture it is known what was taken from each source; a stream is known by what was taken alone.
        known = {source: corpus.sha256 for source, corpus in given.corpora.items()}
        corpora = [
            {**{key: part[key] for key in ("source", "tokens")}, "sha256": known.get(part["source"], part["sha256"])}
            for part in stats.sources
        ]
    # How often a run was interrupted is no property of its result.
    numbers = {
        key: value
        for key, value in asdict(stats).items()
        if key not in ("resumed_at", "seconds") and value not in ({}, [])
    }
    teacher = teachers[stage.teacher]
    if teacher is not None:
        numbers["teacher_weights_sha256"] = open_checkpoint(teacher).weights_sha256
    events = [*_unpinned(stage), *(_unheld_zeros(given) if not masks else [])]
    return StageResult(numbers, corpora=corpora, events=events)


def _unpinned(stage: PretrainStage | FinetuneStage) -> list[dict[str, str]]:
    """An event for each stream whose content nothing fixes."""
    sources = stage.mixture if isinstance(stage, PretrainStage) else ()
    return [
        event("stream_unpinned", source.source, "no revision was given: another run may read other text")
        for source in sources
        if source.stream and source.revision is None
    ]


def _adapter(stage: PretrainStage | FinetuneStage, given: StageInput, masks: Mapping[str, Tensor]) -> Adapter | None:
    if stage.lora is None:
        return None
    from sparsify.train.lora import LoraAdapter

    return LoraAdapter(given.parent, masks, stage.lora, stage.seed)


def _unheld_zeros(given: StageInput) -> list[dict[str, str]]:
    """An event where the parent came sparse but without masks, so that training was free to fill its zeros."""
    parent = open_checkpoint(given.parent)
    matrices = [name for name, ref in parent.tensors.items() if len(ref.shape) == 2]
    zeros = sum(int((parent.read(name) == 0).sum()) for name in matrices)
    share = zeros / max(1, sum(parent.tensors[name].numel for name in matrices))
    if share < _SPARSE:
        return []
    detail = f"{100 * share:.1f} % of the weights were zero, but no {MASKS} says so: training did not hold them"
    return [event("zeros_not_held", given.parent.name, detail)]
