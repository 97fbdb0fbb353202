"""What a stock `lm_eval` run calls; it loads this file by path, so nothing is imported at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def dataset(**settings: Any) -> Any:
    """The `test` split; `--metadata` may set `preset`, `n` and `data_dir`."""
    from suites.stock import dataset as build

    return build("instruct", **settings)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The suite's own scores of one completion."""
    from suites.stock import process_results as score

    return score("instruct", doc, results)


def mean_of_all(items: Sequence[Sequence[float]]) -> float:
    """The mean over all instructions of all prompts: a prompt with three counts three times."""
    flat = [value for item in items for value in item]
    return sum(flat) / len(flat)
