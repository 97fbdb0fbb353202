"""The finetune stage: hands a checkpoint, its masks and the corpora to the trainer."""

from __future__ import annotations

import shutil
from dataclasses import asdict

from sparsify.checkpoint import MASKS, open_checkpoint
from sparsify.errors import NumericsError, SparsifyError
from sparsify.files import plain_os_errors
from sparsify.masks import count_violations, load_masks
from sparsify.recipe import FinetuneStage
from sparsify.stage import StageInput, StageResult


def run_finetune(stage: FinetuneStage, given: StageInput) -> StageResult:
    """Train `given.parent` into `given.out`; places that its masks prune stay exactly zero.

    Raises:
        SparsifyError: The model is quantized, or a corpus cannot be used.
        NumericsError: The loss became non-finite, or a pruned weight came back.
    """
    from sparsify.train import TrainJob, train

    if open_checkpoint(given.parent).is_quantized:
        raise SparsifyError(f"{given.parent} is quantized; train the unquantized model")
    masks = load_masks(given.parent)
    job = TrainJob(
        model_dir=given.parent,
        out_dir=given.out,
        work_dir=given.work,
        corpus=[given.corpora[source].path for source in stage.data],
        teacher_dir=given.base if stage.teacher == "base" else None,
        masks=masks,
    )
    with plain_os_errors():
        stats = train(job, stage.settings, progress=given.progress)
    if masks:
        shutil.copyfile(given.parent / MASKS, given.out / MASKS)
    violations = count_violations(masks, open_checkpoint(given.out))
    if violations:
        raise NumericsError(f"{violations} pruned weights came back in {given.out}; please report this")
    corpora = [
        {"source": source, "sha256": given.corpora[source].sha256, "tokens": stats.tokens} for source in stage.data
    ]
    # How often a run was interrupted is no property of its result.
    numbers = {key: value for key, value in asdict(stats).items() if key not in ("resumed_at", "seconds")}
    return StageResult(numbers, corpora=corpora)
