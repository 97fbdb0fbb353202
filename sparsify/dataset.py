"""Text from elsewhere as JSONL rows of `text`: data sets of the hub (fetched once, or streamed), Python source."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsify.errors import RecipeError, SparsifyError

PREFIX = "hub:"
PYTHON = "python:"
# More than any calibration draws from; a text crawl of many gigabytes is not copied whole.
_MAX_CHARACTERS = 64_000_000
_MAX_SOURCE = 1_000_000  # bytes of a Python file


@dataclass(frozen=True)
class DatasetName:
    """`hub:NAME[/CONFIG][:SPLIT][@COMMIT][#FILE]`: NAME is `owner/name` or a directory, SPLIT `train` if not given.

    With FILE, one file of the data set is read instead of all: the first shard of a crawl, for example.
    """

    name: str
    config: str | None
    split: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, source: str) -> DatasetName:
        """Read the name of a corpus.

        Raises:
            RecipeError: It has another form.
        """
        whole, _, file = source.removeprefix(PREFIX).partition("#")
        whole, _, revision = whole.partition("@")
        body, _, split = whole.partition(":")
        if Path(body).is_dir():
            return cls(body, None, split or "train")
        parts = body.split("/")
        if not 1 <= len(parts) <= 3 or not all(parts) or body.startswith((".", "~")):
            raise RecipeError(
                f"corpus {source!r} is not hub:OWNER/NAME[/CONFIG][:SPLIT][@COMMIT][#FILE] nor a local directory"
            )
        config = parts[2] if len(parts) == 3 else None
        return cls("/".join(parts[:2]), config, split or "train", revision or None, file or None)

    def options(self, revision: str | None = None) -> dict[str, Any]:
        """What `datasets.load_dataset` is told beside the name; the name's own commit goes before `revision`."""
        told: dict[str, Any] = {"split": self.split}
        if (commit := self.revision or revision) is not None and not Path(self.name).is_dir():
            told["revision"] = commit
        if self.file is not None:
            told["data_files"] = {self.split: self.file}
        return told


def fetch_dataset(source: str, cache_dir: Path, *, offline: bool = False) -> Path:
    """The JSONL file of a hub data set, made in `cache_dir` where it is not there yet.

    Args:
        source: See `DatasetName`.
        cache_dir: Where the file goes.
        offline: Take the data set from the local cache of `datasets` only.

    Raises:
        SparsifyError: It cannot be fetched or has no column of text.
    """
    wanted = DatasetName.parse(source)
    path = cache_dir / f"hub-{hashlib.sha256(source.encode()).hexdigest()[:16]}.jsonl"
    if path.exists():
        return path
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    try:
        import datasets
    except ImportError:
        raise SparsifyError(f"{source} needs the package datasets; pip install 'sparsebench[run]'") from None
    try:
        rows = datasets.load_dataset(wanted.name, wanted.config, **wanted.options())
    except Exception as error:  # noqa: BLE001 (datasets raises what its many back ends raise)
        reason = " ".join(str(error).split())[:200]
        raise SparsifyError(f"{source} cannot be fetched ({reason}); check name and network, or give a file") from None
    cache_dir.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    written = 0
    with part.open("w", encoding="utf-8") as stream:
        column = text_column(rows[0], source) if len(rows) else ""
        for row in rows.shuffle(seed=0):
            if str(row[column]).strip():
                stream.write(json.dumps({"text": str(row[column])}, ensure_ascii=False) + "\n")
                written += len(str(row[column]))
            if written > _MAX_CHARACTERS:
                break
    if not written:
        raise SparsifyError(f"{source} holds no text")
    os.replace(part, path)
    return path


def open_stream(source: str, *, revision: str | None) -> Any:
    """A hub data set as an `IterableDataset`: rows are read when they are asked for, and no copy is kept.

    Args:
        source: See `DatasetName`.
        revision: Commit of the data set.

    Raises:
        SparsifyError: It cannot be opened.
    """
    wanted = DatasetName.parse(source)
    try:
        import datasets
    except ImportError:
        raise SparsifyError(f"{source} needs the package datasets; pip install 'sparsebench[run]'") from None
    try:
        return datasets.load_dataset(wanted.name, wanted.config, **wanted.options(revision), streaming=True)
    except Exception as error:  # noqa: BLE001 (datasets raises what its many back ends raise)
        reason = " ".join(str(error).split())[:200]
        raise SparsifyError(f"{source} cannot be streamed ({reason}); check name, revision and network") from None


def collect_python(source: str, cache_dir: Path) -> Path:
    """The JSONL file of the Python source below a directory, `python:DIR`: one `{"text", "path"}` a file, sorted.

    Files that Python cannot parse, of more than 1 MB, or whose text came before are left out.

    Raises:
        SparsifyError: There is no such directory or no such file in it.
    """
    root = Path(source.removeprefix(PYTHON)).expanduser()
    if not root.is_dir():
        raise SparsifyError(f"corpus {source!r}: {root} is not a directory")
    path = cache_dir / f"python-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.jsonl"
    cache_dir.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    seen: set[str] = set()
    with part.open("w", encoding="utf-8") as stream:
        for file in sorted(root.rglob("*.py")):
            text = _python_text(file)
            if text and text not in seen:
                seen.add(text)
                row = {"text": text, "path": file.relative_to(root).as_posix()}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    if not seen:
        part.unlink()
        raise SparsifyError(f"corpus {source!r}: no Python file below {root}")
    os.replace(part, path)
    return path


def _python_text(file: Path) -> str | None:
    try:
        if not file.is_file() or file.stat().st_size > _MAX_SOURCE:
            return None
        text = file.read_text(encoding="utf-8")
        ast.parse(text)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return None
    return text if text.strip() else None


def text_column(row: Mapping[str, Any], source: str) -> str:
    """The column of a row that holds its text: `text`, `content`, or the first that is a string.

    Raises:
        SparsifyError: None is.
    """
    columns = [name for name, value in row.items() if isinstance(value, str)]
    if not columns:
        raise SparsifyError(f"{source} has no column of text among {', '.join(row)}")
    return next((name for name in ("text", "content") if name in columns), columns[0])
