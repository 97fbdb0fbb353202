"""Durable file operations: a reader sees the old state or the whole new one, never a part."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces), as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that `path` holds either its old content or all of the new."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1, ensure_ascii=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)


def commit(part: Path, final: Path) -> None:
    """Rename a finished file or directory to its final name; a directory must not exist there yet.

    What is in it reaches the disk first: after a power cut, a name stands for all of its content or is not there.
    """
    for path in sorted(part.iterdir()) if part.is_dir() else (part,):
        if path.is_file():
            _sync(path)
    os.replace(part, final)
    _sync(final.parent)


def empty_directory(path: Path) -> Path:
    """Make `path` an empty directory, whatever was there."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


@contextmanager
def plain_os_errors() -> Iterator[None]:
    """Turn safetensors' own error for a failed write (disk full, no permission) back into the OSError it was."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        number = int(found.group(1))
        raise OSError(number, os.strerror(number)) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
