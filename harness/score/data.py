"""The items that answers are scored against, and what is to be said of the file that they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.score.record import FileInfo
from suites.data import Item, as_items, data_file, file_sha256, kind_of, load_items, read_file
from suites.registry import Suite


@dataclass(frozen=True)
class ScoreData:
    """Items with their origin.

    Attributes:
        items: The items, in the data set's order.
        info: The file that holds them.
        events: That the file is of another version, for the summary.
    """

    items: list[Item]
    info: FileInfo
    events: tuple[dict[str, str], ...] = ()


def default_preset(suite: Suite) -> str:
    """The first preset on real data: what answers of others are given for."""
    for name, preset in suite.presets.items():
        if preset.data == "full":
            return name
    raise ConfigError(f"suite {suite.name} has no preset on real data; name one with --preset")


def load_data(
    suite: Suite, preset: str, *, file: Path | None = None, data_dir: Path | None = None, n: int | None = None
) -> ScoreData:
    """The items of a preset, from a given file, a data directory, an installed package or the hub.

    Args:
        suite: The suite.
        preset: One of its presets.
        file: The data file itself.
        data_dir: Folder of original files.
        n: The first `n` items; None for all.

    Raises:
        DataMissingError, SuiteError: The data is not here or cannot be read.
    """
    full = suite.data_of(preset)
    local = full.local if full is not None else None
    if file is not None:
        form = {".gz": "jsonl.gz", ".json": "json"}.get(file.suffix, "jsonl")
        docs = read_file(kind_of(suite, preset), file, form, ids=local.ids if local else None)
        items, found = as_items(suite, docs[:n]), file
    else:
        items = load_items(suite, preset, n=n, data_dir=data_dir)
        given = data_file(suite, preset, data_dir)
        if given is None:
            name = "pocket" if suite.preset(preset).data == "pocket" else str(full.hub if full else suite.name)
            return ScoreData(items, FileInfo(name=name, sha256=None, rows=len(items)))
        found = given
    expected = local.sha256 if local is not None else None
    info = FileInfo(name=found.name, sha256=file_sha256(found), expected_sha256=expected, rows=len(items))
    if expected is None or info.sha256 == expected:
        return ScoreData(items, info)
    detail = f"expected sha256 {expected}, found {info.sha256}: numbers may not compare with published ones"
    return ScoreData(items, info, ({"kind": "data_hash_mismatch", "where": found.name, "detail": detail},))
