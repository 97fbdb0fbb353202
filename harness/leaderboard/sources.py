"""What the user gave to the record files behind it: found, hashed, named, in an order of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import ConfigError, InfrastructureError, SparsebenchError
from harness.leaderboard.lm_eval_file import looks_like_lm_eval
from harness.leaderboard.model import LeftOut, Row, Source

_SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Found:
    """One record file and the argument that it was found by."""

    path: Path
    source: Source


def find_sources(arguments: Sequence[Path]) -> tuple[list[Found], list[LeftOut]]:
    """The record files that the arguments name, sorted by content, and which of them were given more than once.

    Raises:
        ConfigError: An argument holds no record.
        InfrastructureError: A file cannot be read.
    """
    if not arguments:
        raise ConfigError("name at least one result: a run folder, a summary.json or an lm-eval results file")
    found = [each for argument in arguments for each in _of_argument(argument)]
    by_hash: dict[str, list[Found]] = {}
    for each in found:
        by_hash.setdefault(each.source.sha256, []).append(each)
    kept, repeated = [], []
    for sha, same in sorted(by_hash.items()):
        # The copy with rows beside it says more; among equals the name decides, not the order of arguments.
        same.sort(key=lambda each: (-_rows_beside(each.path), each.source.label, each.source.file))
        kept.append(same[0])
        if len({each.path.resolve() for each in same}) > 1:
            others = ", ".join(sorted(f"{each.source.label}/{each.source.file}" for each in same[1:]))
            reason = f"the same record, byte for byte, as {same[0].source.label}/{same[0].source.file} ({sha[:8]})"
            repeated.append(LeftOut(same[0].source.label, others, reason))
    return _named(kept), repeated


def read_source(found: Found) -> tuple[list[Row], list[LeftOut]]:
    """Rows of one record file.

    Raises:
        ConfigError: It is no record that this reads.
        CorruptRecordError: It is damaged.
    """
    if found.source.origin == "lm-eval":
        from harness.leaderboard.lm_eval_rows import read_lm_eval_run

        return read_lm_eval_run(found.path, found.source)
    from harness.leaderboard.ours import read_run

    return read_run(found.path, found.source)


def read_sources(found: Sequence[Found], *, skip_unreadable: bool = False) -> tuple[list[Row], list[LeftOut]]:
    """Rows of all record files.

    Args:
        found: The files.
        skip_unreadable: List a file that cannot be read with its reason, instead of stopping.

    Raises:
        SparsebenchError: A file cannot be read, unless those are to be skipped, or none can be read.
    """
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    for each in found:
        try:
            more, without = read_source(each)
        except SparsebenchError as error:
            if not skip_unreadable:
                raise
            # The message names the path on this machine, which has no place in a page for others.
            said = str(error).replace(str(each.path), each.source.file)
            said = said.replace(f"{each.path.parent}/", "")
            left_out.append(LeftOut(each.source.label, each.source.file, f"unreadable: {said}"))
            continue
        rows += more
        left_out += without
    return sorted(rows, key=lambda row: row.order), left_out


def _of_argument(argument: Path) -> list[Found]:
    name = argument.resolve().name or "results"
    if argument.is_dir():
        if (argument / _SUMMARY).is_file():
            return [_found(argument / _SUMMARY, name, _SUMMARY)]
        files = sorted({*argument.glob("results_*.json"), *argument.glob("*/results_*.json")})
        if not files:
            raise ConfigError(
                f"{argument} holds no summary.json and no results_*.json of lm-eval: give the folder of a finished run"
            )
        return [_found(file, name, _below(file, argument)) for file in files]
    if not argument.is_file():
        raise ConfigError(f"{argument} does not exist: give a run folder, a summary.json or an lm-eval results file")
    folder = argument.resolve().parent.name
    return [_found(argument, folder if argument.name == _SUMMARY and folder else argument.stem, argument.name)]


def _below(file: Path, argument: Path) -> str:
    """The file below the argument; without the folder in which lm-eval writes out the model's local path."""
    folder = file.parent.name
    return file.name if file.parent == argument or folder.startswith("__") else f"{folder}/{file.name}"


def _found(path: Path, label: str, file: str) -> Found:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InfrastructureError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    try:
        data: object = json.loads(raw)
    except ValueError:
        data = None
    foreign = looks_like_lm_eval(data) or (path.name.startswith("results") and not _is_ours(data))
    origin = "lm-eval" if foreign else "sparsebench"
    return Found(path, Source(label, file, hashlib.sha256(raw).hexdigest(), origin))  # type: ignore[arg-type]


def _is_ours(data: object) -> bool:
    return isinstance(data, dict) and "schema_version" in data


def _rows_beside(path: Path) -> int:
    folder = path.parent
    places = (folder / "samples.parquet", folder / "records" / "samples.parquet", folder / "records" / "samples")
    return int(any(place.exists() for place in places))


def _named(found: Sequence[Found]) -> list[Found]:
    """Give files of equal labels a part of their hash, so that a label names one file."""
    labels = [each.source.label for each in found]
    told = []
    for each in found:
        source = each.source
        if labels.count(source.label) > 1:
            source = replace(source, label=f"{source.label}@{source.sha256[:8]}")
        told.append(replace(each, source=source))
    return told
