"""Recipe -> variant: runs the missing stages, each kept under a key that says everything it depends on.

Importing this module does not import torch, so that a plan can ask which stages are finished.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsify.checkpoint import BASES, MASKS, Checkpoint, companions, model_fingerprint, open_checkpoint, write_index
from sparsify.corpus import sha256_file
from sparsify.errors import CheckpointError, NumericsError, RecipeError, SparsifyError
from sparsify.files import commit, empty_directory, sha256_json
from sparsify.progress import NullProgress, Progress
from sparsify.recipe import CUTTING, Recipe, Stage, recipe_hash
from sparsify.stage import Corpus, StageInput, StageResult
from sparsify.store import StageRecord, Store
from sparsify.variant import VARIANT, Lineage, RecipeRecord, VariantInfo, describe, read_variant, write_variant

# Raise a number when a stage's code changes what it computes: results of the old code are then made again.
STAGE_VERSIONS: Mapping[str, int] = {"slice": 2, "prune": 3, "pretrain": 2, "finetune": 2, "quantize": 2}


@dataclass(frozen=True)
class MakeOptions:
    """What `make_variant` needs beside the model and the recipe.

    Attributes:
        store: Directory of finished stages, shared by all variants of a study.
        name: What the variant is called.
        base: What the model is called that the recipe starts from.
        baseline: The variant that this one is to be compared with.
        resolve_corpus: Turns the name of a corpus into a JSONL file; the default takes paths only.
        model_sha256: `model_fingerprint` of the model, where the caller knows it already.
        teacher_dir: Model that stages with `teacher: given` learn from.
        device: Where tensors are computed.
        teacher_device: Where a teacher runs; None = on `device`.
    """

    store: Path
    name: str
    base: str
    baseline: str | None = None
    resolve_corpus: Callable[[str], Path] | None = None
    model_sha256: str | None = None
    teacher_dir: Path | None = None
    device: str = "cpu"
    teacher_device: str | None = None


def key_of(
    model_sha256: str, recipe: Recipe, corpora: Mapping[str, str], teacher_sha256: str | None = None
) -> tuple[str, ...]:
    """The keys of the recipe's stages, in order.

    A key hashes the key of what comes before, the stage with every default, the corpora's contents and the version of
    the stage's code; equal keys mean equal results.

    Args:
        model_sha256: `model_fingerprint` of the model that the recipe starts from.
        recipe: The recipe.
        corpora: SHA-256 of each corpus file by its name in the recipe (`recipe.sources`).
        teacher_sha256: `model_fingerprint` of the given teacher, where a stage learns from one.
    """
    keys: list[str] = []
    parent = model_sha256
    for stage in recipe.stages:
        inputs = {
            "parent": parent,
            "stage": stage.resolved(),
            "corpora": [corpora[source] for source in stage.sources],
            "version": STAGE_VERSIONS[stage.kind],
        }
        if stage.training is not None and stage.training.teacher == "given":
            inputs["teacher"] = teacher_sha256
        parent = sha256_json(inputs)
        keys.append(parent)
    return tuple(keys)


def make_variant(
    model_dir: Path, recipe: Recipe, out_dir: Path, *, options: MakeOptions, progress: Progress | None = None
) -> VariantInfo:
    """Make the variant that `recipe` describes in `out_dir`.

    Stages that are in the store already are not run again; an interrupted one continues where it was. `out_dir` appears
    complete or not at all, and is left alone where it already holds this very variant.

    Raises:
        SparsifyError: The model, the recipe or the output folder cannot be used.
        NumericsError: A stage met values that it cannot continue from, or a pruned weight is not zero in the end.
        OSError: A write failed, a full disk among the causes.
    """
    progress = progress or NullProgress()
    if recipe.needs_teacher and options.teacher_dir is None:
        raise RecipeError(f"recipe {recipe.name} learns from a given teacher; name one (--teacher, or `teacher:`)")
    resolve = options.resolve_corpus or local_corpus
    corpora = {source: _corpus(source, resolve(source)) for source in recipe.sources}
    model_sha = options.model_sha256 or model_fingerprint(model_dir)
    teacher = options.teacher_dir if recipe.needs_teacher else None
    teacher_sha = model_fingerprint(teacher) if teacher is not None else None
    keys = key_of(model_sha, recipe, {source: corpus.sha256 for source, corpus in corpora.items()}, teacher_sha)
    _check_target(out_dir, model_dir)
    store = Store(options.store)
    parent, dense, records = model_dir, None, []
    for index, (stage, key) in enumerate(zip(recipe.stages, keys, strict=True)):
        part = _Part(progress, index, len(recipe.stages))
        if dense is None and stage.kind in CUTTING:
            dense = parent
        given = StageInput(
            parent=parent,
            base=model_dir,
            teacher=teacher,
            out=store.part(key),
            work=store.work(key),
            corpora=corpora,
            device=options.device,
            progress=part,
            teacher_device=options.teacher_device,
            dense=dense,
        )
        records.append(_stage(store, key, stage, given))
        parent = store.path(key)
        part.update(1, 1, f"{stage.kind} ready")
    existing = _existing(out_dir, recipe, options, parent, keys)
    if existing is not None:
        return existing
    return _write_variant(parent, out_dir, recipe, options, records)


def local_corpus(source: str) -> Path:
    """The file of a corpus that is named by its path.

    Raises:
        RecipeError: There is no such file.
    """
    path = Path(source)
    if not path.is_file():
        raise RecipeError(f"corpus {source!r} is not a file; give a path here (suite: and hub: names need the harness)")
    return path


def execute(stage: Stage, given: StageInput) -> StageResult:
    """Run one stage."""
    if stage.slice is not None:
        from sparsify.slicegpt.stage import run_slice

        return run_slice(stage.slice, given)
    if stage.prune is not None:
        from sparsify.prune.stage import run_prune

        return run_prune(stage.prune, given)
    if stage.training is not None:
        from sparsify.finetune import run_training
        from sparsify.train.launch import announce

        announce({"stage": stage.resolved(), "given": given.plain()})
        return run_training(stage.training, given)
    assert stage.quantize is not None
    from sparsify.quantize.stage import run_quantize

    return run_quantize(stage.quantize, given)


def join(device: str) -> None:
    """Take part in the stages of `make_variant` that train, as one of several processes that rank 0 leads.

    Call it inside `sparsify.train.launch.crew` on every process that does not lead; it returns when the leader is done.

    Raises:
        SparsifyError: As `make_variant`; also where a path of rank 0 does not exist for this process.
    """
    from sparsify.train.launch import follow

    def train(task: Mapping[str, Any]) -> None:
        given = StageInput.from_plain(task["given"], device)
        missing = next((path for path in (given.parent, given.base) if not path.is_dir()), None)
        if missing is not None:
            raise SparsifyError(f"{missing} is not here; all machines need a file system that they share")
        stage = Stage.model_validate(task["stage"])
        assert stage.training is not None
        from sparsify.finetune import run_training

        run_training(stage.training, given)

    follow(train)


def _stage(store: Store, key: str, stage: Stage, given: StageInput) -> StageRecord:
    with store.lock(key):
        finished = store.find(key)
        if finished is not None:
            return finished
        empty_directory(given.out)
        began = time.monotonic()
        result = execute(stage, given)
        seconds = round(time.monotonic() - began, 2)
        weights = open_checkpoint(given.out).weights_sha256
        record = StageRecord(key=key, kind=stage.kind, seconds=seconds, weights_sha256=weights, result=asdict(result))
        store.finish(record)
        return record


def _corpus(source: str, path: Path) -> Corpus:
    if not path.is_file():
        raise SparsifyError(f"corpus {source!r} was resolved to {path}, which does not exist")
    return Corpus(source, path, sha256_file(path))


def _check_target(out_dir: Path, model_dir: Path) -> None:
    if out_dir.resolve() == model_dir.resolve():
        raise SparsifyError(f"{out_dir} is the model itself; choose another output folder")
    foreign = out_dir.exists() and not (out_dir / VARIANT).is_file()
    if foreign and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise SparsifyError(f"{out_dir} exists and is not a variant; choose another output folder or remove it")


def _existing(
    out_dir: Path, recipe: Recipe, options: MakeOptions, parent: Path, keys: tuple[str, ...]
) -> VariantInfo | None:
    if not (out_dir / VARIANT).is_file():
        return None
    try:
        info = read_variant(out_dir)
        same = open_checkpoint(out_dir).weights_sha256 == info.weights_sha256 == open_checkpoint(parent).weights_sha256
    except CheckpointError:
        return None
    said = (info.name, info.base, info.baseline, info.recipe and (info.recipe.name, info.recipe.hash))
    asked = (options.name, options.base, options.baseline, (recipe.name, recipe_hash(recipe)))
    made = tuple(stage["key"] for stage in info.stages)
    return info if same and said == asked and made == keys else None


def _write_variant(
    parent: Path, out_dir: Path, recipe: Recipe, options: MakeOptions, records: list[StageRecord]
) -> VariantInfo:
    source = open_checkpoint(parent)
    if records and source.weights_sha256 != records[-1].weights_sha256:
        raise CheckpointError(f"{parent} was changed after it was made; remove that folder and run again")
    lineage = Lineage(
        recipe=RecipeRecord(name=recipe.name, hash=recipe_hash(recipe), stages=recipe.resolved()["stages"]),
        calibration=tuple(entry for record in records for entry in record.result["calibration"]),
        corpora=tuple(entry for record in records for entry in record.result["corpora"]),
        events=tuple(entry for record in records for entry in record.result["events"]),
        stages=tuple(record.summary() for record in records),
    )
    part = empty_directory(out_dir.parent / f".{out_dir.name}.part")
    _copy_model(source, part)
    for number, record in enumerate(records, start=1):
        _copy_curves(Store(options.store).path(record.key), part, f"{number}-{record.kind}")
    info = describe(part, name=options.name, base=options.base, baseline=options.baseline, lineage=lineage)
    if info.masks is not None and info.masks.revived:
        raise NumericsError(f"{info.masks.revived} pruned weights are not zero in the variant; please report this")
    write_variant(info, part)
    if out_dir.exists():
        # Moved aside first, so that a kill in between leaves no half-removed variant under its name.
        old = empty_directory(out_dir.parent / f".{out_dir.name}.old")
        commit(out_dir, old)
        commit(part, out_dir)
        shutil.rmtree(old)
    else:
        commit(part, out_dir)
    return info


def _copy_model(source: Checkpoint, target: Path) -> None:
    # Copies, not links: a tool that saves over a variant in place must not reach into the store or the base model.
    for path in (*source.files, source.path / "config.json", *companions(source.path)):
        shutil.copyfile(path, target / path.name)
    for name in (MASKS, BASES):
        if (source.path / name).exists():
            shutil.copyfile(source.path / name, target / name)
    write_index(target, [path.name for path in source.files])


def _copy_curves(stage: Path, target: Path, name: str) -> None:
    """Copy what a training stage recorded of itself: curves, their picture, TensorBoard's files."""
    for path in (stage / "curves.jsonl", stage / "curves.svg"):
        if path.is_file():
            shutil.copyfile(path, target / f"{path.stem}-{name}{path.suffix}")
    if (stage / "tensorboard").is_dir():
        shutil.copytree(stage / "tensorboard", target / f"tensorboard-{name}")


class _Part:
    """Progress of one stage as a part of all stages."""

    def __init__(self, whole: Progress, index: int, count: int) -> None:
        self._whole, self._index, self._count = whole, index, count

    def update(self, done: float, total: float, note: str = "") -> None:
        """Pass on, in units of stages."""
        self._whole.update(self._index + (done / total if total else 0.0), self._count, note)
