"""Calibration text from a data set of the hub: fetched once, kept as JSONL rows of `text`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsify.errors import RecipeError, SparsifyError

PREFIX = "hub:"
# More than any calibration draws from; a text crawl of many gigabytes is not copied whole.
_MAX_CHARACTERS = 64_000_000


@dataclass(frozen=True)
class DatasetName:
    """`hub:NAME[/CONFIG][:SPLIT]`: NAME is `owner/name` or a local directory, SPLIT `train` if not given."""

    name: str
    config: str | None
    split: str

    @classmethod
    def parse(cls, source: str) -> DatasetName:
        """Read the name of a corpus.

        Raises:
            RecipeError: It has another form.
        """
        body, _, split = source.removeprefix(PREFIX).partition(":")
        if Path(body).is_dir():
            return cls(body, None, split or "train")
        parts = body.split("/")
        if not 1 <= len(parts) <= 3 or not all(parts) or body.startswith((".", "~")):
            raise RecipeError(f"corpus {source!r} is not hub:OWNER/NAME[/CONFIG][:SPLIT] nor a local directory")
        config = parts[2] if len(parts) == 3 else None
        return cls("/".join(parts[:2]), config, split or "train")


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
        rows = datasets.load_dataset(wanted.name, wanted.config, split=wanted.split)
    except Exception as error:  # noqa: BLE001 (datasets raises what its many back ends raise)
        reason = " ".join(str(error).split())[:200]
        raise SparsifyError(f"{source} cannot be fetched ({reason}); check name and network, or give a file") from None
    cache_dir.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    written = 0
    with part.open("w", encoding="utf-8") as stream:
        column = _text_column(rows[0], source) if len(rows) else ""
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


def _text_column(row: Mapping[str, Any], source: str) -> str:
    columns = [name for name, value in row.items() if isinstance(value, str)]
    if not columns:
        raise SparsifyError(f"{source} has no column of text among {', '.join(row)}")
    return "text" if "text" in columns else columns[0]
