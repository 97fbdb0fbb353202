"""One arm: made, hashed, and then measured: perplexity, skills, size and work per token, in one JSON line."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.skills import Examiner, Part, Send, or_error
from harness.bench.slicing.arms import LIKE, OTHER, Arm
from harness.bench.slicing.settings import Settings
from harness.bench.sparsify.subjects import Settings as TextSettings
from harness.bench.sparsify.subjects import open_subject
from harness.layout import Layout
from sparsify.files import sha256_json

_MADE, _READ = 0.5, 0.6
"""Shares of an arm's progress after it is made, and after its perplexity is measured."""
_POCKET_SEEDS = {"train": 1, LIKE: 2, OTHER: 3}


@dataclass(frozen=True)
class Place:
    """Where a run keeps what.

    Attributes:
        models: Folder of each model by its name.
        data: Folder of real text, for the model `text`.
        work: Folder of corpora, stages, variants and answers.
        engine: What executes variants when skills are measured.
        threads: CPU threads of each process.
    """

    models: Mapping[str, Path]
    data: Path
    work: Path
    engine: str
    threads: int = 1

    def layout(self, model: str) -> Layout:
        """Folders of one model."""
        return Layout(self.work / model)


@dataclass(frozen=True)
class SliceTask:
    """Make and measure one arm; started again, it does what is missing."""

    arm: Arm
    settings: Settings
    place: Place

    @property
    def name(self) -> str:
        """How progress calls it."""
        return self.arm.name

    def run(self, send: Send) -> dict[str, Any]:
        """The arm's line, or `{"error"}` where it failed.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        return or_error(lambda: self._run(send))

    def _run(self, send: Send) -> dict[str, Any]:
        import torch

        from harness.bench.sparsify.windows import window_losses
        from sparsify.blocks import load_model
        from sparsify.recipe import parse_recipe
        from sparsify.run import STAGE_VERSIONS, MakeOptions, make_variant
        from suites.registry import SUITES

        torch.set_num_threads(self.place.threads)
        recipe = self.arm.recipe(self.settings)
        layout = self.place.layout(self.arm.model)
        # With other settings it is another variant, whose answers must not be mistaken for this one's.
        known = sha256_json(asdict(self.settings))[:6]
        folder = f"{re.sub(r'[^A-Za-z0-9]+', '-', self.arm.name)}-{known}"
        began = time.monotonic()
        info = make_variant(
            self.place.models[self.arm.model],
            parse_recipe(recipe, name=self.arm.name, where=self.arm.name),
            layout.variant(folder),
            options=MakeOptions(
                store=layout.store,
                name=folder,
                base=self.arm.model,
                resolve_corpus=lambda name: corpus_file(self.arm.model, name, self.settings, self.place),
            ),
            progress=Part(send, 0.0, _MADE),
        )
        made = time.monotonic()
        subject = prepare(self.arm.model, self.settings, self.place)
        model = load_model(layout.variant(folder))
        texts = {text.name: window_losses(model, text.windows(info.weights_sha256)) for text in subject.texts}
        del model
        Part(send, _MADE, _READ - _MADE).update(1, 1, "perplexity measured")
        scores: dict[str, Any] = {}
        if self.arm.skilled:
            examiner = Examiner(
                items=self.settings.items,
                batch=self.settings.batch,
                engine=self.place.engine,
                threads=self.place.threads,
                layout=layout,
            )
            scores = examiner.measure(
                layout.variant(folder),
                tuple(SUITES),
                lambda start, share: Part(send, _READ + (1 - _READ) * start, (1 - _READ) * share),
            )
        return {
            "recipe": recipe,
            "versions": dict(STAGE_VERSIONS),
            "variant_sha256": info.weights_sha256,
            "parameters": info.parameters,
            "bytes": info.bytes,
            "macs_per_token": info.macs_per_token,
            "zeros": info.sparsity.linears,
            "bits": info.weight_bits,
            "loaders": info.loaders,
            "stages": [dict(stage) for stage in info.stages],
            "events": [event.model_dump() for event in info.events],
            "nats_per_token": {name: [round(loss, 6) for loss in losses] for name, losses in texts.items()},
            "context": self.settings.context,
            "scores": scores,
            "engine": self.place.engine,
            "make_seconds": round(made - began, 1),
            "measure_seconds": round(time.monotonic() - made, 1),
        }


def prepare(model: str, settings: Settings, place: Place) -> Any:
    """Write all text of a model, before workers read it; returns its evaluation texts' subject.

    Raises:
        ConfigError: Real text is missing.
    """
    corpora = place.layout(model).corpora
    corpora.mkdir(parents=True, exist_ok=True)
    for name in ("train", LIKE, OTHER):
        corpus_file(model, name, settings, place)
    windows = TextSettings(
        samples=settings.samples, seq=settings.seq, context=settings.context, eval_tokens=settings.eval_tokens
    )
    return open_subject(model, place.models[model], data=place.data, work=corpora, settings=windows)


def corpus_file(model: str, name: str, settings: Settings, place: Place) -> Path:
    """The file of a corpus, written if it is not there.

    `like` is text like that of the evaluation: rows of the five skills, or articles; `other` is what the model was
    trained on beside it: plain generated text, or web pages, dialogues and Python. `train` is what the recovery
    fine-tuning reads: rows drawn apart for pocket, all of the training text for the text model.

    Raises:
        ConfigError: Real text is missing.
    """
    from harness.corpus import plain_rows, train_rows, write_rows

    folder = place.layout(model).corpora
    path = folder / f"{name}.jsonl"
    if path.exists():
        return path
    if model == "pocket":
        seed = _POCKET_SEEDS[name]
        rows = plain_rows(seed=seed) if name == OTHER else train_rows("mix", seed=seed)
        write_rows(path, itertools.islice(rows, settings.rows if name == "train" else settings.rows // 3))
    else:
        write_rows(path, _text_rows(model, name, place))
    return path


def _text_rows(model: str, name: str, place: Place) -> Any:
    from harness.bench.sparsify.text_corpus import documents
    from harness.bench.sparsify.windows import window_rows
    from sparsify.blocks import load_tokenizer

    tokenizer = load_tokenizer(place.models[model])
    wanted = {LIKE: _is_article, OTHER: lambda source: not _is_article(source), "train": lambda _source: True}[name]
    texts = [text for source, text in documents(place.data, held_out=False) if wanted(source.name)]
    random.Random(0).shuffle(texts)
    return window_rows(texts, tokenizer, 512, f"text/{name}")


def _is_article(source: str) -> bool:
    return "wiki" in source
