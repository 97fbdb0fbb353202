"""The whole benchmark: what is missing is measured, then results.json and results.md are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.evaluation.arms import ARMS, OURS, STOCK
from harness.bench.evaluation.ledger import Ledger, key_of
from harness.bench.evaluation.numbers import agreement, check_claims, pieces_of, speedup, split
from harness.bench.evaluation.render import markdown
from harness.bench.evaluation.settings import NEW_TOKENS, Settings
from harness.bench.evaluation.subjects import Subject, subject_directory
from harness.bench.sparsify.claims import as_json
from harness.bench.sparsify.journal import Journal
from harness.errors import ConfigError
from harness.records import write_json_atomic

JOURNAL = "pieces.jsonl"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What the command line asks for.

    Attributes:
        models: `pocket`, `random-100m` (made here).
        out: Folder of results and raw lines.
        work: Folder of the random model.
        data: Folder of real data.
        settings: Budgets.
        command: As it was typed, for the results.
    """

    models: tuple[str, ...]
    out: Path
    work: Path
    data: Path
    settings: Settings
    command: str


def run_benchmark(plan: Plan, *, measure: bool = True, quiet: bool = False) -> dict[str, Any]:
    """Run what is missing unless `measure` is off, then write the results; they come back as plain JSON.

    Raises:
        ConfigError: A report is asked for and nothing was measured.
        DataMissingError: GSM8K is not in the data folder.
        InfrastructureError: The arms were not given the same prompts.
    """
    journal = Journal(plan.out / JOURNAL)
    subjects = [Subject(name, subject_directory(name, plan.work), plan.data) for name in plan.models]
    ledgers = {s.name: Ledger(journal, key_of(s.name, s.directory, plan.settings)) for s in subjects}
    if measure:
        from harness.bench.evaluation.session import measure as measure_subject

        for subject in subjects:
            measure_subject(subject, plan.settings, ledgers[subject.name], quiet=quiet)
    if not any(pieces_of(ledger, plan.settings, (STOCK, OURS)) for ledger in ledgers.values()):
        raise ConfigError(f"{plan.out / JOURNAL} holds nothing that was measured with these settings")
    results = {
        "schema_version": SCHEMA_VERSION,
        "command": plan.command,
        "places": _places(ledgers.values()),
    }
    return write_results(results, ledgers, plan.settings, plan.out)


def write_results(
    results: Mapping[str, Any], ledgers: Mapping[str, Ledger], settings: Settings, out: Path
) -> dict[str, Any]:
    """Write results.json and results.md to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    claims = [claim for name, ledger in ledgers.items() for claim in check_claims(name, ledger, settings)]
    (out / "results.md").write_text(markdown(results, ledgers, claims, settings), "utf-8")
    whole = {
        **results,
        "settings": asdict(settings),
        "claims": as_json(claims),
        "models": [_model(name, ledger, settings) for name, ledger in ledgers.items()],
    }
    write_json_atomic(out / "results.json", whole)
    return whole


def _places(ledgers: Iterable[Ledger]) -> list[dict[str, Any]]:
    places = [place for ledger in ledgers for place in ledger.places()]
    return [place for at, place in enumerate(places) if place not in places[:at]]


def _model(name: str, ledger: Ledger, settings: Settings) -> dict[str, Any]:
    total = speedup(ledger, STOCK, OURS, pieces_of(ledger, settings, (STOCK, OURS)))
    tokens = {arm.name: agreement(ledger, settings, arm) for arm in ARMS if arm != STOCK}
    return {
        "model": name,
        "model_sha256": ledger.key["model_sha256"],
        "new_tokens": NEW_TOKENS[name],
        "speedup": asdict(total) if total is not None else None,
        "steps": [
            {"arm": arm.name, "adds": arm.adds, **asdict(against_stock), "against_step_before": step}
            for arm, against_stock, step in split(ledger, settings)
        ],
        "tokens": {
            arm: {**asdict(found), "margins": list(found.margins), "share": found.share}
            for arm, found in tokens.items()
            if found is not None
        },
    }
