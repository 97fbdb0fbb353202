"""The inputs of a block for every batch, in memory or, above a size, in a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

# Above this the activations wait on the disk; 128 sequences of 2048 tokens at width 4096 are 4.3 GB in float32.
MEMORY_BYTES = 1 << 30


class Activations:
    """A list of float32 tensors that can be replaced by others of the same size, or of a smaller one.

    A file is read and written with plain calls, not mapped: what the system caches of it is no memory of the process.
    Values stay float32 in either place, so that it makes no difference where they are kept.
    """

    def __init__(self, spill: Path | None = None) -> None:
        """Keep tensors in memory, or in `spill`, a file that is made anew."""
        self._path = spill
        self._kept: list[Tensor] = []
        self._places: list[tuple[int, torch.Size]] = []
        self._rooms: list[int] = []
        self._end = 0
        if spill is not None:
            spill.parent.mkdir(parents=True, exist_ok=True)
            spill.write_bytes(b"")

    def append(self, tensor: Tensor) -> None:
        """Add a tensor at the end."""
        if self._path is None:
            self._kept.append(tensor)
            return
        self._places.append((self._end, tensor.shape))
        self._rooms.append(tensor.numel())
        self._end += 4 * tensor.numel()
        self[len(self._places) - 1] = tensor

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self._kept) or len(self._places)

    def __getitem__(self, index: int) -> Tensor:
        """A tensor, on the CPU where it comes from the file."""
        if self._path is None:
            return self._kept[index]
        at, shape = self._places[index]
        tensor = torch.empty(shape, dtype=torch.float32)
        with self._path.open("rb", buffering=0) as stream:
            stream.seek(at)
            view = tensor.numpy().data.cast("B")
            done = 0
            while done < len(view):
                count = stream.readinto(view[done:])
                if not count:
                    raise OSError(f"{self._path} was cut off while it was in use")
                done += count
        return tensor

    def __setitem__(self, index: int, tensor: Tensor) -> None:
        """Replace a tensor by one that is no larger than the first one in its place."""
        if self._path is None:
            self._kept[index] = tensor
            return
        at, _ = self._places[index]
        assert tensor.numel() <= self._rooms[index]
        self._places[index] = (at, tensor.shape)
        with self._path.open("r+b", buffering=0) as stream:
            stream.seek(at)
            view = tensor.to("cpu", torch.float32).contiguous().numpy().data.cast("B")
            while view:
                view = view[stream.write(view) :]

    def __iter__(self):  # type: ignore[no-untyped-def]
        """Every tensor in turn."""
        return (self[index] for index in range(len(self)))

    def close(self) -> None:
        """Remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
