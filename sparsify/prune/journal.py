"""Finished blocks of a prune stage on disk, so that an interrupted stage continues with the next block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsify.errors import CheckpointError
from sparsify.files import commit, plain_os_errors, write_json
from sparsify.masks import pack, unpack


class BlockJournal:
    """Appends one block at a time: first its tensors, then the state file that says it is finished."""

    def __init__(self, work: Path) -> None:
        """Open the journal in `work`, which is made if need be."""
        self._work = work
        work.mkdir(parents=True, exist_ok=True)
        self._state = work / "state.json"
        try:
            entries = json.loads(self._state.read_text(encoding="utf-8")) if self._state.exists() else []
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{self._state} is damaged ({error}); remove {work} to start again") from None
        self.entries: list[dict[str, Any]] = entries

    def append(self, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], entry: dict[str, Any]) -> None:
        """Record a finished block: its weights and masks by weight name, and `entry`, plain JSON about it."""
        from safetensors.torch import save_file

        tensors = {f"weight:{name}": tensor.contiguous() for name, tensor in weights.items()}
        tensors |= {f"mask:{name}": pack(mask) for name, mask in masks.items()}
        part = self._work / "block.part"
        with plain_os_errors():
            save_file(tensors, part)
        commit(part, self._path(len(self.entries)))
        self.entries.append(entry)
        write_json(self._state, self.entries)

    def block(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights and masks of finished block `index`, by name; a weight that was recorded without a mask has none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(index)
        try:
            stored = load_file(path)
        except (SafetensorError, FileNotFoundError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); remove {self._work} to start again") from None
        weights = {key.removeprefix("weight:"): value for key, value in stored.items() if key.startswith("weight:")}
        kept = {name: stored[f"mask:{name}"] for name in weights if f"mask:{name}" in stored}
        masks = {name: unpack(mask, weights[name].shape[1]) for name, mask in kept.items()}
        return weights, masks

    def _path(self, index: int) -> Path:
        return self._work / f"block_{index:04d}.safetensors"
