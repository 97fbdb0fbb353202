"""Records: the types a run leaves on disk, and how they are written and read back.

The models live in `harness.schema`; this is the face to import them from. No torch, no scipy.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from harness.errors import ConfigError, CorruptRecordError, InfrastructureError
from harness.schema.samples import SampleRow, Status
from harness.schema.summary import (
    SCHEMA_VERSION,
    DifferenceResult,
    Environment,
    Event,
    GroupValue,
    MaskInfo,
    Metric,
    RecoveryResult,
    SparsityInfo,
    SpeedBaseline,
    SpeedConfirmation,
    SpeedPacking,
    SpeedRow,
    StudyInfo,
    SuiteResult,
    Summary,
    VariantSummary,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "SCHEMA_VERSION",
    "DifferenceResult",
    "Environment",
    "Event",
    "GroupValue",
    "MaskInfo",
    "Metric",
    "RecoveryResult",
    "SampleRow",
    "SparsityInfo",
    "SpeedBaseline",
    "SpeedConfirmation",
    "SpeedPacking",
    "SpeedRow",
    "Status",
    "StudyInfo",
    "SuiteResult",
    "Summary",
    "VariantSummary",
    "read_samples",
    "read_summary",
    "samples_to_parquet",
    "table_to_parquet",
    "write_json_atomic",
    "write_samples",
    "write_text_atomic",
]


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place only when it is complete and on disk."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        fix = "free some space or write elsewhere, then run again"
        raise InfrastructureError(f"cannot write {path}: {error.strerror or error}; {fix}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` (UTF-8) so that `path` holds either the old or the new content, also after a crash.

    Raises InfrastructureError where the file cannot be written (full disk, no permission).
    """
    with _replacing(path) as stream:
        stream.write(text.encode("utf-8"))


def write_json_atomic(path: Path, data: BaseModel | Mapping[str, Any]) -> None:
    """Write a record or a plain mapping as indented JSON, atomically; NaN and infinities are refused (ValueError)."""
    plain = data.model_dump(mode="json") if isinstance(data, BaseModel) else data
    write_text_atomic(path, json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _read_bytes(path: Path, missing: str) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ConfigError(f"{path} does not exist: {missing}") from error
    except OSError as error:
        raise InfrastructureError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error


def read_summary(path: Path) -> Summary:
    """Read `summary.json`, given the file or the folder that holds it.

    Raises ConfigError where there is none, CorruptRecordError where it is damaged or of another schema version.
    """
    file = path / "summary.json" if path.is_dir() else path
    raw = _read_bytes(file, "make it with `sparsebench run --out DIR`")
    again = "delete it and run `sparsebench run` again to rebuild it from the records"
    try:
        data = json.loads(raw, parse_constant=_reject_constant)
    except ValueError as error:  # also UnicodeDecodeError
        raise CorruptRecordError(f"{file} is not valid JSON ({error}): {again}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise CorruptRecordError(
            f"{file} has schema_version {version!r}, this sparsebench reads {SCHEMA_VERSION}: "
            "read it with the version that wrote it, or run the study again"
        )
    try:
        return Summary.model_validate_json(raw)
    except ValidationError as error:
        raise CorruptRecordError(f"{file} is damaged ({_first_problem(error)}): {again}") from error


def read_samples(path: Path) -> list[SampleRow]:
    """Read sample rows, one JSON object a line.

    Raises ConfigError where the file is missing, CorruptRecordError with the line number where a row is damaged.
    """
    rows: list[SampleRow] = []
    raw = _read_bytes(path, "run the study again to make it")
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(SampleRow.model_validate_json(line))
        except ValidationError as error:
            fix = "delete the file and run `sparsebench run` again"
            raise CorruptRecordError(f"{path}, line {number} is damaged ({_first_problem(error)}): {fix}") from error
    return rows


def write_samples(rows: Iterable[SampleRow], path: Path) -> None:
    """Write sample rows, one JSON object a line, atomically."""
    write_text_atomic(path, "".join(row.model_dump_json() + "\n" for row in rows))


def _sample_columns() -> dict[str, tuple[pa.DataType, Callable[[SampleRow], Any]]]:
    import pyarrow as pa

    def plain(name: str) -> Callable[[SampleRow], Any]:
        return lambda row: getattr(row, name)

    text = ("variant", "engine", "suite", "suite_hash", "preset")
    identity = ("item_id", "item_hash", "template")
    return {
        "schema_version": (pa.int32(), plain("schema_version")),
        **{name: (pa.string(), plain(name)) for name in text},
        "seed": (pa.int64(), plain("seed")),
        **{name: (pa.string(), plain(name)) for name in identity},
        "difficulty": (pa.int8(), plain("difficulty")),
        "unseen": (pa.bool_(), plain("unseen")),
        "cluster": (pa.string(), plain("cluster")),
        "prompt_hash": (pa.string(), plain("prompt_hash")),
        "outputs": (pa.list_(pa.string()), plain("outputs")),
        "n_in": (pa.list_(pa.int32()), plain("n_in")),
        "n_out": (pa.list_(pa.int32()), plain("n_out")),
        "finish": (pa.list_(pa.string()), plain("finish")),
        "status": (pa.string(), plain("status")),
        "error": (pa.string(), plain("error")),
        "scores": (
            pa.map_(pa.string(), pa.list_(pa.float64())),
            lambda row: [(key, x if isinstance(x, list) else [x]) for key, x in sorted(row.scores.items())],
        ),
    }


def samples_to_parquet(rows: Iterable[SampleRow], path: Path) -> None:
    """Write sample rows as one Parquet file (zstd), atomically.

    Columns are the row's fields; `scores` is a map from metric to a list of values (one value for plain metrics).
    """
    import pyarrow as pa

    kept, columns = list(rows), _sample_columns()
    arrays = [pa.array([get(row) for row in kept], type=kind) for kind, get in columns.values()]
    _write_parquet(pa.table(dict(zip(columns, arrays, strict=True))), path)


def table_to_parquet(columns: Mapping[str, tuple[Sequence[Any], str]], path: Path) -> None:
    """Write plain columns as one Parquet file (zstd), atomically; each is its values and `text`, `number` or `count`.

    Raises ConfigError where pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise ConfigError(f"writing {path.name} needs pyarrow: pip install pyarrow") from None
    kinds = {"text": pa.string(), "number": pa.float64(), "count": pa.int64()}
    _write_parquet(
        pa.table({name: pa.array(values, type=kinds[kind]) for name, (values, kind) in columns.items()}), path
    )


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    with _replacing(path) as stream:
        pq.write_table(table, stream, compression="zstd")
