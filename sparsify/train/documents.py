"""Documents of a pretraining source, one after the other, from any position: a file, or a data set that is streamed."""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from sparsify.corpus import encode_rows
from sparsify.dataset import open_stream, text_column
from sparsify.errors import SparsifyError
from sparsify.train.settings import MixtureSource

_TEXT_SUFFIXES = (".txt", ".md", ".text", ".raw", ".py")
_PIECE = 1 << 16  # characters; longer plain text is cut at the next line end, each piece a document of its own


class Documents(Protocol):
    """An endless sequence of documents, epoch after epoch."""

    def next(self) -> list[int]:
        """Tokens of the next document, its end-of-text token among them."""

    def position(self) -> dict[str, Any]:
        """Where the next document is, as JSON values; `epoch` is among them."""

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a position that `position` gave."""


class FileDocuments:
    """Documents of a file, in another order each epoch: rows of JSONL, or pieces of plain text.

    A row is `{"text"}` or `{"content"}` (as code data sets have it), or one of `sparsify.corpus`, of which prompt and
    answer are one document. Only the places of the rows are in memory.
    """

    def __init__(self, path: Path, tokenizer: Any, seed: int, chosen: Callable[[bytes], bool]) -> None:
        """Find the documents of `path` for which `chosen` is true of their bytes.

        Raises:
            SparsifyError: The file is missing, not UTF-8 or has no such document.
        """
        if not path.is_file():
            raise SparsifyError(f"pretraining text {path} does not exist; give a JSONL or text file")
        self._path, self._tokenizer, self._seed = path, tokenizer, seed
        self._plain = path.suffix.lower() in _TEXT_SUFFIXES
        self._places = array("Q")
        with path.open("rb") as stream:
            at = 0
            for piece in _pieces(stream) if self._plain else stream:
                if piece.strip() and chosen(piece):
                    self._places.extend((at, len(piece)))
                at += len(piece)
        if not self._places:
            raise SparsifyError(f"pretraining text {path} is empty; it needs at least one document")
        self._epoch, self._at = 0, 0
        self._order = self._shuffled()

    def next(self) -> list[int]:
        """Tokens of the next document."""
        if self._at == len(self._order):
            self._epoch, self._at = self._epoch + 1, 0
            self._order = self._shuffled()
        index = self._order[self._at]
        self._at += 1
        start, size = self._places[2 * index], self._places[2 * index + 1]
        with self._path.open("rb") as stream:
            stream.seek(start)
            return self._tokens(stream.read(size), start)

    def position(self) -> dict[str, Any]:
        """Epoch and place in its order."""
        return {"epoch": self._epoch, "at": self._at}

    def seek(self, position: dict[str, Any]) -> None:
        """Go to an epoch and a place in its order."""
        if position["epoch"] != self._epoch:
            self._epoch = position["epoch"]
            self._order = self._shuffled()
        self._at = position["at"]

    def _shuffled(self) -> list[int]:
        order = list(range(len(self._places) // 2))
        random.Random(f"{self._seed}/{self._epoch}").shuffle(order)
        return order

    def _tokens(self, piece: bytes, start: int) -> list[int]:
        try:
            text = piece.decode("utf-8")
            row = {"text": text} if self._plain else json.loads(text)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise SparsifyError(f"{self._path}, byte {start}: {error}; repair or remove the line") from None
        if not isinstance(row, dict):
            raise SparsifyError(f"{self._path}, byte {start}: no JSON object; repair or remove the line")
        for column in ("text", "content"):
            if isinstance(row.get(column), str):
                return encode_document(row[column], self._tokenizer)
        if not ("messages" in row or {"prompt", "completion"} <= row.keys()):
            raise SparsifyError(
                f"{self._path}, byte {start}: a row needs `text`, `content`, `messages` or `prompt` and `completion`"
            )
        return list(encode_rows([row], self._tokenizer)[0].ids)


class StreamDocuments:
    """Documents of a hub data set that is read as it is needed and never kept; in the order in which it is stored."""

    def __init__(self, source: MixtureSource, tokenizer: Any, chosen: Callable[[bytes], bool]) -> None:
        """Open the stream.

        Raises:
            SparsifyError: The data set cannot be opened.
        """
        self._source, self._tokenizer, self._chosen = source, tokenizer, chosen
        self._data = open_stream(source.source, revision=source.revision)
        self._epoch = 0
        self._rows: Iterator[Any] = iter(self._data)
        self._column = source.column

    def next(self) -> list[int]:
        """Tokens of the next document."""
        begun = 0
        while True:
            row = next(self._rows, None)
            if row is None:
                begun += 1
                if begun == 2:
                    raise SparsifyError(f"{self._source.source} has no document to train on")
                self._epoch += 1
                # A stream that has ended begins again from its first row.
                self._data = open_stream(self._source.source, revision=self._source.revision)
                self._rows = iter(self._data)
                continue
            self._column = self._column or text_column(row, self._source.source)
            text = str(row.get(self._column) or "")
            if text.strip() and self._chosen(text.encode()):
                return encode_document(text, self._tokenizer)

    def position(self) -> dict[str, Any]:
        """Epoch, and the place in the shards as `datasets` says it."""
        return {"epoch": self._epoch, "state": self._data.state_dict()}

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a place in the shards without reading the rows before it, as far as the format allows."""
        self._epoch = position["epoch"]
        self._data.load_state_dict(position["state"])
        self._rows = iter(self._data)


def encode_document(text: str, tokenizer: Any) -> list[int]:
    """Tokens of a document as the tokenizer begins one (with its BOS where it adds one), and the end-of-text token."""
    ids: list[int] = list(tokenizer(text)["input_ids"])
    end = tokenizer.eos_token_id
    return ids if end is None or (ids and ids[-1] == end) else [*ids, end]


def split_of(share: float) -> tuple[Callable[[bytes], bool], Callable[[bytes], bool]]:
    """Which documents are trained on and which are kept for the dev split, by the hash of their bytes.

    The same document met twice is on the same side both times.
    """

    def held(document: bytes) -> bool:
        return int.from_bytes(hashlib.sha256(document.strip()).digest()[:4], "big") < share * 2**32

    return (lambda document: not held(document)), held


def _pieces(stream: Any) -> Iterator[bytes]:
    piece: list[bytes] = []
    size = 0
    for line in stream:
        piece.append(line)
        size += len(line)
        if size >= _PIECE:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)
