"""The append-only journal of one cell: what was generated survives `kill -9`, a full disk and a torn write."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from harness.errors import ConfigError, CorruptRecordError, InfrastructureError

SCHEMA_VERSION = 1

Row = Mapping[str, Any]


def _encode(row: Row) -> bytes:
    # ASCII: a lone surrogate in generated text must not make a row unwritable.
    return json.dumps(row, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None if it is not one. No proper prefix of an object is itself an object."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Journal:
    """Rows of one cell, one JSON object per line below a header line; each batch is on disk before the next starts.

    Opening repairs the end: a last line that a crash cut short is dropped (`dropped_bytes` says how much), every
    complete row is kept. The file is locked for as long as it is open.

    A row with `status` "error" is kept but not settled: `in` does not find it, and a later row of its key takes its
    place.

    Args:
        path: The journal file; it and its folder are created as needed.
        key: What the rows depend on (fingerprints, preset, settings, seed), JSON values only. A journal written
            under another key is refused, so that rows of two models, prompts or settings never mix.
        row_key: The field that identifies a row.

    Raises:
        ConfigError: Another process holds the journal, or it was written under another key.
        CorruptRecordError: A complete line is not a row; the message names file and line.
        InfrastructureError: The file cannot be read or written.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], *, row_key: str = "request_id") -> None:
        """Open, lock, repair and read the journal."""
        self.path = path
        self.dropped_bytes = 0
        self._row_key = row_key
        self._rows: dict[str, dict[str, Any]] = {}
        # Through JSON, so that a tuple in the key equals the list it is read back as.
        self._header = {"schema_version": SCHEMA_VERSION, "key": json.loads(json.dumps(key))}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InfrastructureError(f"cannot open {path}: {error.strerror}; free or mount the disk") from None
        try:
            self._lock()
            self._end = self._load()
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another run is using {self.path.parent}; wait for it to end or choose another --out"
            ) from None

    def _load(self) -> int:
        """Read all rows, repair the end, write the header if there is none; the length of the file in bytes."""
        size = os.fstat(self._fd).st_size
        data = b""
        while len(data) < size and (chunk := os.pread(self._fd, size - len(data), len(data))):
            data += chunk
        whole, _, tail = data.rpartition(b"\n")
        lines = whole.split(b"\n") if whole or data[:1] == b"\n" else []
        end = len(data) - len(tail)
        if tail and _parse(tail) is not None:
            # Only the newline is missing: the row is whole, so it is kept and the newline written.
            self._write(b"\n", len(data))
            lines.append(tail)
            end = len(data) + 1
        elif tail:
            self.dropped_bytes = len(tail)
            self._truncate(end)
        if not lines:
            end = self._write(_encode(self._header), 0)
            self._sync_folder()
        else:
            self._check_header(lines[0])
            self._read_rows(lines[1:])
        return end

    def _check_header(self, line: bytes) -> None:
        found = _parse(line)
        if found is None or "key" not in found or not isinstance(found["key"], dict):
            raise CorruptRecordError(f"{self.path}:1 is not a journal header; remove the file to start this cell again")
        if found.get("schema_version") != SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path} has schema version {found.get('schema_version')}, this program writes {SCHEMA_VERSION}; "
                "choose another --out"
            )
        old, new = found["key"], self._header["key"]
        differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        if differing:
            raise ConfigError(
                f"{self.path} belongs to another cell (it differs in {', '.join(differing)}); choose another --out "
                "or remove the file"
            )

    def _read_rows(self, lines: Sequence[bytes]) -> None:
        for number, line in enumerate(lines, 2):
            row = _parse(line)
            name = row.get(self._row_key) if row is not None else None
            if row is None or not isinstance(name, str) or name in self:
                reason = "repeats a row" if isinstance(name, str) else "is not a row"
                raise CorruptRecordError(f"{self.path}:{number} {reason}; remove that line (or the file) and run again")
            self._rows[name] = row

    def _write(self, data: bytes, at: int) -> int:
        """Write bytes and wait for the disk; after a failure the file is as it was. The position behind them."""
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], at + done)
            os.fsync(self._fd)
        except OSError as error:
            self._truncate(at)
            raise InfrastructureError(
                f"cannot write {self.path}: {error.strerror}; make room and run again, finished rows are kept"
            ) from None
        return at + len(data)

    def _truncate(self, at: int) -> None:
        try:
            os.ftruncate(self._fd, at)
            os.fsync(self._fd)
        except OSError as error:
            raise InfrastructureError(f"cannot repair {self.path}: {error.strerror}; check the disk") from None

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @property
    def rows(self) -> Mapping[str, dict[str, Any]]:
        """All rows by their key, in the order in which they were written (read-only)."""
        return MappingProxyType(self._rows)

    def __contains__(self, name: object) -> bool:
        """Whether a settled row of that key is on disk."""
        return name in self._rows and self._rows[str(name)].get("status") != "error"

    def __len__(self) -> int:
        """Number of rows on disk."""
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        """The keys of the rows on disk."""
        return iter(self._rows)

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows in one piece and return when they are on disk.

        Raises:
            ValueError: A row has no key or one that is already there and settled; nothing is written.
            InfrastructureError: The disk refused; the journal is as it was before.
        """
        fresh: dict[str, dict[str, Any]] = {}
        for row in rows:
            name = row.get(self._row_key)
            if not isinstance(name, str) or name in self or name in fresh:
                raise ValueError(f"{self.path}: row {name!r} has no {self._row_key} or is there already")
            fresh[name] = dict(row)
        if fresh:
            self._end = self._write(b"".join(_encode(row) for row in fresh.values()), self._end)
            self._rows.update(fresh)

    def close(self) -> None:
        """Release the lock; the journal cannot be used afterwards."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Journal:
        """The journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
