"""The models that methods are tried on, each with its calibration text, its probe and its evaluation text."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.sparsify.text_corpus import EVALUATION, documents
from harness.bench.sparsify.windows import cut, window_rows
from harness.corpus import write_rows
from harness.errors import ConfigError

_POCKET_ROWS = 1200
_POCKET_SEEDS = {"calibration": 900, "evaluation": 990}


@dataclass(frozen=True)
class Settings:
    """What is the same for every arm.

    Attributes:
        samples: Calibration windows.
        seq: Tokens of a calibration window.
        probe: Windows on which the errors of single linears are measured.
        context: Tokens of an evaluation window.
        eval_tokens: How much of an evaluation text is read, from its beginning.
        repeats: Counted rounds of the timed arms.
    """

    samples: int = 128
    seq: int = 512
    probe: int = 32
    context: int = 512
    eval_tokens: int = 32_768
    repeats: int = 3


class EvaluationText:
    """A text that is opened only when a variant with a hash is there to be measured on it."""

    def __init__(self, name: str, read: Callable[[], str], tokenizer: Any, settings: Settings) -> None:
        """Remember where the text is."""
        self.name = name
        self._read, self._tokenizer, self._settings = read, tokenizer, settings
        self._windows: list[list[int]] | None = None

    def windows(self, variant_sha256: str) -> list[list[int]]:
        """The windows, for a variant that is finished and hashed.

        Raises:
            ValueError: There is no hash yet.
        """
        if not variant_sha256:
            raise ValueError("evaluation text stays closed until the variant is hashed")
        if self._windows is None:
            ids = self._tokenizer(self._read(), add_special_tokens=False)["input_ids"]
            self._windows = cut(ids, self._settings.context, self._settings.eval_tokens)
        return self._windows


@dataclass(frozen=True)
class Subject:
    """A dense model and its texts.

    Attributes:
        name: As tables call it.
        directory: The model.
        tokenizer: Its tokenizer.
        calibration: JSONL of windows that methods are calibrated on.
        probe: JSONL of windows for the errors of single linears.
        texts: Evaluation texts; the first one is what claims are about.
        says: What calibration and training text is, in words.
    """

    name: str
    directory: Path
    tokenizer: Any
    calibration: Path
    probe: Path
    texts: tuple[EvaluationText, ...]
    says: str


def open_subject(name: str, directory: Path, *, data: Path, work: Path, settings: Settings) -> Subject:
    """A model with its corpora written to `work`.

    Raises:
        ConfigError: A text is missing.
    """
    from sparsify.blocks import load_tokenizer

    tokenizer = load_tokenizer(directory)
    calibration, probe = work / f"{name}-calibration.jsonl", work / f"{name}-probe.jsonl"
    written = calibration.exists() and probe.exists()
    sources: list[str] = []
    wikitext = EvaluationText("wikitext2", lambda: _read(data / EVALUATION), tokenizer, settings)
    if name == "pocket":
        # A row has 20 tokens or more.
        rows = min(_POCKET_ROWS, max(60, settings.eval_tokens // 20))
        pocket = EvaluationText("pocket text", lambda: _pocket_text(tokenizer, "evaluation", rows), tokenizer, settings)
        sources = [] if written else [_pocket_text(tokenizer, "calibration")]
        # Real text means nothing to this model: its dense perplexity on WikiText-2 is above 20,000.
        texts, says = (pocket,), "training text of the pocket skills, rows drawn anew, joined and cut"
    else:
        sources = [] if written else [text for _, text in documents(data, held_out=True)]
        random.Random(0).shuffle(sources)
        texts = (wikitext,)
        says = "documents held out of the text model's training text, joined and cut"
    if not written:
        windows = window_rows(sources, tokenizer, settings.seq, name)
        write_rows(probe, itertools.islice(windows, settings.probe))
        write_rows(calibration, windows)
    return Subject(name, directory, tokenizer, calibration, probe, texts, says)


def calibration_windows(subject: Subject, settings: Settings, seed: int) -> list[tuple[int, ...]]:
    """The very windows that a recipe with this seed is calibrated on.

    Raises:
        ConfigError: There are too few, or one is too short.
    """
    return _drawn(subject.calibration, subject.tokenizer, settings.samples, settings.seq, seed)


def probe_windows(subject: Subject, settings: Settings) -> list[tuple[int, ...]]:
    """The windows that the errors of single linears are measured on."""
    return _drawn(subject.probe, subject.tokenizer, settings.probe, settings.seq, 0)


def _drawn(path: Path, tokenizer: Any, samples: int, seq: int, seed: int) -> list[tuple[int, ...]]:
    from sparsify.calibration import draw_sequences
    from sparsify.recipe import Calibration

    drawn = draw_sequences(path, tokenizer, Calibration(source=path.name, samples=samples, seq=seq, seed=seed))
    if len(drawn) < samples or min(map(len, drawn)) < seq:
        raise ConfigError(f"{path} gives {len(drawn)} windows, not {samples} of {seq} tokens each; remove it")
    return drawn


def _pocket_text(tokenizer: Any, part: str, rows: int = _POCKET_ROWS) -> str:
    return "".join(itertools.islice(_pocket_rows(tokenizer, _POCKET_SEEDS[part]), rows))


def _pocket_rows(tokenizer: Any, seed: int) -> Iterator[str]:
    from harness.corpus import train_rows
    from sparsify.corpus import pieces

    for row in train_rows("mix", seed=seed):
        yield "".join(text for text, _ in pieces(row, tokenizer))


def _read(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; --data names the folder with {path.parent.name}/{path.name}")
    return path.read_text("utf-8")
