"""The store of finished stages: one directory per key, complete or absent."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sparsify.errors import CheckpointError
from sparsify.files import commit, write_json

_MARKER = "stage.json"


class StageRecord(BaseModel):
    """What is kept about a finished stage beside its files.

    Attributes:
        key: See `sparsify.run.key_of`.
        kind: prune, pretrain, finetune or quantize.
        seconds: Wall time of the run that finished it.
        weights_sha256: Of the files that it wrote.
        result: A `StageResult` as plain JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    kind: str
    seconds: float
    weights_sha256: str
    result: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """The stage as variant.json lists it."""
        return {"key": self.key, "kind": self.kind, "seconds": self.seconds, **self.result["stats"]}


class Store:
    """Finished stages below one directory."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which is made when something is written."""
        self._root = root

    def path(self, key: str) -> Path:
        """Where the finished stage is, or will be."""
        return self._root / key

    def part(self, key: str) -> Path:
        """Where a stage writes before it is finished."""
        return self._root / f"{key}.part"

    def work(self, key: str) -> Path:
        """Where a stage keeps what it continues from."""
        return self._root / f"{key}.work"

    def find(self, key: str) -> StageRecord | None:
        """The record of a finished stage, or None.

        Raises:
            CheckpointError: There is one, but it is damaged.
        """
        path = self.path(key)
        if not path.exists():
            return None
        try:
            return StageRecord.model_validate(json.loads((path / _MARKER).read_text(encoding="utf-8")))
        except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, ValidationError):
            raise CheckpointError(f"{path / _MARKER} is missing or damaged; remove {path} to make it again") from None

    def finish(self, record: StageRecord) -> None:
        """Turn what was written to `part` into the finished stage; the marker is the last file written."""
        part = self.part(record.key)
        write_json(part / _MARKER, record.model_dump(mode="json"))
        commit(part, self.path(record.key))
        shutil.rmtree(self.work(record.key), ignore_errors=True)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Let one process at a time make a stage; the lock goes with the process that holds it, however it ends."""
        self._root.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._root / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
