"""The leaderboard's scores as others read them: the Hugging Face hub (two forms), and lm-eval's results files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from harness.leaderboard.assemble import Leaderboard
from harness.leaderboard.model import Cell, Protocol, Row
from suites.errors import SuiteError
from suites.presets import FullData
from suites.registry import load_suite, suite_hash

_TASK_TYPES = {"summarization": "summarization"}
_METRIC_TYPES = (("exact_match", "exact_match"), ("pass@", "code_eval"), ("rouge", "rouge"), ("acc", "accuracy"))
"""Beginning of a metric's name, and the hub's identifier of the metric."""


class _Benchmark(NamedTuple):
    """A task of a data set's eval.yaml on the hub, how many items it has, and what is listed there."""

    task: str
    items: int
    metric: str


_BENCHMARKS: dict[tuple[str | None, str | None, str], _Benchmark] = {
    ("openai/gsm8k", "main", "test"): _Benchmark("gsm8k", 1319, "exact_match")
}
"""Data (id, configuration, split) of our suites that the hub has registered as benchmarks."""


def card_files(found: Leaderboard) -> dict[str, str]:
    """A YAML file for each row, with the `model-index` of a model card (hub-docs/modelcard.md); values in 0..1."""
    files = {}
    for row in _rows(found):
        results = [_result(row, column, cell) for column, cell in _scored(row)]
        index = [{"name": row.variant, "results": results}]
        files[f"model-index/{_slug(row)}.yaml"] = yaml.safe_dump(
            {"model-index": index}, sort_keys=False, allow_unicode=True, width=10_000
        )
    return files


def eval_results_files(found: Leaderboard) -> dict[str, str]:
    """`.eval_results/<suite>.yaml` of a model's repository for each row: what the hub lists on the benchmark's page.

    The form is that of hub-docs/eval_results.yaml; values in percent, as others list theirs. Only scores over all
    items of a registered benchmark's split: a score over a part of it would stand there as the whole.
    """
    files: dict[str, str] = {}
    for row in _rows(found):
        by_suite: dict[str, list[dict[str, Any]]] = {}
        for column, cell in _scored(row):
            entry = _benchmark_entry(row, column, cell)
            if entry is not None:
                by_suite.setdefault(column.suite, []).append(entry)
        for suite, entries in by_suite.items():
            text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=10_000)
            files[f"eval-results/{_slug(row)}/.eval_results/{suite}.yaml"] = text
    return files


def _benchmark_entry(row: Row, column: Protocol, cell: Cell) -> dict[str, Any] | None:
    data = _data_of(column)
    known = _BENCHMARKS.get((data.hub, data.config, data.split)) if data is not None else None
    if data is None or known is None or cell.value is None or _metric_type(column.metric) != known.metric:
        return None
    if not cell.n == cell.n_total == known.items:
        return None
    dataset = {"id": data.hub, "task_id": known.task, **({"revision": data.revision} if data.revision else {})}
    interval = f"; 95 % interval {100 * cell.ci95[0]:.2f} to {100 * cell.ci95[1]:.2f}" if cell.ci95 else ""
    notes = f"{column.told()}{interval}; record {row.source.sha256[:12]}"
    return {"dataset": dataset, "value": round(100 * cell.value, 4), "notes": notes}


def lm_eval_files(found: Leaderboard) -> dict[str, str]:
    """A folder for each row with `results_<record>.json` in the shape of lm-eval 0.4.

    A record has no time of day, so that `date` is 0, and the stamp in the name is the record's hash.
    """
    files = {}
    for row in _rows(found):
        name = f"lm-eval/{_slug(row)}/results_{row.source.sha256[:12]}.json"
        files[name] = json.dumps(_lm_eval(row), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return files


def _rows(found: Leaderboard) -> Iterator[Row]:
    return (row for board in found.boards for row in board.rows if any(True for _ in _scored(row)))


def _scored(row: Row) -> Iterator[tuple[Protocol, Cell]]:
    cells = sorted(row.cells.items(), key=lambda item: (item[0].suite, item[0].id))
    return ((column, cell) for column, cell in cells if cell.value is not None)


def _slug(row: Row) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', f'{row.study}-{row.variant}').strip('-.')}-{row.id}"


def _result(row: Row, column: Protocol, cell: Cell) -> dict[str, Any]:
    data, config = _data_of(column), {}
    pretty = f"{column.suite} ({_preset(column)})"
    dataset: dict[str, Any] = {"name": pretty, "type": column.suite}
    if data is not None and data.hub is not None:
        config = {"config": data.config, "split": data.split, "revision": data.revision}
        dataset = {"name": pretty, "type": data.hub, **{key: value for key, value in config.items() if value}}
    args: dict[str, Any] = {"n": cell.n, "n_total": cell.n_total, "interval": cell.method}
    args |= {"ci95": list(cell.ci95)} if cell.ci95 else {}
    args |= {"stderr": cell.se} if cell.se is not None else {}
    told = {
        "protocol": column.told(),
        "suite_hash": column.setting("suite_hash") or column.setting("task_hash"),
        "record_sha256": row.source.sha256,
        "weights_sha256": row.weights_sha256,
        "study_hash": row.study_hash,
    }
    args |= {key: value for key, value in told.items() if value}
    metric = {"type": _metric_type(column.metric), "value": cell.value, "name": column.metric, "args": args}
    kind = _TASK_TYPES.get(column.suite.removeprefix("sparsebench_"), "text-generation")
    return {"task": {"type": kind}, "dataset": dataset, "metrics": [metric]}


def _preset(column: Protocol) -> str:
    preset = column.setting("preset")
    return f"sparsebench, preset {preset}" if preset else f"lm-eval, {column.setting('shots')}-shot"


def _metric_type(metric: str) -> str:
    return next((kind for start, kind in _METRIC_TYPES if metric.startswith(start)), metric.partition(",")[0])


def _data_of(column: Protocol) -> FullData | None:
    """Where a suite's real data come from, if this version of the suite is the one that was measured."""
    preset = column.setting("preset")
    if column.origin != "sparsebench" or preset is None:
        return None
    try:
        suite = load_suite(column.suite)
        same = suite_hash(suite, preset) == column.setting("suite_hash")
        return suite.data_of(preset) if same and suite.preset(preset).data == "full" else None
    except SuiteError:
        return None


def _lm_eval(row: Row) -> dict[str, Any]:
    results: dict[str, Any] = {}
    told: dict[str, dict[str, Any]] = {
        name: {} for name in ("configs", "versions", "n-shot", "higher_is_better", "n-samples")
    }
    for column, cell in _scored(row):
        task = column.suite if column.suite not in results else f"{column.suite}@{column.id[-8:]}"
        metric, _, name = column.metric.partition(",")
        entry: dict[str, Any] = {"name": task, "alias": task, "sample_len": cell.n}
        metrics = [(column.metric, cell.value, cell.se), *((n, value, se) for n, value, se, _ in cell.others)]
        for key, value, se in metrics:
            if value is None:
                continue
            one, _, filtered = key.partition(",")
            entry[f"{one},{filtered or 'none'}"] = value
            entry[f"{one}_stderr,{filtered or 'none'}"] = "N/A" if se is None else se
        results[task] = entry
        settings = dict(column.settings)
        told["configs"][task] = {"task": task, "metadata": {"sparsebench": settings}, "num_fewshot": _shots(column)}
        told["versions"][task] = settings.get("version") or _version(column)
        told["n-shot"][task] = _shots(column)
        told["higher_is_better"][task] = {metric: column.higher_is_better}
        told["n-samples"][task] = {"original": cell.n_total, "effective": cell.n}
    environment = dict(row.environment)
    return {
        "results": results,
        "group_subtasks": {task: [] for task in results},
        **told,
        "config": {
            "model": "sparsebench" if row.source.origin == "sparsebench" else "hf",
            "model_args": {"pretrained": row.base, "variant": row.variant, "study": row.study},
            "model_num_parameters": row.parameters,
            "model_dtype": row.dtype,
            "model_sha": row.revision or "",
            "batch_size": None,
            "limit": None,
            "gen_kwargs": {},
        },
        "git_hash": None,
        "date": 0,
        "model_name": row.variant,
        "model_name_sanitized": _slug(row),
        "model_source": "sparsebench",
        "lm_eval_version": environment.get("lm_eval"),
        "transformers_version": environment.get("transformers"),
        "sparsebench": {
            "record_sha256": row.source.sha256,
            "study_hash": row.study_hash,
            "weights_sha256": row.weights_sha256,
            "command": row.command,
        },
    }


def _shots(column: Protocol) -> int:
    told = column.setting("shots")
    if told is not None:
        return int(told) if told.isdigit() else 0
    try:
        return load_suite(column.suite).preset(column.setting("preset") or "").num_fewshot
    except SuiteError:
        return 0


def _version(column: Protocol) -> int | str:
    try:
        return load_suite(column.suite).version
    except SuiteError:
        return (column.setting("suite_hash") or "unknown")[:12]
