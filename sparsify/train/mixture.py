"""Pretraining batches: sequences packed from documents of several sources, in the proportions of the recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsify.corpus import sha256_file
from sparsify.errors import SparsifyError
from sparsify.files import sha256_json
from sparsify.train.batches import Batch
from sparsify.train.documents import Documents, FileDocuments, StreamDocuments, split_of
from sparsify.train.settings import PretrainSettings


@dataclass(frozen=True)
class Window:
    """One packed sequence.

    Attributes:
        ids: Tokens.
        positions: Of each token in its document, from 0 where a document begins or goes on from the window before.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]


class Packer:
    """Cuts the documents of a source, joined in order, into windows of `seq` tokens; no token is lost or repeated."""

    def __init__(self, documents: Documents, seq: int) -> None:
        """Pack `documents`."""
        self._documents, self._seq = documents, seq
        self._before = documents.position()
        self._current: list[int] = []
        self._used = 0  # of the current document's tokens

    def next(self) -> Window:
        """The next window."""
        ids: list[int] = []
        positions: list[int] = []
        while len(ids) < self._seq:
            if self._used == len(self._current):
                self._before = self._documents.position()
                self._current, self._used = self._documents.next(), 0
            part = self._current[self._used : self._used + self._seq - len(ids)]
            ids += part
            positions += range(len(part))
            self._used += len(part)
        return Window(tuple(ids), tuple(positions))

    def position(self) -> dict[str, Any]:
        """Where the document begins that is being cut, and how much of it is used."""
        return {"documents": self._before, "used": self._used}

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a position that `position` gave."""
        self._documents.seek(position["documents"])
        self._before = self._documents.position()
        self._current, self._used = [], 0
        if position["used"]:
            self._current, self._used = self._documents.next(), position["used"]


class MixtureData:
    """A `Data` of packed windows. At every point each source has given its share of the windows, to one window."""

    def __init__(self, files: Sequence[Path], tokenizer: Any, settings: PretrainSettings) -> None:
        """Open the sources.

        Args:
            files: Of the sources that are not streamed, in the order of the mixture.
            tokenizer: Of the model.
            settings: The mixture and the budget.

        Raises:
            SparsifyError: A source cannot be read, or has less text than its part of a batch.
        """
        self._settings = settings
        self._rows = settings.batch_tokens // settings.seq
        self.steps = -(-settings.tokens // (self._rows * settings.seq))
        whole = sum(source.share for source in settings.mixture)
        self._shares = [source.share / whole for source in settings.mixture]
        self._drawn = [0] * len(self._shares)
        self._digests = [""] * len(self._shares)
        self._files = list(files)
        dev = settings.select.dev if settings.select is not None else 0.0
        train, held = split_of(dev)
        self._packers = [Packer(documents, settings.seq) for documents in self._open(tokenizer, train)]
        self._check_enough(tokenizer, train)
        self.dev: Sequence[Batch] = self._dev(tokenizer, held) if dev else ()

    @property
    def fingerprint(self) -> str:
        """Contents of the files, and names and revisions of the streams."""
        files = iter(self._files)
        return " ".join(
            sha256_json(source.model_dump()) if source.stream else sha256_file(next(files))
            for source in self._settings.mixture
        )

    def next(self) -> Batch:
        """The batch of the next step."""
        return self._collate([self._window() for _ in range(self._rows)])

    def position(self) -> dict[str, Any]:
        """Where each source is."""
        return {
            "drawn": self._drawn,
            "digests": self._digests,
            "sources": [packer.position() for packer in self._packers],
        }

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a position that `position` gave."""
        self._drawn, self._digests = list(position["drawn"]), list(position["digests"])
        for packer, where in zip(self._packers, position["sources"], strict=True):
            packer.seek(where)

    def used(self) -> list[dict[str, Any]]:
        """Per source {source, sha256, tokens, epochs}; the hash is over the tokens that were used, window by window."""
        return [
            {
                "source": source.source,
                "sha256": digest,
                "tokens": drawn * self._settings.seq,
                "epochs": packer.position()["documents"]["epoch"],
            }
            for source, digest, drawn, packer in zip(
                self._settings.mixture, self._digests, self._drawn, self._packers, strict=True
            )
        ]

    def _window(self) -> Window:
        count = sum(self._drawn) + 1
        owed = [share * count - drawn for share, drawn in zip(self._shares, self._drawn, strict=True)]
        chosen = owed.index(max(owed))
        window = self._packers[chosen].next()
        self._drawn[chosen] += 1
        said = self._digests[chosen] + " " + " ".join(map(str, window.ids))
        self._digests[chosen] = hashlib.sha256(said.encode()).hexdigest()
        return window

    def _collate(self, windows: Sequence[Window]) -> Batch:
        ids = torch.tensor([window.ids for window in windows])
        positions = torch.tensor([window.positions for window in windows])
        real = torch.ones_like(ids, dtype=torch.bool)
        if self._settings.attention == "causal":
            return Batch(ids, real, real)
        # A first token has nothing before it that it could follow from; it is shown, not predicted.
        return Batch(ids, real, positions > 0, positions)

    def _open(self, tokenizer: Any, chosen: Any) -> list[Documents]:
        files = iter(self._files)
        return [
            StreamDocuments(source, tokenizer, chosen)
            if source.stream
            else FileDocuments(next(files), tokenizer, self._settings.seed, chosen)
            for source in self._settings.mixture
        ]

    def _check_enough(self, tokenizer: Any, chosen: Any) -> None:
        files = iter(self._files)
        for source, share in zip(self._settings.mixture, self._shares, strict=True):
            if source.stream:
                continue
            documents = FileDocuments(next(files), tokenizer, self._settings.seed, chosen)
            wanted = max(1, round(share * self._rows)) * self._settings.seq
            found = 0
            while found < wanted:
                tokens = len(documents.next())
                if documents.position()["epoch"]:
                    raise SparsifyError(
                        f"{source.source} has {found} tokens, less than its part of one batch ({wanted}); "
                        "lower batch_tokens or give more text"
                    )
                found += tokens

    def _dev(self, tokenizer: Any, held: Any) -> list[Batch]:
        assert self._settings.select is not None
        batches = []
        for share, documents in zip(self._shares, self._open(tokenizer, held), strict=True):
            packer, count = Packer(documents, self._settings.seq), 0
            limit = max(1, round(share * self._settings.select.tokens / self._settings.seq))
            while count < limit:
                window = packer.next()
                if packer.position()["documents"]["epoch"] and count:
                    break
                batches.append(self._collate([window]))
                count += 1
        return batches
