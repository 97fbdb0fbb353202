"""Where a run's batches come from, and the position in it that a resumed run goes on from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sparsify.corpus import EncodedRow, encode_rows, read_rows, sha256_file
from sparsify.errors import SparsifyError
from sparsify.train.batches import Batch, collate, plan_steps
from sparsify.train.job import TrainJob
from sparsify.train.settings import PretrainSettings, TrainSettings


class Data(Protocol):
    """The batches of a run, one per step, in an order that follows from the seed."""

    @property
    def steps(self) -> int:
        """How many steps the budget gives."""

    @property
    def fingerprint(self) -> str:
        """Says which text this is; a resumed run must have the same."""

    @property
    def dev(self) -> Sequence[Batch]:
        """Batches of the dev split, never trained on; empty where none was asked for."""

    def next(self) -> Batch:
        """The batch of the next step."""

    def position(self) -> dict[str, Any]:
        """Where the next batch begins, as JSON values."""

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a position that `position` gave."""

    def used(self) -> list[dict[str, Any]]:
        """Of a mixture, what was taken from each source."""


class RowData:
    """Rows of prompts and answers, of similar length in a batch; epochs are reshuffled."""

    def __init__(self, corpus: Sequence[Path], tokenizer: Any, settings: TrainSettings) -> None:
        """Read and tokenise all rows.

        Raises:
            SparsifyError: A file is missing or malformed, or there is less text than one batch.
        """
        self._settings = settings
        rows: list[Mapping[str, Any]] = [row for path in corpus for row in read_rows(path)]
        self.dev: Sequence[Batch] = ()
        if settings.select is not None:
            rows, held = split_rows(rows, settings.select.dev)
            self.dev = _dev_batches(encode_rows(held, tokenizer), settings)
        self._rows = encode_rows(rows, tokenizer)
        lengths = [len(row.ids) for row in self._rows]
        check_enough(sum(min(length, settings.seq) for length in lengths), settings)
        self._plan = plan_steps(lengths, settings)
        self._step = 0
        self.fingerprint = " ".join(sha256_file(path) for path in corpus)

    @property
    def steps(self) -> int:
        """How many steps the budget gives."""
        return len(self._plan)

    def next(self) -> Batch:
        """The batch of the next step."""
        batch = collate(self._plan[self._step], self._rows, self._settings)
        self._step += 1
        return batch

    def position(self) -> dict[str, Any]:
        """The next step: the plan follows from rows and settings."""
        return {"step": self._step}

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a step."""
        self._step = int(position["step"])

    def used(self) -> list[dict[str, Any]]:
        """Nothing: all files are one corpus."""
        return []


def open_data(job: TrainJob, settings: TrainSettings, tokenizer: Any) -> Data:
    """The batches that the settings ask for.

    Raises:
        SparsifyError: The text cannot be read, or is less than a batch.
    """
    if isinstance(settings, PretrainSettings):
        from sparsify.train.mixture import MixtureData

        return MixtureData(job.corpus, tokenizer, settings)
    return RowData(job.corpus, tokenizer, settings)


def split_rows(
    rows: Sequence[Mapping[str, Any]], share: float
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Split rows into those to train on and those of the dev split, whole prompts each.

    Rows that show the model the same are on one side. Which prompts are held follows from the prompts alone, so that
    runs with other seeds, and dense and sparse ones, have the same dev split.

    Args:
        rows: As `read_rows` gives them.
        share: Of the different prompts; at least one is held.

    Raises:
        SparsifyError: All rows have the same prompt.
    """
    keys = [_prompt_digest(row) for row in rows]
    order = sorted(set(keys))
    if len(order) < 2:
        raise SparsifyError("a dev split needs rows of at least two different prompts; give more text")
    held = set(order[: max(1, round(share * len(order)))])
    return (
        [row for row, key in zip(rows, keys, strict=True) if key not in held],
        [row for row, key in zip(rows, keys, strict=True) if key in held],
    )


def _prompt_digest(row: Mapping[str, Any]) -> str:
    shown = (
        [str(m["content"]) for m in row["messages"] if m["role"] != "assistant"]
        if "messages" in row
        else [str(row["prompt"])]
    )
    return hashlib.sha256("\0".join(" ".join(text.split()) for text in shown).encode()).hexdigest()


def _dev_batches(rows: Sequence[EncodedRow], settings: TrainSettings) -> list[Batch]:
    assert settings.select is not None
    chosen: list[EncodedRow] = []
    spent = 0
    for row in rows:
        if spent >= settings.select.tokens:
            break
        chosen.append(row)
        spent += min(len(row.ids), settings.seq)
    if not any(any(row.target[1 : settings.seq]) for row in chosen):
        raise SparsifyError("the dev split has no answer to measure; raise select.dev")
    order = sorted(range(len(chosen)), key=lambda index: (len(chosen[index].ids), index))
    batches: list[list[list[int]]] = []
    for index in order:
        width = min(len(chosen[index].ids), settings.seq)
        limit = max(1, settings.batch_tokens // settings.accumulate)
        if not batches or (len(batches[-1]) + 1) * width > limit:
            batches.append([])
        batches[-1].append([index])
    return [collate(batch, chosen, settings) for batch in batches]


def check_enough(tokens: int, settings: TrainSettings) -> None:
    """Refuse text that does not fill one batch.

    Raises:
        SparsifyError: It does not.
    """
    if tokens < settings.batch_tokens:
        raise SparsifyError(
            f"the training text has {tokens} tokens, less than one batch of {settings.batch_tokens}; "
            "lower batch_tokens or give more text"
        )
