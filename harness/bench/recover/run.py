"""The whole benchmark: what is missing is measured, then results.json, results.md and the plot are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.machine import describe_machine
from harness.bench.recover.arms import COST, Arm, all_arms, pieces_of
from harness.bench.recover.claims import check_claims
from harness.bench.recover.numbers import Comparison, Record
from harness.bench.recover.piece import Place
from harness.bench.recover.plot import recovery_plot, recovery_points
from harness.bench.recover.render import markdown
from harness.bench.recover.session import Session, expected_seconds
from harness.bench.recover.settings import Settings
from harness.bench.skills import need_sandbox, usable_engine
from harness.bench.sparsify.claims import as_json
from harness.bench.sparsify.journal import Journal
from harness.errors import ConfigError
from harness.records import write_json_atomic

JOURNAL = "pieces.jsonl"
PLOT = "recovery.svg"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What the command line asks for.

    Attributes:
        arms: Which arms.
        seeds: Which seeds; the first is the one that chooses learning rates.
        out: Folder of results and raw lines.
        work: Folder of text, stages, variants and answers.
        engine: What executes variants when skills are measured: torch, sparse or auto.
        jobs: Worker processes at a time; 0 takes one per core, at most 4.
        hours: Stop with the first piece that is finished after so long; None goes on to the end.
        settings: Budgets.
        command: As it was typed, for the results.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    out: Path
    work: Path
    engine: str
    jobs: int
    hours: float | None
    settings: Settings
    command: str


def run_benchmark(plan: Plan, *, measure: bool = True, quiet: bool = False) -> dict[str, Any]:
    """Run what is missing unless `measure` is off, then write the results; they come back as plain JSON.

    Raises:
        ConfigError: The model is missing, or a report is asked for and nothing was measured.
        InfrastructureError: A worker died, the disk is full, or no sandbox can run generated code.
    """
    from harness.models import model_directory
    from harness.run import RunOptions

    options = RunOptions(jobs=plan.jobs)
    place = Place(
        base=model_directory(plan.settings.model, offline=True),
        journal=plan.out / JOURNAL,
        work=plan.work,
        engine=usable_engine(plan.engine),
        threads=options.threads,
    )
    journal = Journal(place.journal)
    session = Session(plan.settings, place, journal, options.workers, quiet)
    if measure:
        if any(
            session.known(arm, seed) is None for arm, seed in pieces_of(plan.arms, plan.seeds) if arm.method != COST
        ):
            need_sandbox()
        session.run(plan.arms, plan.seeds, hours=plan.hours)
    record = Record(journal.lines, session.model_sha256, plan.settings)
    if not record.arms and not record.failed and record.cost is None:
        raise ConfigError(f"{place.journal} holds nothing that was measured with these settings; leave --report out")
    results = {"schema_version": SCHEMA_VERSION, "command": plan.command, "machine": describe_machine()}
    return write_results(results, record, plan.out)


def listing(arms: Sequence[Arm], seeds: Sequence[int], settings: Settings) -> str:
    """The arms with their seeds, and roughly how long each takes on one core."""
    pieces = pieces_of(arms, seeds)
    spent: dict[str, float] = {}
    for (arm, _), seconds in zip(pieces, expected_seconds(pieces, settings), strict=True):
        spent[arm.name] = spent.get(arm.name, 0.0) + seconds
    count = {arm.name: sum(other == arm for other, _ in pieces) for arm in arms}
    width = max(map(len, spent))
    lines = [f"{name:{width}}  {count[name]} seed(s)  {seconds / 60:5.0f} min" for name, seconds in spent.items()]
    return "\n".join([*lines, f"together about {sum(spent.values()) / 3600:.1f} h on one core"])


def write_results(results: Mapping[str, Any], record: Record, out: Path) -> dict[str, Any]:
    """Write results.json, results.md and the plot to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    claims = check_claims(record)
    drawn = recovery_plot(recovery_points(record), f"{record.settings.model}: mean recovery over the skills")
    if drawn:
        (out / PLOT).write_text(drawn, "utf-8")
    (out / "results.md").write_text(markdown(results, record, claims, plot=bool(drawn)), "utf-8")
    whole = {
        **results,
        "settings": asdict(record.settings),
        "claims": as_json(claims),
        "arms": [_arm(record, arm) for arm in all_arms() if arm.name in record.arms],
        "cost": {name: value for name, value in record.cost.items() if name != "settings"} if record.cost else None,
        "failed": [{name: line[name] for name in ("arm", "seed", "error")} for line in record.failed],
    }
    write_json_atomic(out / "results.json", whole)
    return whole


def _arm(record: Record, arm: Arm) -> dict[str, Any]:
    compared = {"baseline": arm.baseline} if arm.baseline is not None else {}
    if arm.suites == Arm("base").suites and arm.method != "base":
        compared["base"] = Arm("base")
    found = {name: record.compare(arm, other) for name, other in compared.items()}
    return {
        "arm": arm.name,
        "seeds": list(record.arms[arm.name]),
        "scores": {suite: record.mean(arm.name, suite) for suite in arm.suites},
        **{name: _comparison(comparison) for name, comparison in found.items() if comparison is not None},
        "pieces": [_piece(line) for line in record.arms[arm.name].values()],
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "against": found.against,
        "mean": asdict(found.mean),
        "over_seeds": asdict(found.over_seeds) if found.over_seeds is not None else None,
        "limits": found.limits,
        "by_seed": found.by_seed,
        "suites": {suite: asdict(paired) for suite, paired in found.suites.items()},
    }


def _piece(line: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("seed", "variant_sha256", "zeros", "bits", "masks", "chosen", "engine", "make_seconds", "evaluate_seconds")
    return {name: line[name] for name in kept}
