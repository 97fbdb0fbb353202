"""A record of ours (`summary.json`, with its sample rows where they lie beside it) to rows of the leaderboard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.errors import CorruptRecordError
from harness.gate.result import MissingError
from harness.gate.run_records import RunRecords, open_run
from harness.layout import Layout, read_json
from harness.leaderboard.model import (
    ITEMS_UNKNOWN,
    Cell,
    LeftOut,
    Other,
    Panel,
    Protocol,
    Recovery,
    Row,
    Scores,
    Source,
    Speed,
)
from harness.records import SpeedRow, SuiteResult, Summary, VariantSummary
from harness.report.markdown import problems_of

NO_ROWS = "no sample rows lie beside the summary"


def read_run(path: Path, source: Source) -> tuple[list[Row], list[LeftOut]]:
    """Rows of a record, and what of it cannot be shown.

    Raises:
        ConfigError: There is no summary.
        CorruptRecordError: A record is cut short, damaged, of another schema version, or contradicts itself.
    """
    run = open_run(path)
    folder = path if path.is_dir() else path.parent
    environment = _environment(run.summary)
    told, left_out = _command(run.summary, folder), []
    speeds: dict[str, dict[Panel, Speed]] = {}
    known = {variant.name for variant in run.summary.variants}
    for number, measured in enumerate(run.summary.speed):
        name = measured.variant
        panel, speed = _speed(measured, number, run.summary, source)
        if name not in known:
            reason = "the record has no variant of that name, so nothing says whose speed it is"
            left_out.append(LeftOut(source.label, f"speed of {name} ({panel.panel}, {panel.engine})", reason))
        elif panel in speeds.setdefault(name, {}):
            raise CorruptRecordError(
                f"{source.label}: panel {panel.panel} holds {name} on {panel.engine} twice; run the study again"
            )
        else:
            speeds[name][panel] = speed
    rows = []
    for number, variant in enumerate(run.summary.variants):
        where = f"/variants/{number}"
        cells = {}
        for suite in variant.suites:
            protocol, cell = _cell(run, variant.name, suite, f"{where}/suites/{suite}")
            cells[protocol] = cell
        row = Row(
            source=source,
            variant=variant.name,
            study=run.summary.study.name,
            study_hash=run.summary.study.hash,
            base=variant.base,
            where=where,
            command=told,
            environment=environment,
            cells=cells,
            speeds=speeds.get(variant.name, {}),
            recovery=_recovery(variant, where, known),
            recipe=variant.recipe,
            recipe_hash=variant.recipe_hash,
            sparsity=variant.sparsity.linears,
            weight_bits=variant.weight_bits,
            dtype=variant.dtype,
            bytes=variant.bytes,
            parameters=variant.parameters,
            weights_sha256=variant.weights_sha256,
            notes=tuple(f"{event.kind}: {event.where}: {event.detail}" for event in variant.events),
        )
        rows.append(row)
    return rows, left_out


def _cell(run: RunRecords, variant: str, suite: str, where: str) -> tuple[Protocol, Cell]:
    summary = run.summary.variant(variant)
    assert summary is not None
    result = summary.suites[suite]
    scores, unpaired = None, NO_ROWS
    complete = result.value is not None and result.n == result.n_total
    if complete:
        try:
            found = run.cell(variant, suite).rows
        except MissingError:
            found = {}
        if found:
            keys = tuple(sorted(found))
            rows = [found[key] for key in keys]
            scores = Scores(keys, np.array([row.score for row in rows]), tuple(row.cluster for row in rows))
    elif result.value is not None:
        unpaired = f"incomplete: {result.n} of {result.n_total} items"
    # Cut answers are common and scored as they are; items counted as 0 because nothing answered them are not.
    unanswered = result.n_error or result.n_refused or result.n_truncated_input
    settings = {
        "preset": result.preset,
        "suite_hash": result.suite_hash,
        "n": str(result.n_total),
        "items": scores.digest() if scores else ITEMS_UNKNOWN,
    }
    cell = Cell(
        value=result.value,
        n=result.n,
        n_total=result.n_total,
        se=result.se,
        ci95=result.ci95,
        method=result.method,
        where=where,
        note="; ".join(filter(None, (result.reason, problems_of(result) if unanswered else ""))) or None,
        scores=scores,
        unpaired=None if scores else unpaired,
        complete=complete,
        answers=problems_of(result) or None,
        others=_others(result, where),
    )
    return Protocol(suite, result.metric, "sparsebench", tuple(sorted(settings.items()))), cell


def _others(result: SuiteResult, where: str) -> tuple[Other, ...]:
    metrics = enumerate(result.metrics)
    return tuple((metric.name, metric.value, metric.se, f"{where}/metrics/{number}") for number, metric in metrics)


def _recovery(variant: VariantSummary, where: str, known: set[str]) -> Recovery | None:
    mean = variant.recovery.get("mean")
    if variant.baseline is None or mean is None:
        return None
    note = mean.reason
    if variant.baseline not in known:
        gone = f"its baseline {variant.baseline} is not in this record"
        note = f"{note}; {gone}" if note else gone
    return Recovery(mean.value, mean.ci95, mean.n, variant.baseline, note, f"{where}/recovery/mean")


def _environment(summary: Summary) -> tuple[tuple[str, str], ...]:
    found: Mapping[str, object] = summary.environment.model_dump(mode="json")
    return tuple((name, str(value)) for name, value in found.items() if value is not None)


def _host(summary: Summary) -> str:
    where = summary.environment
    parts = [where.cpu_model or "unknown CPU", f"{where.cores} cores" if where.cores else "", where.accelerator or ""]
    return ", ".join(part for part in (*parts, where.platform) if part)


def _speed(row: SpeedRow, number: int, summary: Summary, source: Source) -> tuple[Panel, Speed]:
    base = row.baseline
    panel = Panel(
        study=summary.study.name,
        study_hash=summary.study.hash,
        record=source.sha256,
        host=_host(summary),
        panel=row.panel,
        workload=row.workload,
        engine=row.engine,
        dtype=row.dtype,
        context=row.context,
        batch=row.batch,
        threads=str(row.threads) if row.threads is not None else "default",
        baseline=f"{base.variant} on {base.engine} in {base.dtype}",
    )
    speed = Speed(
        ratio=row.ratio,
        ci95=row.ci95,
        tokens_per_s=row.tokens_per_s,
        noise_floor=row.noise_floor,
        verdict=row.verdict,
        note=row.reason,
        where=f"/speed/{number}",
        source=source,
    )
    return panel, speed


def study_file(summary: Summary) -> str:
    """Name that the leaderboard gives the study's own file, where it may show it."""
    return f"studies/{re.sub(r'[^A-Za-z0-9._-]+', '-', summary.study.name)}-{summary.study.hash[:8]}.json"


def _command(summary: Summary, folder: Path) -> str:
    """How to make the record again; the study travels with the leaderboard where it names no local path."""
    study = shown_study(folder)
    wanted = study_file(summary) if study and study["hash"] == summary.study.hash else None
    if wanted is None:
        return f"sparsebench run STUDY --out DIR  # STUDY: {summary.study.name}, hash {summary.study.hash}"
    slug = Path(wanted).stem
    data = " --data-dir DATA" if _needs_data(summary) else ""
    return f"sparsebench run {wanted} --out out/{slug}{data}"


def shown_study(folder: Path) -> dict[str, object] | None:
    """`study.json` beside a summary; None where there is none, or where it names paths or servers of somebody's own."""
    path = Layout(folder).study
    if not path.is_file():
        return None
    found = read_json(path)
    study = found.get("study")
    if not isinstance(study, dict) or not isinstance(found.get("hash"), str):
        raise CorruptRecordError(f"{path} is damaged (no study or hash); delete it and run again")
    return None if _private(study) else {"hash": found["hash"], "study": study}


def _private(value: object) -> bool:
    if isinstance(value, dict):
        return any(name in ("base_url", "endpoint") and inner or _private(inner) for name, inner in value.items())
    if isinstance(value, list):
        return any(_private(inner) for inner in value)
    return isinstance(value, str) and (value.startswith(("/", "./", "../", "~", "file:")) or "\\" in value)


def _needs_data(summary: Summary) -> bool:
    from suites.errors import SuiteError
    from suites.registry import load_suite

    for variant in summary.variants:
        for suite, result in variant.suites.items():
            try:
                if load_suite(suite).preset(result.preset).data == "full":
                    return True
            except SuiteError:
                continue
    return False
