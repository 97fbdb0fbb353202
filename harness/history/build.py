"""A finished run to one record of a history, from the run's records alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CorruptRecordError
from harness.gate.result import MissingError
from harness.gate.run_records import RunRecords, check_against_study, open_run
from harness.gate.speed import undecided
from harness.history.pack import pack_codes, pack_scores
from harness.history.record import HistoryRecord, ItemSet, SkillPoint, SpeedPoint

if TYPE_CHECKING:
    from harness.records import Environment, SpeedRow, SuiteResult


@dataclass(frozen=True, slots=True)
class _Items:
    key: str
    found: ItemSet
    scores: str


def record_of(directory: Path, *, commit: str, time: str, with_items: bool = True) -> HistoryRecord:
    """The record of a run.

    Args:
        directory: folder of the run, or of records like `results/pocket`.
        commit: id of the commit that was measured.
        time: of that commit, UTC.
        with_items: keep the score of every item, which lets steps be paired. Without, only a large step can be told
            from the sampling error.

    Raises:
        ConfigError: There is no run.
        CorruptRecordError: A cell is cut short, incomplete or contradicts the summary; rows are missing.
    """
    run = open_run(directory)
    check_against_study(run)
    missing: dict[str, str] = {}
    skills: list[SkillPoint] = []
    item_sets: dict[str, ItemSet] = {}
    for variant in run.summary.variants:
        for suite in run.summary.study.suites:
            result, name = variant.suites.get(suite), f"{variant.name}.{suite}"
            if result is None or result.value is None:
                missing[name] = (result.reason if result is not None else None) or "not in the summary"
                continue
            items = _items(run, variant.name, suite) if with_items else None
            _complete(run, variant.name, suite)
            skills.append(_skill(run, variant.name, suite, result, items))
            if items is not None:
                item_sets[items.key] = items.found
    speeds: list[SpeedPoint] = []
    for row in run.summary.speed:
        _add_speed(row, run.summary.environment, speeds, missing)
    study = run.summary.study
    if not skills and not speeds:
        raise CorruptRecordError(f"{run.where} holds no score and no speed: run the study to its end")
    return HistoryRecord(
        commit=commit,
        time=time,
        study=study.name,
        study_hash=study.hash,
        machine=_machine(run.summary.environment),
        skills=skills,
        speeds=speeds,
        item_sets=dict(sorted(item_sets.items())),
        missing=missing,
    )


def _complete(run: RunRecords, variant: str, suite: str) -> None:
    try:
        run.require(variant, suite)
    except MissingError as problem:
        raise CorruptRecordError(str(problem)) from None


def _items(run: RunRecords, variant: str, suite: str) -> _Items:
    """The cell's items in the order of their keys, whatever the order in which they were written."""
    try:
        keyed = run.cell(variant, suite).rows
    except MissingError as problem:
        raise CorruptRecordError(f"{problem}; or keep no items: --no-items") from None
    rows = [keyed[key] for key in sorted(keyed)]
    what = [[row.seed, row.item_hash, row.prompt_hash] for row in rows]
    labels = [row.cluster for row in rows]
    codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    key = _hash({"items": what, "clusters": labels})
    found = ItemSet(n=len(rows), clusters=pack_codes([codes[label] for label in labels]))
    return _Items(key, found, pack_scores([row.score for row in rows]))


def _skill(run: RunRecords, variant: str, suite: str, result: SuiteResult, items: _Items | None) -> SkillPoint:
    template = (run.cell_key(variant, suite) or {}).get("chat_template_sha256")
    protocol = {
        "suite": result.suite_hash,
        "preset": result.preset,
        "metric": result.metric,
        "n": result.n,
        "template": template,
        "items": items.key if items is not None else None,
    }
    assert result.value is not None
    return SkillPoint(
        variant=variant,
        suite=suite,
        metric=result.metric,
        preset=result.preset,
        protocol=_hash(protocol),
        value=result.value,
        n=result.n,
        se=result.se,
        ci95=result.ci95,
        items=items.key if items is not None else None,
        scores=items.scores if items is not None else None,
    )


def _add_speed(row: SpeedRow, environment: Environment, speeds: list[SpeedPoint], missing: dict[str, str]) -> None:
    if (row.variant, row.engine, row.dtype) == (row.baseline.variant, row.baseline.engine, row.baseline.dtype):
        return  # 1 by definition
    if row.ratio is None:
        missing[f"{row.workload} of {row.variant} ({row.engine}, batch {row.batch})"] = row.reason or "not measured"
        return
    protocol = {
        "machine": _machine(environment),
        "threads": row.threads,
        "baseline": [row.baseline.variant, row.baseline.engine, row.baseline.dtype],
    }
    speeds.append(
        SpeedPoint(
            variant=row.variant,
            workload=row.workload,
            engine=row.engine,
            dtype=row.dtype,
            batch=row.batch,
            context=row.context,
            protocol=_hash(protocol),
            ratio=row.ratio,
            ci95=row.ci95,
            noise_floor=row.noise_floor,
            undecided=undecided(row),
        )
    )


def _machine(environment: Environment) -> str:
    parts = [environment.platform, environment.cpu_model, environment.cores and f"{environment.cores} cores"]
    return ", ".join(str(part) for part in (*parts, environment.accelerator) if part)


def _hash(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
