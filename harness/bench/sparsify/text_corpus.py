"""Real text for the benchmark's own model: what is trained on, what is only calibrated on, what is only evaluated on.

Every source is cut into documents; of each 12 documents in turn one is held out of training. The held-out documents are
what methods are calibrated on and what errors of single linears are measured on. The evaluation text (the test split
of WikiText-2) is in neither: it is opened by `harness.bench.sparsify.measure` alone, after a variant is hashed.
"""

from __future__ import annotations

import hashlib
import json
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError

HELD_OUT_EVERY = 12
EVALUATION = "wikitext2_raw/wiki.test.raw"
_CODE_BYTES = 4_500_000
_CODE_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "pydoc_data"}
_HEADING = re.compile(r"^ = [^=].* = $", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """One source of text.

    Attributes:
        name: Folder and file under the data folder, or `stdlib`.
        documents: Reads the documents, given the data folder.
        epochs: How often its training part is seen.
    """

    name: str
    documents: Callable[[Path], Iterator[str]]
    epochs: int


def _articles(name: str) -> Callable[[Path], Iterator[str]]:
    def read(data: Path) -> Iterator[str]:
        text = _text(data / name)
        starts = [match.start() for match in _HEADING.finditer(text)] + [len(text)]
        for start, end in zip(starts, starts[1:], strict=False):
            yield text[start:end].strip()

    return read


def _lines(name: str) -> Callable[[Path], Iterator[str]]:
    return lambda data: (line.strip() for line in _text(data / name).splitlines() if line.strip())


def _pieces(name: str, characters: int) -> Callable[[Path], Iterator[str]]:
    def read(data: Path) -> Iterator[str]:
        piece: list[str] = []
        for paragraph in _text(data / name).split("\n\n"):
            piece.append(paragraph)
            if sum(map(len, piece)) > characters:
                yield "\n\n".join(piece)
                piece = []
        yield "\n\n".join(piece)

    return read


def _rows(name: str, fields: tuple[str, ...], every: int = 1) -> Callable[[Path], Iterator[str]]:
    def read(data: Path) -> Iterator[str]:
        text = _text(data / name)
        rows = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines() if line]
        for row in rows[::every]:
            yield "\n".join(str(row[field]) for field in fields if row.get(field))

    return read


def _stdlib(data: Path) -> Iterator[str]:
    """Python's own source, in the order of a hash of the path, up to a fixed size."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in root.rglob("*.py") if not _CODE_SKIPPED & set(path.relative_to(root).parts)]
    files.sort(key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest())
    size = 0
    for path in files:
        text = path.read_text("utf-8", errors="replace")
        size += len(text)
        if size > _CODE_BYTES:
            return
        yield text


SOURCES = (
    Source("wikitext2_raw/wiki.valid.raw", _articles("wikitext2_raw/wiki.valid.raw"), 2),
    Source("wikipedia_demo/wiki_demo.txt", _lines("wikipedia_demo/wiki_demo.txt"), 2),
    Source("c4_demo/c4_demo.jsonl", _rows("c4_demo/c4_demo.jsonl", ("text",)), 2),
    Source("tinyshakespeare/input.txt", _pieces("tinyshakespeare/input.txt", 4000), 2),
    Source(
        "dialogsum/dialogsum.dev.jsonl", _rows("dialogsum/dialogsum.dev.jsonl", ("dialogue", "summary", "topic")), 2
    ),
    Source(
        "alpaca_demo/alpaca_en_demo.json",
        _rows("alpaca_demo/alpaca_en_demo.json", ("instruction", "input", "output")),
        2,
    ),
    Source("gsm8k/train.jsonl", _rows("gsm8k/train.jsonl", ("question", "answer"), every=2), 1),
    Source("stdlib", _stdlib, 1),
)


def documents(data: Path, *, held_out: bool) -> Iterator[tuple[Source, str]]:
    """The documents of one part, source by source.

    Raises:
        ConfigError: A file is missing.
    """
    for source in SOURCES:
        for index, text in enumerate(source.documents(data)):
            if text and (index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out:
                yield source, text


def _text(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; --data names the folder with {path.parent.name}/{path.name}")
    return path.read_text("utf-8")
