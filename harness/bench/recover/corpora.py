"""The training text of the benchmark, generated once: fine-tuning text by skill, and the pretraining mixture apart."""

from __future__ import annotations

import itertools
from pathlib import Path

from harness.bench.recover.settings import Settings
from harness.corpus import plain_rows, train_rows, write_rows

_FINETUNE_SEED, _PRETRAIN_SEED = 1, 301
_PRETRAIN = "pretrain-"


def corpus_file(name: str, settings: Settings, folder: Path) -> Path:
    """The file of a corpus: a skill or `mix` for fine-tuning and calibration, `pretrain-NAME` of the mixture.

    Pretraining text is drawn with another seed, so that the dev split of the fine-tuning is not what was pretrained on.
    """
    pretrain = name.startswith(_PRETRAIN)
    kind, seed = name.removeprefix(_PRETRAIN), _PRETRAIN_SEED if pretrain else _FINETUNE_SEED
    count = settings.pretrain_rows if pretrain else settings.rows
    path = folder / f"{name}-{count}.jsonl"
    if not path.exists():
        rows = plain_rows(seed=seed) if kind == "text" else train_rows(kind, seed=seed)
        write_rows(path, itertools.islice(rows, count))
    return path
