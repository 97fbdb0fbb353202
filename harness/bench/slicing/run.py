"""The whole benchmark: what is missing is measured, then results.json, results.md and the plots are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.machine import describe_machine
from harness.bench.skills import need_sandbox, usable_engine
from harness.bench.slicing.arms import CE, Arm, all_arms, baseline_of
from harness.bench.slicing.claims import check_claims
from harness.bench.slicing.piece import Place, SliceTask, prepare
from harness.bench.slicing.plot import curves, slicing_plot
from harness.bench.slicing.record import Record
from harness.bench.slicing.render import markdown
from harness.bench.slicing.settings import Settings
from harness.bench.slicing.speed import measure_speed
from harness.bench.sparsify.claims import as_json
from harness.bench.sparsify.journal import Journal
from harness.errors import ConfigError
from harness.perplexity import exp_mean
from harness.pool import Pool
from harness.progress import Phase
from harness.records import write_json_atomic
from sparsify.files import sha256_json

JOURNAL, SPEED = "arms.jsonl", "speed.json"
SCHEMA_VERSION = 1
MODELS = ("pocket", "text")


@dataclass(frozen=True)
class Plan:
    """What the command line asks for.

    Attributes:
        models: `pocket`, `text` (trained here first if it is not there).
        arms: Which arms.
        out: Folder of results and raw lines.
        work: Folder of text, models, variants and answers.
        data: Folder of real text.
        engine: What executes variants when skills are measured: torch, sparse or auto.
        jobs: Worker processes at a time; 0 takes one per core, at most 4.
        speed: Seconds of measuring a speed panel; 0 leaves speed out.
        settings: Budgets.
        command: As it was typed, for the results.
    """

    models: tuple[str, ...]
    arms: tuple[Arm, ...]
    out: Path
    work: Path
    data: Path
    engine: str
    jobs: int
    speed: float
    settings: Settings
    command: str


def run_benchmark(plan: Plan, *, measure: bool = True, quiet: bool = False) -> dict[str, Any]:
    """Run what is missing unless `measure` is off, then write the results; they come back as plain JSON.

    Raises:
        ConfigError: A model or a text is missing, or a report is asked for and nothing was measured.
        InfrastructureError: A worker died, the disk is full, or no sandbox can run generated code.
    """
    journal = Journal(plan.out / JOURNAL)
    keys = _measured(plan, journal, quiet=quiet) if measure else _journaled(plan, journal)
    record = Record(journal.lines, keys, plan.settings)
    if not record.arms and not record.failed:
        raise ConfigError(f"{plan.out / JOURNAL} holds nothing that was measured with these settings")
    results = {"schema_version": SCHEMA_VERSION, "command": plan.command, "machine": describe_machine()}
    return write_results(results, record, plan.models, plan.out)


def write_results(results: Mapping[str, Any], record: Record, models: Sequence[str], out: Path) -> dict[str, Any]:
    """Write results.json, results.md and a plot per model to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    claims = check_claims(record, models)
    plots: dict[str, str] = {}
    for model in models:
        lines = {"dense": record.perplexity(Arm(model)), "dense, fine-tuned": record.perplexity(Arm(model, after=CE))}
        dense = {label: value for label, value in lines.items() if value is not None}
        drawn = slicing_plot(curves(record, model), dense, f"{model}: perplexity after slicing")
        if drawn:
            plots[model] = f"{model}.svg"
            (out / plots[model]).write_text(drawn, "utf-8")
    speed = _speed_rows(out / SPEED)
    said = markdown(results, record, claims, models=models, plots=plots, speed=speed)
    (out / "results.md").write_text(said, "utf-8")
    whole = {
        **results,
        "settings": asdict(record.settings),
        "claims": as_json(claims),
        "arms": [_arm(record, arm) for arm in all_arms(models) if arm.name in record.arms],
        "speed": speed,
        "failed": [{name: line[name] for name in ("arm", "error")} for line in record.failed],
    }
    write_json_atomic(out / "results.json", whole)
    return whole


def _measured(plan: Plan, journal: Journal, *, quiet: bool) -> dict[str, dict[str, Any]]:
    """Run what is missing; what the lines of each model belong to."""
    from harness.run import RunOptions

    options = RunOptions(jobs=plan.jobs)
    place = Place(
        models={model: _directory(model, plan) for model in plan.models},
        data=plan.data,
        work=plan.work,
        engine=usable_engine(plan.engine),
        threads=options.threads,
    )
    keys = {model: _key(directory, plan.settings) for model, directory in place.models.items()}
    _measure(plan, place, journal, keys, workers=options.workers, quiet=quiet)
    if plan.speed:
        rows = measure_speed(
            plan.work / "speed", plan.out / "speed", place.models["pocket"], budget=plan.speed, quiet=quiet
        )
        write_json_atomic(plan.out / SPEED, {"machine": describe_machine(), "rows": rows})
    return keys


def _journaled(plan: Plan, journal: Journal) -> dict[str, dict[str, Any]]:
    """What the last lines of each model belong to: a report needs no model, which may be of another machine."""
    settings = _settings_key(plan.settings)
    lines = [line for line in journal.lines if line["settings_sha256"] == settings["settings_sha256"]]
    found = {line["model"]: {"model_sha256": line["model_sha256"], **settings} for line in lines}
    return {model: found.get(model, {"model_sha256": None, **settings}) for model in plan.models}


def _measure(
    plan: Plan, place: Place, journal: Journal, keys: Mapping[str, Mapping[str, Any]], *, workers: int, quiet: bool
) -> None:
    missing = [arm for arm in plan.arms if not _known(journal, arm, keys[arm.model])]
    if any(arm.skilled for arm in missing):
        need_sandbox()
    tasks = [SliceTask(arm, plan.settings, place) for arm in missing]
    if not tasks:
        return
    for model in dict.fromkeys(task.arm.model for task in tasks):
        prepare(model, plan.settings, place)
    done = dict.fromkeys((task.name for task in tasks), 0.0)
    pool = Pool(workers, plan.work / "errors.log")
    with Phase("slice", len(tasks), quiet=quiet) as phase:
        for message in pool.run(list(tasks)):
            task: Any = message.task
            if message.kind == "progress":
                done[task.name], note = message.value
                phase.update(sum(done.values()), len(tasks), f"{task.name}: {note}")
                continue
            done[task.name] = 1.0
            journal.add(
                {
                    "arm": task.name,
                    "model": task.arm.model,
                    **keys[task.arm.model],
                    "machine": describe_machine(),
                    **message.value,
                }
            )
            phase.update(sum(done.values()), len(tasks), task.name)
            phase.say(f"{task.name}: {_told(message.value)}")


def _told(line: Mapping[str, Any]) -> str:
    if "error" in line:
        return f"failed: {line['error']}"
    read = {text: exp_mean(losses)[0] for text, losses in line["nats_per_token"].items()}
    return ", ".join(f"perplexity {value:.4g} ({text})" for text, value in read.items())


def _known(journal: Journal, arm: Arm, key: Mapping[str, Any]) -> bool:
    found = journal.find(arm=arm.name, **key)
    return found is not None and "error" not in found


def _key(directory: Path, settings: Settings) -> dict[str, Any]:
    from sparsify.checkpoint import model_fingerprint

    return {"model_sha256": model_fingerprint(directory), **_settings_key(settings)}


def _settings_key(settings: Settings) -> dict[str, Any]:
    return {"settings_sha256": sha256_json(asdict(settings))}


def _directory(model: str, plan: Plan) -> Path:
    from harness.models import model_directory

    if model != "text":
        return model_directory(model, offline=True)
    from harness.bench.sparsify.text_model import TextModel, make_text_model

    return make_text_model(plan.data, plan.work / "text-model", TextModel())


def _speed_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"]
    return rows


def _arm(record: Record, arm: Arm) -> dict[str, Any]:
    line = record.arms[arm.name]
    kept_names = ("variant_sha256", "parameters", "bytes", "macs_per_token", "zeros", "bits", "loaders")
    kept = record.kept(arm, baseline_of(arm)) if arm.fraction else None
    against = (
        {}
        if kept is None
        else {
            "against": baseline_of(arm).name,
            "kept": asdict(kept.mean),
            "suites": {suite: asdict(paired) for suite, paired in kept.suites.items()},
        }
    )
    read = {text: exp_mean(losses) for text, losses in line["nats_per_token"].items()}
    return {
        "arm": arm.name,
        **{name: line[name] for name in kept_names},
        "perplexity": {text: {"value": value, "ci95": interval} for text, (value, interval) in read.items()},
        "score": record.score(arm),
        **against,
    }
