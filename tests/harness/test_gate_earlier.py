"""The gate against an earlier run: what is paired, what is refused."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.gate import RunRecords

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gating.py"))))
runs = kit.runs
made = kit.made
scores = kit.scores
gate = kit.gate
only = kit.only


@pytest.fixture(scope="module")
def run() -> RunRecords:
    return made()


def test_identical_rerun_passes(run: RunRecords) -> None:
    report = gate(run, earlier=made())
    assert report.exit_code == 0 and len(report.results) == 12
    assert all(r.value == 0 and r.against == "earlier run" for r in report.results)
    assert any("chat template" in note for note in report.notes)
    rules = [{"rule": "same_outputs", "to": "earlier"}, {"rule": "non_inferior", "to": "earlier", "margin": 0.05}]
    assert gate(run, *rules, earlier=made()).exit_code == 0


def test_a_loss_since_the_earlier_run_fails_with_the_right_suite(run: RunRecords) -> None:
    worse = scores()
    worse["twin"] = worse["damaged"]
    samples = runs.rows_of(worse)
    variants = [runs.variant("dense", None), *(runs.variant(name) for name in ("twin", "noisy", "damaged"))]
    now = RunRecords.in_memory(runs.summary_of(samples, variants), samples)
    report = gate(now, earlier=run)
    assert [(r.variant, r.suite) for r in report.results if r.verdict == "fail"] == [("twin", "code")]
    rule = {"rule": "non_inferior", "to": "earlier", "margin": 0.05, "variant": "twin", "suite": "code"}
    assert [r.verdict for r in gate(now, rule, earlier=run).results if r.rule == "non_inferior"] == ["fail"]


def test_to_earlier_needs_an_earlier_run(run: RunRecords) -> None:
    for rule in ("no_regression", "non_inferior", "same_outputs"):
        assert gate(run, {"rule": rule, "to": "earlier"}).exit_code == 2


def renamed(row: Any, i: int) -> Any:
    return row.model_copy(update={"item_hash": f"other-{i}"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"suite_hash": "v2"}, "the suite differs"),
        ({"preset": "full"}, "the suite differs"),
        ({"prompt_hash": "another"}, "the prompts differ"),
        ({"item_hash": None}, "the data differs"),
    ],
)
def test_runs_that_measured_other_things_are_refused(changes: dict[str, Any], words: str) -> None:
    base = {"dense": {"code": runs.base_scores("code", 60)}}
    samples = runs.rows_of(base)
    if "item_hash" in changes:
        other = {
            key: [renamed(row, i) if i < 5 else row for i, row in enumerate(rows)] for key, rows in samples.items()
        }
    else:
        other = runs.rows_of(base, **changes)
    now, earlier = (
        RunRecords.in_memory(runs.summary_of(rows, [runs.variant("dense", None)]), rows) for rows in (samples, other)
    )
    report = gate(now, earlier=earlier)
    assert report.exit_code == 2 and words in only(report).message
    allowed = gate(now, earlier=earlier, allow_different=True)
    assert allowed.exit_code == 0
    assert only(allowed).n == (55 if "item_hash" in changes else 60)
    assert ("10 rows without a partner" in only(allowed).message) == ("item_hash" in changes)


def test_leaving_items_away_is_refused_and_more_items_are_not() -> None:
    def of(n: int) -> RunRecords:
        samples = runs.rows_of({"dense": {"code": [1.0] * n}})
        return RunRecords.in_memory(runs.summary_of(samples, [runs.variant("dense", None)]), samples)

    assert gate(of(20), earlier=of(40)).exit_code == 2
    assert gate(of(40), earlier=of(20)).exit_code == 0
    assert only(gate(of(40), earlier=of(20))).n == 20


def test_other_items_altogether_are_an_error_even_when_allowed() -> None:
    first = runs.rows_of({"dense": {"code": [1.0] * 20}})
    other = {key: [renamed(row, i) for i, row in enumerate(rows)] for key, rows in first.items()}
    now, earlier = (
        RunRecords.in_memory(runs.summary_of(rows, [runs.variant("dense", None)]), rows) for rows in (first, other)
    )
    assert gate(now, earlier=earlier, allow_different=True).exit_code == 3


def test_the_same_item_twice_in_a_benchmark_is_paired_in_order() -> None:
    def of(values: list[float]) -> RunRecords:
        rows = [runs.row("dense", "code", i, score, item_hash="same") for i, score in enumerate(values)]
        samples = {("dense", "code"): rows}
        return RunRecords.in_memory(runs.summary_of(samples, [runs.variant("dense", None)]), samples)

    result = only(gate(of([1.0, 0.0, 1.0]), earlier=of([1.0, 0.0, 1.0])))
    assert result.n == 3 and "0 lost, 0 gained" in result.message
    assert "1 lost, 1 gained" in only(gate(of([0.0, 1.0, 1.0]), earlier=of([1.0, 0.0, 1.0]))).message


def test_what_the_earlier_run_had_must_still_be_there(run: RunRecords) -> None:
    fewer = {key: rows for key, rows in (run.samples or {}).items() if key[0] != "twin"}
    variants = [runs.variant("dense", None), runs.variant("noisy"), runs.variant("damaged")]
    now = RunRecords.in_memory(runs.summary_of(fewer, variants), fewer)
    report = gate(now, earlier=run)
    assert report.exit_code == 3
    assert {r.variant for r in report.results if r.verdict == "error"} == {"twin"}
    no_code = {key: rows for key, rows in (run.samples or {}).items() if key[1] != "code"}
    variants.append(runs.variant("twin"))
    report = gate(RunRecords.in_memory(runs.summary_of(no_code, variants), no_code), earlier=run)
    assert report.exit_code == 3 and {r.suite for r in report.results if r.verdict == "error"} == {"code"}
