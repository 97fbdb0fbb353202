"""From the raw timings of a panel's runs to its rows. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.bench.clock import Timing, block_medians
from harness.bench.decide import Comparison, Findings, compare, floor_of, restlessness, verdict_of
from harness.bench.latency import percentiles
from harness.bench.spec import BASELINE_REASON, PanelOptions, PanelRow, PanelSpec, Verdict

TWIN = "#twin"
STEP_METRIC = {"decode": "itl", "prefill": "ttft", "throughput": "e2e"}


@dataclass(frozen=True)
class Entry:
    """One variant on one engine of a panel; `skip` says why it is not measured."""

    variant: str
    engine: str
    process: str
    bytes: int | None = None
    skip: str | None = None


@dataclass(frozen=True)
class Outcome:
    """A panel at one batch size: the deciding run (or the last attempt), and the confirmation run where one was made.

    Attributes:
        result: What `run_interleaved` returned.
        findings: What it came to.
        attempts: Runs it took.
        confirmation: Findings of the confirmation run.
        at_least: Ratios asked of variants, by process.
    """

    result: Mapping[str, Any]
    findings: Findings
    attempts: int
    confirmation: Findings | None = None
    at_least: Mapping[str, float] = field(default_factory=dict)


def process_name(spec: PanelSpec, variant: str, engine: str) -> str:
    """How a variant on an engine is called among the processes."""
    return variant if engine == spec.engine else f"{variant}@{engine}"


def timings_of(result: Mapping[str, Any]) -> dict[str, list[Timing]]:
    """Measurements by process, in block order."""
    timings: dict[str, list[Timing]] = {}
    for measure in result["measures"]:
        timing = Timing(tuple(measure["seconds"]), measure["cpu"], measure.get("joules"))
        timings.setdefault(measure["process"], []).append(timing)
    return timings


def findings_of(spec: PanelSpec, result: Mapping[str, Any]) -> Findings:
    """What one run came to."""
    medians = {process: block_medians(timings) for process, timings in timings_of(result).items()}
    bandwidth = (result["before"]["read_bandwidth"], result["after"]["read_bandwidth"])
    if spec.baseline not in medians or spec.baseline + TWIN not in medians:
        return Findings(None, {}, restlessness(None, bandwidth))
    compared = compare(spec.baseline, medians, seed=spec.seed)
    floor = compared.pop(spec.baseline + TWIN)
    return Findings(floor, compared, restlessness(floor_of(floor.ratio), bandwidth))


def panel_rows(spec: PanelSpec, entries: Sequence[Entry], outcome: Outcome) -> list[PanelRow]:
    """One row per entry, in order."""
    return [_row(spec, entry, outcome) for entry in entries]


def unmeasured_rows(spec: PanelSpec, entries: Sequence[Entry], reasons: Mapping[str, str]) -> list[PanelRow]:
    """Rows of a batch size at which no process is left."""
    findings = Findings(None, {}, ())
    outcome = Outcome({"measures": [], "processes": {}, "dropped": reasons}, findings, 0)
    return panel_rows(spec, entries, outcome)


def _row(spec: PanelSpec, entry: Entry, outcome: Outcome) -> PanelRow:
    findings = outcome.findings
    timings = timings_of(outcome.result).get(entry.process, [])
    process = outcome.result["processes"].get(entry.process, {}) if timings else {}
    is_baseline = entry.process == spec.baseline
    found = findings.compared.get(entry.process)
    verdict = _verdict(spec, entry, outcome) if timings else "not measured"
    return PanelRow(
        panel=spec.panel,
        workload=spec.workload,
        engine=entry.engine,
        variant=entry.variant,
        dtype=spec.dtype,
        threads=spec.threads,
        batch=spec.batch,
        context=spec.context,
        tokens_per_s=spec.tokens_per_step / statistics.median(block_medians(timings)) if timings else None,
        baseline={"variant": spec.baseline, "engine": spec.engine, "dtype": spec.dtype},
        ratio=1.0 if is_baseline and timings else found.ratio.value if found else None,
        ci95=found.ratio.ci95 if found else None,
        noise_floor=_floor(findings.floor) if timings else None,
        n_blocks=len(timings),
        reason=_reason(spec, entry, outcome, verdict),
        p_value=found.p_value if found else None,
        verdict=verdict,
        confirmation=_confirmation(entry.process, outcome.confirmation),
        attempts=outcome.attempts if timings else None,
        peak_rss=process.get("peak_rss"),
        peak_device=process.get("peak_device"),
        bytes=entry.bytes,
        energy_j_per_token=energy_per_token(spec, timings) if timings else None,
        percentiles=_percentiles(spec, timings),
        packing=process.get("packing"),
    )


def _reason(spec: PanelSpec, entry: Entry, outcome: Outcome, verdict: Verdict) -> str | None:
    dropped: Mapping[str, str] = outcome.result["dropped"]
    if entry.skip or entry.process in dropped:
        return entry.skip or dropped[entry.process]
    if entry.process == spec.baseline:
        return BASELINE_REASON
    if outcome.findings.floor is None:
        lost = dropped.get(spec.baseline) or dropped.get(spec.baseline + TWIN) or "not measured"
        return f"no ratio: the baseline has no time at batch {spec.batch} ({lost})"
    if outcome.findings.restless:
        return f"not decided after {outcome.attempts} runs: {'; '.join(outcome.findings.restless)}"
    if verdict == "not decided" and outcome.confirmation:
        return f"not decided, the confirmation run never came to rest: {'; '.join(outcome.confirmation.restless)}"
    if verdict == "unconfirmed":
        return "unconfirmed: a second run did not show it again" if outcome.confirmation else "unconfirmed: run once"
    return None


def _verdict(spec: PanelSpec, entry: Entry, outcome: Outcome) -> Verdict:
    if entry.process == spec.baseline:
        return "not decided" if outcome.findings.restless else "baseline"
    at_least = outcome.at_least.get(entry.process)
    return verdict_of(entry.process, outcome.findings, outcome.confirmation, at_least=at_least)


def energy_per_token(spec: PanelSpec, timings: Sequence[Timing]) -> float | Literal["unavailable"]:
    """Joules of the package per token over all timed steps; `unavailable` unless every measurement has them."""
    joules = [timing.joules for timing in timings if timing.joules is not None]
    steps = sum(len(timing.seconds) for timing in timings)
    if len(joules) < len(timings) or not joules or sum(joules) <= 0:
        return "unavailable"
    return sum(joules) / (steps * spec.tokens_per_step)


def _percentiles(spec: PanelSpec, timings: Sequence[Timing]) -> dict[str, Any] | None:
    """Of single units of work: a decode step is a gap between tokens, a prefill the wait for the first token."""
    seconds = [each / spec.forwards for timing in timings for each in timing.seconds]
    if not seconds:
        return None
    return {"metric": STEP_METRIC[spec.workload], "n": len(seconds), **percentiles(seconds)}


def _floor(floor: Comparison | None) -> dict[str, Any] | None:
    return {"ratio": floor.ratio.value, "ci95": list(floor.ratio.ci95 or ())} if floor else None


def _confirmation(process: str, findings: Findings | None) -> dict[str, Any] | None:
    found = findings.compared.get(process) if findings else None
    if findings is None or found is None:
        return None
    return {
        "ratio": found.ratio.value,
        "ci95": list(found.ratio.ci95 or ()),
        "p_value": found.p_value,
        "floor": findings.reach,
        "decided": not findings.restless,
    }


def lacks_confirmation(rows: Sequence[PanelRow], options: PanelOptions) -> bool:
    """Whether rows read from a record fall short of a ratio asked for now, and were not measured again for it."""
    return any(
        row.ci95 is not None
        and row.verdict not in (None, "not decided")
        and row.confirmation is None
        and row.ci95[1] < options.at_least.get(row.variant, 0.0)
        for row in rows
    )
