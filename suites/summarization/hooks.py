"""What a stock `lm_eval` run calls; it loads this file by path, so nothing is imported at the top."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def dataset(**settings: Any) -> Any:
    """The `test` split; `--metadata` may set `preset`, `n` and `data_dir`."""
    from suites.stock import dataset as build

    return build("summarization", **settings)


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """The suite's own prompt."""
    from suites.summarization.scoring import prompt

    return prompt(json.loads(doc["doc_json"]))


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """The first reference summary; scoring uses all of them."""
    from suites.summarization.scoring import references

    return references(json.loads(doc["doc_json"]))[0]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The suite's own scores of one completion."""
    from suites.stock import process_results as score

    return score("summarization", doc, results)
