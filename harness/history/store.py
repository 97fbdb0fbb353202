"""The file of a history: one JSON object a line, appended under a lock and on disk before the call returns."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.errors import ConfigError, CorruptRecordError, InfrastructureError
from harness.history.record import SCHEMA_VERSION, HistoryRecord
from harness.records import write_text_atomic


@dataclass(frozen=True, slots=True)
class Appended:
    """What `append` did.

    Attributes:
        records: lines that the file holds now.
        replaced: whether a record of the same commit was taken out.
        dropped: bytes of a last line that was cut short, which `repair` took away.
    """

    records: int
    replaced: bool = False
    dropped: int = 0


def read_history(path: Path) -> list[HistoryRecord]:
    """All records, by the time of their commit (of equal times, as written).

    Raises:
        ConfigError: There is no such file, or it is empty.
        CorruptRecordError: A line is damaged, cut short, of another schema version, or a commit is there twice.
    """
    try:
        data = _read_shared(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ConfigError(f"{path} is no history: make one with `sparsebench history append {path} RUN`") from None
    except OSError as error:
        raise InfrastructureError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    records = _parse(path, data)
    if not records:
        raise ConfigError(f"{path} holds no record: add one with `sparsebench history append {path} RUN`")
    return sorted(records, key=lambda record: record.time)


def append(path: Path, record: HistoryRecord, *, replace: bool = False, repair: bool = False) -> Appended:
    """Add a record, or with `replace` put it in the place of the same commit's.

    The lock makes concurrent calls wait for each other. A crash leaves the old file, or one whose last line is cut
    short: that is an error from then on, until `repair` takes the line away.

    Raises:
        ConfigError: The commit is there already and `replace` is not set.
        CorruptRecordError: A line is damaged; nothing is written.
        InfrastructureError: The disk refused; the file is as it was.
    """
    line = _line(record)
    with _locked(path) as handle:
        data = _read(path, handle)
        data, dropped = _repaired(data) if repair else (data, 0)
        records = _parse(path, data)
        same = [old for old in records if old.commit == record.commit]
        if same and not replace:
            raise ConfigError(f"{path} has commit {record.commit} already; --replace puts this run in its place")
        if same or dropped or repair:
            kept = "".join(_line(record if old.commit == record.commit else old) for old in records)
            write_text_atomic(path, kept if same else kept + line)
        else:
            _extend(path, handle, line.encode(), len(data))
    return Appended(len(records) + (not same), bool(same), dropped)


def _read_shared(path: Path) -> bytes:
    """The file's bytes; a line that another call is writing is waited for, not taken for a torn one."""
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        return stream.read()


def _line(record: HistoryRecord) -> str:
    import json

    return json.dumps(record.model_dump(mode="json"), ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"


def _parse(path: Path, data: bytes) -> list[HistoryRecord]:
    if data and not data.endswith(b"\n"):
        raise CorruptRecordError(
            f"{path} was cut short in its last line (a crash?): `sparsebench history append --repair` takes that line "
            "away, then append its commit again"
        )
    records: list[HistoryRecord] = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            records.append(HistoryRecord.model_validate_json(line))
        except ValidationError as error:
            raise CorruptRecordError(f"{path}, line {number}: {_problem(line, error)}") from None
    commits = [record.commit for record in records]
    twice = next((commit for i, commit in enumerate(commits) if commit in commits[:i]), None)
    if twice is not None:
        raise CorruptRecordError(f"{path} has commit {twice} twice: delete one of the lines")
    return records


def _problem(line: bytes, error: ValidationError) -> str:
    import json

    try:
        found = json.loads(line)
    except ValueError:
        return "is no JSON: restore the file from your version control, or delete the line"
    version = found.get("schema_version") if isinstance(found, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        return f"has schema_version {version!r}, this sparsebench reads {SCHEMA_VERSION}: use the version that wrote it"
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"is damaged ({where}: {first['msg']}): append its commit again with --replace, or delete the line"


def _repaired(data: bytes) -> tuple[bytes, int]:
    """The data without a last line that was cut short; whole where only its line break is missing."""
    whole, _, tail = data.rpartition(b"\n")
    if not tail:
        return data, 0
    try:
        HistoryRecord.model_validate_json(tail)
    except ValidationError:
        return (whole + b"\n" if whole else b""), len(tail)
    return data + b"\n", 0


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The open file under an exclusive lock; opened again where another call put a new file in its place meanwhile."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InfrastructureError(f"cannot write {path}: {error.strerror}; name another file") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_still(path, handle):
                yield handle
                return
        finally:
            os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _read(path: Path, handle: int) -> bytes:
    data = b""
    try:
        while chunk := os.pread(handle, 1 << 20, len(data)):
            data += chunk
    except OSError as error:
        raise InfrastructureError(f"cannot read {path}: {error.strerror}; check the disk") from None
    return data


def _extend(path: Path, handle: int, line: bytes, at: int) -> None:
    done = 0
    try:
        while done < len(line):
            done += os.pwrite(handle, line[done:], at + done)
        os.fsync(handle)
    except OSError as error:
        os.ftruncate(handle, at)
        raise InfrastructureError(f"cannot write {path}: {error.strerror}; make room and append again") from None
