"""What a stock `lm_eval` run calls; it loads this file by path, so nothing is imported at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def dataset(**settings: Any) -> Any:
    """The `test` and `train` splits; `--metadata` may set `preset`, `n` and `data_dir`."""
    from suites.stock import dataset as build

    return build("gsm8k", **settings)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The suite's own scores of one completion."""
    from suites.stock import process_results as score

    return score("gsm8k", doc, results)
