"""Where packed files are kept, and who packs: beside the variant, or in the user's cache where that cannot be written.

Processes that need the same file pack it once: the first holds a lock on the folder, the others wait and then read.
Where the file system has no locks, each packs and the last rename wins; all of them write the same bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.engines.sparse.packed import PART, Memory, Packed, read_key, read_packed
from harness.errors import InfrastructureError
from harness.models import BUNDLED, cache_directory
from sparsify.errors import CheckpointError

FOLDER = ".sparsebench"
_FORGOTTEN_S = 3600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """What is packed.

    Attributes:
        directory: The variant.
        weights: Hash of its weights.
        settings: Hash of how they are packed.
        pack: Writes the packed file to a path.
    """

    directory: Path
    weights: str
    settings: str
    pack: Callable[[Path], object]

    @property
    def key(self) -> str:
        """What the packed file says that it was made of."""
        return f"{self.weights}/{self.settings}"

    @property
    def file_name(self) -> str:
        """What its packed file is called."""
        return f"packed-{hashlib.sha256(self.key.encode()).hexdigest()[:16]}.safetensors"


def open_cached(source: Source, *, memory: Memory = "auto") -> tuple[Packed, list[str]]:
    """The packed weights, from the file where there is a good one, else packed now.

    Returns:
        The weights, and what had to be done about files that were no good.

    Raises:
        InfrastructureError: The disk is full, or no folder can be written.
    """
    folders = _folders(source.directory)
    events: list[str] = []
    for folder in folders:
        found = _read(folder / source.file_name, source, memory, events)
        if found is not None:
            return found, events
    for folder in filter(_writable, folders):
        with _locked(folder):
            path = folder / source.file_name
            found = _read(path, source, memory, [])  # another process may have packed it meanwhile
            if found is None:
                _tidy(folder, source)
                source.pack(path)
                found = read_packed(path, key=source.key, memory=memory)
            return found, events
    raise InfrastructureError(
        f"packed weights can be written neither to {folders[0]} nor to {folders[-1]}; set SPARSEBENCH_CACHE to a "
        "folder that can be written"
    )


def _folders(directory: Path) -> list[Path]:
    own = cache_directory() / "packed"
    # What came with the installation stays as it was installed.
    bundled = any(directory.resolve() == model.resolve() for model in BUNDLED.values())
    return [own] if bundled else [directory / FOLDER, own]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _read(path: Path, source: Source, memory: Memory, events: list[str]) -> Packed | None:
    """The packed file if it is there and good; one that is not will be replaced."""
    if not path.is_file():
        return None
    try:
        return read_packed(path, key=source.key, memory=memory)
    except CheckpointError as error:
        events.append(f"packed again: {error}")
        _log.warning("packed again: %s", error)
        return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # not every network file system has locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _tidy(folder: Path, source: Source) -> None:
    """Remove what killed processes left, and beside a variant the files of weights that it no longer has."""
    for path in folder.glob(f"{PART}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _FORGOTTEN_S:
                path.unlink()
    if folder.name != FOLDER:
        return
    for path in folder.glob("packed-*.safetensors"):
        with contextlib.suppress(OSError, CheckpointError):
            if read_key(path).partition("/")[0] != source.weights:
                path.unlink()
