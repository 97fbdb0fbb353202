"""A small made-up run and how the gate is called on it; shared by the tests of the gate."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter

from harness.gate import Context, GateReport, RuleResult, RunRecords, check
from harness.gate_rules import GateRule
from harness.records import Summary

runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))
RULES: TypeAdapter[Any] = TypeAdapter(list[GateRule])
N = 300
SUITES = ("gsm8k", "code", "summarization")


def scores(n: int = N) -> dict[str, dict[str, list[float]]]:
    """dense; twin, its equal; noisy, no worse but with flips; damaged, bad at code only."""
    base = {suite: runs.base_scores(suite, n) for suite in SUITES}
    share = n / N
    noisy = {suite: runs.flipped(values, round(8 * share), round(8 * share)) for suite, values in base.items()}
    damaged = {**noisy, "code": runs.flipped(base["code"], round(40 * share), round(3 * share))}
    return {"dense": base, "twin": base, "noisy": noisy, "damaged": damaged}


def made(n: int = N, **changes: Any) -> RunRecords:
    samples = runs.rows_of(scores(n))
    variants = [
        runs.variant("dense", None),
        runs.variant("twin", bytes=1_000_000),
        runs.variant("noisy", bytes=400_000, sparsity_linears=0.7, sparsity_model=0.6),
        runs.variant("damaged", bytes=None, weight_bits=None, sparsity_linears=None),
    ]
    return RunRecords.in_memory(runs.summary_of(samples, variants, **changes), samples)


def gate(run: RunRecords, *rules: Mapping[str, Any], earlier: RunRecords | None = None, **options: Any) -> GateReport:
    on = options.pop("on_inconclusive", "fail")
    return check(RULES.validate_python(list(rules)), Context(run, earlier, **options), on_inconclusive=on)


def verdicts(report: GateReport) -> dict[str | None, str]:
    return {result.suite: result.verdict for result in report.results}


def only(report: GateReport) -> RuleResult:
    (result,) = report.results
    return result


def edited(run: RunRecords, variant: str, change: Any) -> RunRecords:
    """The run with one variant's entry of the summary changed by `change(entry)`."""
    data = run.summary.model_dump()
    change(next(entry for entry in data["variants"] if entry["name"] == variant))
    return RunRecords.in_memory(Summary.model_validate(data), run.samples or {})


# --- no_regression ---------------------------------------------------------------------------------------------------
