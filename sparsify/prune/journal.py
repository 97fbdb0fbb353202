"""Finished blocks of a prune stage on disk, so that an interrupted stage continues with the next block."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsify.corpus import sha256_file
from sparsify.errors import CheckpointError
from sparsify.files import write_json
from sparsify.masks import pack, unpack
from sparsify.shards import ShardWriter, read_header, read_tensor

_WEIGHT, _MASK = "weight:", "mask:"


class BlockJournal:
    """Appends one block at a time: first its shard of weights and packed masks, then the state that says so.

    Attributes:
        entries: What `append` was told about each finished block.
        resumed: How many blocks were finished when the journal was opened.
        moved: What about the environment changed since they were begun, or None.
    """

    def __init__(
        self, work: Path, fingerprint: Mapping[str, Any] | None = None, environment: Mapping[str, Any] | None = None
    ) -> None:
        """Open the journal in `work`, which is made if need be.

        Args:
            work: The folder.
            fingerprint: All that the blocks depend on, as plain JSON: recipe, model and data.
            environment: What may change the last bits of a result, as plain JSON.

        Raises:
            CheckpointError: The folder belongs to other work, or is damaged.
        """
        self._work = work
        work.mkdir(parents=True, exist_ok=True)
        self._state, path = work / "state.json", work / "plan.json"
        environment = environment or {}
        plan = {"work": dict(fingerprint or {}), "environment": dict(environment)}
        if not path.exists():
            write_json(path, plan)
        begun = self._json(path)
        if begun["work"] != plan["work"]:
            raise CheckpointError(f"{work} was begun for another recipe, model or text; remove it to start again")
        changes = [
            f"{key} {begun['environment'].get(key)} became {value}"
            for key, value in environment.items()
            if begun["environment"].get(key) != value
        ]
        self.moved = ", ".join(changes) or None
        state = self._json(self._state) if self._state.exists() else []
        self._hashes: list[str] = [entry["sha256"] for entry in state]
        self.entries: list[dict[str, Any]] = [entry["entry"] for entry in state]
        self.resumed = len(self.entries)
        for index, known in enumerate(self._hashes):
            if not self._path(index).is_file() or sha256_file(self._path(index)) != known:
                raise CheckpointError(f"{self._path(index)} is damaged; remove {work} to start again")

    def append(self, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], entry: dict[str, Any]) -> None:
        """Record a finished block: its weights and masks by weight name, and `entry`, plain JSON about it."""
        path = self._path(len(self.entries))
        with ShardWriter(path) as shard:
            for name, tensor in weights.items():
                shard.add(_WEIGHT + name, tensor)
                if name in masks:
                    shard.add(_MASK + name, pack(masks[name]))
        self._hashes.append(sha256_file(path))
        self.entries.append(entry)
        state = zip(self._hashes, self.entries, strict=True)
        write_json(self._state, [{"sha256": known, "entry": said} for known, said in state])

    def block(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights and masks of finished block `index`, by name; a weight that was recorded without a mask has none."""
        weights, masks = _Stored(self._find(_WEIGHT, [index]), packed=False), self._find(_MASK, [index])
        return dict(weights), dict(_Stored(masks, packed=True))

    def weights(self) -> Mapping[str, Tensor]:
        """The weights of all finished blocks by name, each read when it is asked for."""
        return _Stored(self._find(_WEIGHT), packed=False)

    def masks(self) -> Mapping[str, Tensor]:
        """The masks of all finished blocks by weight name, bool, each read when it is asked for."""
        return _Stored(self._find(_MASK), packed=True)

    def _find(self, prefix: str, blocks: Sequence[int] | None = None) -> dict[str, Path]:
        paths = [self._path(index) for index in (range(len(self.entries)) if blocks is None else blocks)]
        return {key.removeprefix(prefix): path for path in paths for key in read_header(path) if key.startswith(prefix)}

    def _path(self, index: int) -> Path:
        return self._work / f"block_{index:04d}.safetensors"

    def _json(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); remove {self._work} to start again") from None


class _Stored(Mapping[str, Tensor]):
    """Tensors of the journal by weight name."""

    def __init__(self, where: Mapping[str, Path], *, packed: bool) -> None:
        self._where, self._packed = where, packed

    def __getitem__(self, name: str) -> Tensor:
        refs = read_header(self._where[name])
        if not self._packed:
            return read_tensor(refs[_WEIGHT + name], name)
        return unpack(read_tensor(refs[_MASK + name], name), refs[_WEIGHT + name].shape[1])

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)
