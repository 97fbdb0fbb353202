"""How lm-eval sees a suite: rows with uniform columns, and its own scores.

The `hooks.py` beside each `task.yaml` forwards to here, so that a stock `lm_eval --include_path suites` run and the
harness build the same prompts and call the same scoring function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suites.data import Item, load_fewshot, load_items
from suites.registry import load_suite, scorer


def row(item_id: str, doc: Mapping[str, Any]) -> dict[str, str]:
    """One row for lm-eval: `item_id`, `doc_json`, and each field of the document that is a plain text.

    Nested fields travel inside `doc_json` only, because an Arrow table would fill their missing keys with nulls.
    """
    plain = {name: value for name, value in doc.items() if isinstance(value, str)}
    return {**plain, "item_id": item_id, "doc_json": json.dumps(doc, ensure_ascii=False)}


def item_rows(items: Sequence[Item]) -> list[dict[str, str]]:
    """The rows of test items."""
    return [row(item.item_id, item.doc) for item in items]


def fewshot_rows(docs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows of worked examples."""
    return [row(f"fewshot/{index}", doc) for index, doc in enumerate(docs)]


def dataset(
    name: str, *, preset: str = "pocket", n: int | None = None, data_dir: str | None = None, **_: Any
) -> dict[str, Any]:
    """The `test` and `train` splits of a suite, for a task's `custom_dataset`.

    Args:
        name: Name of the suite.
        preset: Preset that names the data.
        n: The first `n` items; None for all.
        data_dir: Folder of original files.
        **_: What lm-eval adds of its own (model arguments, task version).

    Returns:
        Two `datasets.Dataset`; `train` holds the preset's worked examples and may be empty.
    """
    from datasets import Dataset

    suite = load_suite(name)
    folder = Path(data_dir) if data_dir else None
    items = load_items(suite, preset, n=int(n) if n else None, data_dir=folder)
    examples = load_fewshot(suite, preset, data_dir=folder)
    return {"test": Dataset.from_list(item_rows(items)), "train": Dataset.from_list(fewshot_rows(examples))}


def process_results(name: str, doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The suite's scores of one completion, for a task's `process_results`."""
    scores: dict[str, Any] = scorer(name).score(json.loads(doc["doc_json"]), results[0])
    return scores
