"""Reads a file of answers row by row; whatever is wrong with it is said in one line that names the place."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import ConfigError

_BOM, _UTF16, _GZIP = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff"), b"\x1f\x8b"


@dataclass(frozen=True)
class Row:
    """One JSON object of a file.

    Attributes:
        where: `line 3` of a JSONL file, `row 3` of a JSON list; counted from 1.
        number: That number.
        content: The object.
    """

    where: str
    number: int
    content: Mapping[str, Any]


@dataclass(frozen=True)
class GivenFile:
    """A file of answers, read.

    Attributes:
        path: The file.
        sha256: Of its bytes, as 64 hex digits.
        rows: Its rows, at least one.
        events: What was odd about it, but does no harm.
    """

    path: Path
    sha256: str
    rows: tuple[Row, ...]
    events: tuple[dict[str, str], ...] = field(default=())


def read_given(path: Path) -> GivenFile:
    """Read JSONL, or JSON that is one list of objects; either may be gzipped.

    A byte order mark and Windows line ends are accepted.

    Raises:
        ConfigError: The file cannot be read, is empty, cut short, not UTF-8 or not of JSON objects.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; name a file of answers") from None
    digest = hashlib.sha256(raw).hexdigest()
    if raw.startswith(_GZIP):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{path}: the compressed file breaks off or is damaged ({error}); get it again") from None
    if raw.startswith(_UTF16):
        raise ConfigError(f"{path} line 1: the file is UTF-16; save it as UTF-8")
    events = []
    if raw.startswith(_BOM):
        raw = raw[len(_BOM) :]
        events.append({"kind": "byte_order_mark", "where": path.name, "detail": "accepted and left out"})
    rows = tuple(_listed(path, raw) if raw.lstrip()[:1] == b"[" else _lines(path, raw))
    if not rows:
        raise ConfigError(f"{path} holds no rows; give one JSON object a line, one for each answer")
    return GivenFile(path, digest, rows, tuple(events))


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _object(path: Path, where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path} {where}: found {type(value).__name__}, not a JSON object; correct the row")
    return value


def _text(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1}); "
            "save the file as UTF-8"
        ) from None


def _lines(path: Path, raw: bytes) -> Iterator[Row]:
    lines = raw.split(b"\n")
    last = max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text = _text(path, number, line)
        try:
            value = json.loads(text, parse_constant=_constant)
        except ValueError as error:
            if number == last and number == len(lines):
                raise ConfigError(
                    f"{path} line {number} breaks off: the file was cut short; get it again, or remove that line and "
                    "say with --missing what the items without an answer count"
                ) from None
            raise ConfigError(f"{path} line {number} is not JSON ({_reason(error)}); correct or remove it") from None
        except RecursionError:
            raise ConfigError(f"{path} line {number} is nested too deeply; correct or remove it") from None
        yield Row(f"line {number}", number, _object(path, f"line {number}", value))


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return str(error)


def _listed(path: Path, raw: bytes) -> Iterator[Row]:
    lines = raw.split(b"\n")
    for number, line in enumerate(lines, 1):
        _text(path, number, line)
    try:
        values = json.loads(raw, parse_constant=_constant)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(raw.decode().rstrip()) or error.msg.startswith("Unterminated")
        fix = "the file was cut short; get it again" if cut else "correct the file"
        raise ConfigError(
            f"{path} line {error.lineno} is not JSON ({error.msg}, column {error.colno}); {fix}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error}); correct the file") from None
    for number, value in enumerate(values, 1):
        yield Row(f"row {number}", number, _object(path, f"row {number}", value))
