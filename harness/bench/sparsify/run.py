"""The whole benchmark: models in turn, then results.json, results.md and a plot per model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.machine import describe_machine
from harness.bench.sparsify.arms import Arm
from harness.bench.sparsify.claims import check_claims
from harness.bench.sparsify.journal import Journal
from harness.bench.sparsify.plot import curves, perplexity_plot
from harness.bench.sparsify.render import markdown
from harness.bench.sparsify.session import Session
from harness.bench.sparsify.subjects import Settings, open_subject
from harness.bench.sparsify.workers import make_peer_environment, our_worker, peer_worker
from harness.errors import ConfigError
from harness.records import write_json_atomic

JOURNAL = "arms.jsonl"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What the command line asks for.

    Attributes:
        models: `text`, `pocket`, or directories.
        arms: Which arms.
        seeds: Calibration seeds; the first one runs every arm.
        out: Folder of results.
        work: Folder of corpora, the text model and variants in the making.
        data: Folder of real text.
        peers: Environment of llm-compressor; None leaves its arms out.
        settings: Of all arms.
        command: As it was typed, for the results.
    """

    models: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    out: Path
    work: Path
    data: Path
    peers: Path | None
    settings: Settings
    command: str


def run_benchmark(plan: Plan, *, measure: bool = True, quiet: bool = False) -> dict[str, Any]:
    """Run what is missing unless `measure` is off, then write the results; they come back as plain JSON.

    Raises:
        ConfigError: A text, a model or the peer's environment cannot be had.
        InfrastructureError: A worker died.
    """
    import torch

    torch.set_num_threads(1)
    if not plan.data.is_dir():
        raise ConfigError(f"--data {plan.data} is no folder; name the one with wikitext2_raw, c4_demo and the others")
    plan.work.mkdir(parents=True, exist_ok=True)
    journal = Journal(plan.out / JOURNAL)
    models: list[dict[str, Any]] = []
    with ExitStack() as stack:
        ours = stack.enter_context(our_worker(plan.work / "ours.log"))
        peer = None
        if plan.peers is not None and any(arm.peer for arm in plan.arms):
            peer = stack.enter_context(peer_worker(make_peer_environment(plan.peers), plan.work / "peer.log"))
        for model in plan.models:
            name, directory = _model(model, plan)
            subject = open_subject(name, directory, data=plan.data, work=plan.work, settings=plan.settings)
            session = Session(subject, plan.settings, journal, plan.work, ours, peer, quiet)
            if measure:
                session.run(plan.arms, plan.seeds)
            models.append(_collect(session, directory))
    results = {
        "schema_version": SCHEMA_VERSION,
        "command": plan.command,
        "machine": describe_machine(),
        "versions": _versions(journal),
        "models": models,
    }
    write_results(results, plan.out)
    return results


def write_results(results: dict[str, Any], out: Path) -> None:
    """Write results.json, results.md and one plot per model to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    shown = {**results, "models": [_with_claims(model) for model in results["models"]]}
    for model in shown["models"]:
        text = next(iter(model["dense"]["perplexity"]))
        title = f"{model['name']}: perplexity on {text}"
        drawn = perplexity_plot(curves(model["arms"], text), model["dense"]["perplexity"][text], title)
        if drawn:
            (out / f"{model['name']}.svg").write_text(drawn, "utf-8")
    (out / "results.md").write_text(markdown(shown), "utf-8")
    plain = [
        {
            **model,
            "claims": [vars(claim) for claim in model["claims"]],
            "arms": [_short(line) for line in model["arms"]],
        }
        for model in shown["models"]
    ]
    write_json_atomic(out / "results.json", {**results, "models": plain})


def _with_claims(model: dict[str, Any]) -> dict[str, Any]:
    lines = [model["dense"], *model["arms"], {"kind": "times", "model": model["name"], "times": model["times"]}]
    return {**model, "claims": check_claims(lines, model["name"], next(iter(model["dense"]["perplexity"])))}


def _short(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("kind", "model", "model_sha256")}


def _model(model: str, plan: Plan) -> tuple[str, Path]:
    from harness.models import model_directory

    if model == "text":
        from harness.bench.sparsify.text_model import TextModel, make_text_model

        return model, make_text_model(plan.data, plan.work / "text", TextModel())
    directory = model_directory(model, offline=True)
    return (model if model == "pocket" else directory.name), directory


def _collect(session: Session, directory: Path) -> dict[str, Any]:
    session.dense()
    key = session.key()
    lines = [line for line in session.journal.lines if all(line.get(name) == value for name, value in key.items())]
    latest = {(line["arm"], line["seed"]): line for line in lines if line["kind"] == "arm"}
    timed: dict[str, Sequence[Any]] = {}
    for line in lines:
        if line["kind"] == "times":
            timed |= line["times"]
    training = directory / "training.json"
    return {
        "name": session.subject.name,
        "sha256": key["model_sha256"],
        "training": json.loads(training.read_text("utf-8")) if training.exists() else None,
        "settings": next(line["settings"] for line in lines if line["kind"] == "dense"),
        "dense": next(line for line in lines if line["kind"] == "dense"),
        "arms": list(latest.values()),
        "times": timed,
    }


def _versions(journal: Journal) -> dict[str, Any]:
    found: dict[str, Any] = {"ours": None, "peer": None}
    for line in journal.lines:
        for side, versions in line.get("versions", {}).items():
            found[side] = versions or found[side]
    return found
