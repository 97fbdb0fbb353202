"""The gate: every verdict, every refusal, and never a pass for something that is missing."""

from __future__ import annotations

import json
import runpy
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.errors import ConfigError
from harness.gate import GateReport, check, items_to_decide, judge
from harness.gate_against import unpaired_difference
from harness.gate_rules import GateRule
from harness.records import Summary
from harness.report.gate_table import gate_text
from harness.report.summarize import summarize

synthetic = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("synthetic.py"))))
RULES: TypeAdapter[Any] = TypeAdapter(list[GateRule])


@pytest.fixture(scope="module")
def summary() -> Summary:
    return synthetic.summary()


def gate(summary: Summary, *rules: dict[str, Any]) -> GateReport:
    return check(summary, RULES.validate_python(list(rules)))


def verdicts(report: GateReport) -> dict[str | None, str]:
    return {result.suite: result.verdict for result in report.results}


def changed(summary: Summary, variant: str, suite: str, **changes: Any) -> Summary:
    """Return the summary with one cell changed."""
    data = summary.model_dump()
    for entry in data["variants"]:
        if entry["name"] == variant:
            entry["suites"][suite].update(changes)
    return Summary.model_validate(data)


# --- rules -----------------------------------------------------------------------------------------------------------


def test_recovery_on_the_interval(summary: Summary) -> None:
    report = gate(summary, {"rule": "recovery", "variant": "int8", "suite": "gsm8k", "at_least": 0.9})
    assert (report.verdict, report.exit_code) == ("pass", 0)
    report = gate(summary, {"rule": "recovery", "variant": "sparse70", "suites": ["gsm8k", "chat"], "at_least": 0.9})
    assert verdicts(report) == {"gsm8k": "fail", "chat": "fail"}
    assert report.exit_code == 1
    report = gate(summary, {"rule": "recovery", "variant": "int8", "suite": "gsm8k", "at_least": 0.99})
    (result,) = report.results
    assert (result.verdict, report.exit_code) == ("inconclusive", 1)
    assert "items would decide (there are 120)" in result.message
    assert "INCONCLUSIVE" in report.line


def test_recovery_on_the_point(summary: Summary) -> None:
    rule = {"rule": "recovery", "variant": "int8", "suite": "gsm8k", "at_least": 0.99, "on": "point"}
    assert gate(summary, rule).verdict == "pass"
    assert gate(summary, {**rule, "at_least": 1.01}).verdict == "fail"


def test_recovery_of_the_mean(summary: Summary) -> None:
    rule = {"rule": "recovery", "suite": "mean", "at_least": 0.9}
    assert gate(summary, {**rule, "variant": "int8"}).verdict == "pass"
    assert gate(summary, {**rule, "variant": "sparse70"}).verdict == "fail"
    # One of its suites was refused: the mean of the others is not what was asked for.
    assert gate(summary, {**rule, "variant": "mine|<b>"}).exit_code == 3


def test_sparsity(summary: Summary) -> None:
    assert gate(summary, {"rule": "sparsity", "variant": "sparse70", "at_least": 0.69}).verdict == "pass"
    report = gate(summary, {"rule": "sparsity", "variant": "sparse70", "at_least": 0.7})
    assert report.verdict == "fail" and "69.90 %" in report.results[0].message
    assert gate(summary, {"rule": "sparsity", "variant": "mine|<b>", "at_least": 0.1}).exit_code == 3


def test_non_inferior(summary: Summary) -> None:
    rule = {"rule": "non_inferior", "suite": "gsm8k", "variant": "int8"}
    assert gate(summary, {**rule, "margin": 0.05}).verdict == "pass"
    assert gate(summary, {**rule, "margin": 0.01}).verdict == "inconclusive"
    assert gate(summary, {**rule, "variant": "sparse70", "margin": 0.1}).verdict == "fail"
    # Without a margin the suite's own (0.05 here) holds.
    report = gate(summary, rule)
    assert report.results[0].bound == -0.05
    bare = changed(summary, "int8", "gsm8k", margin=None)
    assert gate(bare, rule).exit_code == 3


def test_no_regression_fails_only_on_a_significant_loss(summary: Summary) -> None:
    assert gate(summary, {"rule": "no_regression", "variant": "int8"}).verdict == "pass"
    report = gate(summary, {"rule": "no_regression", "variant": "sparse70"})
    assert set(verdicts(report).values()) == {"fail"}


def test_all_leaves_references_out_but_not_refused_suites(summary: Summary) -> None:
    report = gate(summary, {"rule": "recovery", "at_least": 0.5})
    assert {result.variant for result in report.results} == {"int8", "sparse70", "mine|<b>"}
    assert [(r.variant, r.suite) for r in report.results if r.verdict == "error"] == [("mine|<b>", "code")]
    assert report.exit_code == 3


# --- never a wrong pass ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "recovery", "variant": "nobody", "at_least": 0.1},
        {"rule": "recovery", "variant": "int8", "suite": "poetry", "at_least": 0.1},
        {"rule": "recovery", "variant": "dense", "suite": "gsm8k", "at_least": 0.1},
        {"rule": "non_inferior", "variant": "nobody", "margin": 0.5},
        {"rule": "non_inferior", "variant": "int8", "suite": "mean", "margin": 0.5},
        {"rule": "no_regression", "variant": "mine|<b>", "suite": "code"},
        {"rule": "sparsity", "variant": "nobody", "at_least": 0.1},
    ],
)
def test_missing_things_are_errors(summary: Summary, rule: dict[str, Any]) -> None:
    report = gate(summary, rule)
    assert (report.verdict, report.exit_code) == ("error", 3)
    assert gate(summary, {"rule": "sparsity", "variant": "sparse70", "at_least": 0.1}, rule).exit_code == 3


@pytest.mark.parametrize("changes", [{"n": 119}, {"n": 0}, {"n_total": 121}, {"value": None, "reason": "lost"}])
@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "recovery", "suite": "gsm8k", "at_least": 0.1},
        {"rule": "recovery", "suite": "mean", "at_least": 0.1},
        {"rule": "no_regression", "suite": "gsm8k"},
        {"rule": "non_inferior", "suite": "gsm8k", "margin": 0.5},
    ],
)
def test_incomplete_cells_are_errors(summary: Summary, rule: dict[str, Any], changes: dict[str, Any]) -> None:
    broken = changed(summary, "int8", "gsm8k", **changes)
    assert gate(summary, {**rule, "variant": "int8"}).exit_code == 0
    assert gate(broken, {**rule, "variant": "int8"}).exit_code == 3


def test_incomplete_baseline_is_an_error(summary: Summary) -> None:
    broken = changed(summary, "dense", "gsm8k", n=60)
    report = gate(broken, {"rule": "recovery", "suite": "gsm8k", "variant": "int8", "at_least": 0.1})
    assert report.exit_code == 3 and "dense.gsm8k is incomplete" in report.results[0].message


def test_empty_studies_never_pass() -> None:
    empty = summarize(synthetic.study({}), [], {}, [])
    for rule in ({"rule": "recovery", "at_least": 0.1}, {"rule": "sparsity", "variants": "all", "at_least": 0.1}):
        assert gate(empty, rule).exit_code == 3
    assert check(empty, [], empty).exit_code == 3
    assert GateReport(()).exit_code == 3
    with pytest.raises(ConfigError, match="nothing to check"):
        check(empty, [])


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "recovery"},
        {"rule": "recovery", "at_least": float("nan")},
        {"rule": "recovery", "at_least": 0.9, "atleast": 0.9},
        {"rule": "recovery", "at_least": 0.9, "suite": "a", "suites": ["b"]},
        {"rule": "recovery", "at_least": 0.9, "suites": []},
        {"rule": "recovery", "at_least": 0.9, "on": "luck"},
        {"rule": "sparsity", "at_least": 0.5},
        {"rule": "sparsity", "variant": "a", "at_least": 70},
        {"rule": "sparsity", "variant": "a", "at_least": 0.7, "suite": "gsm8k"},
        {"rule": "non_inferior", "margin": -0.02},
        {"rule": "speed_of_light"},
        {},
        "recovery",
    ],
)
def test_bad_rules_are_refused(rule: Any) -> None:
    with pytest.raises(ValidationError):
        RULES.validate_python([rule])


# --- against another run ---------------------------------------------------------------------------------------------


def test_identical_rerun_passes_paired_and_unpaired(summary: Summary) -> None:
    complete = summary.model_copy(update={"variants": [v for v in summary.variants if v.name != "mine|<b>"]})
    report = check(complete, [], complete)
    assert report.exit_code == 0 and len(report.results) == 15
    assert "unpaired, samples of both runs are needed to pair" in report.results[0].message
    cells = synthetic.cells()
    report = check(complete, [], complete, samples=cells, against_samples=cells)
    assert report.exit_code == 0
    assert all("(paired)" in result.message and result.value == 0 for result in report.results)


def test_refused_suite_in_both_runs_is_an_error(summary: Summary) -> None:
    report = check(summary, [], summary)
    assert [(r.variant, r.suite) for r in report.results if r.verdict == "error"] == [("mine|<b>", "code")]
    assert report.exit_code == 3


def one_suite(scores: list[float], **changes: Any) -> tuple[Summary, dict[tuple[str, str], list[Any]]]:
    study = synthetic.study({"gsm8k": "exact_match_flexible"}, len(scores))
    rows = [synthetic.row("dense", "gsm8k", i, s, cluster=f"i{i}", **changes) for i, s in enumerate(scores)]
    cells = {("dense", "gsm8k"): rows}
    return summarize(study, synthetic.VARIANTS[:1], cells, []), cells


def test_pairing_finds_what_two_separate_intervals_hide() -> None:
    earlier, old_rows = one_suite([1.0] * 80 + [0.0] * 40)
    now, new_rows = one_suite([1.0] * 70 + [0.0] * 50)
    assert check(now, [], earlier).verdict == "pass"
    report = check(now, [], earlier, samples=new_rows, against_samples=old_rows)
    assert report.verdict == "fail" and report.results[0].value == pytest.approx(-10 / 120)
    assert check(one_suite([1.0] * 40 + [0.0] * 80)[0], [], earlier).verdict == "fail"


def test_fewer_pairs_or_items_than_measured_are_errors(summary: Summary) -> None:
    data = summary.model_dump()
    for entry in data["variants"]:
        if entry["name"] == "int8":
            entry["recovery"]["gsm8k"]["n"] = 100
            entry["difference"]["gsm8k"]["n"] = 100
    broken = Summary.model_validate(data)
    for rule in ({"rule": "recovery", "at_least": 0.1}, {"rule": "no_regression"}):
        assert gate(broken, {**rule, "variant": "int8", "suite": "gsm8k"}).exit_code == 3
    few, many = one_suite([1.0] * 20)[0], one_suite([1.0] * 40)[0]
    assert check(many, [], few).exit_code == 0
    assert check(few, [], many).exit_code == 3


def test_against_refuses_what_cannot_be_compared(summary: Summary) -> None:
    earlier, old_rows = one_suite([1.0] * 60 + [0.0] * 60)
    other_suite = changed(earlier, "dense", "gsm8k", suite_hash="v2")
    report = check(earlier, [], other_suite)
    assert report.exit_code == 3 and "another version" in report.results[0].message
    other_items, other_rows = one_suite([1.0] * 60 + [0.0] * 60, item_hash="other")
    report = check(earlier, [], other_items, samples=old_rows, against_samples=other_rows)
    assert report.exit_code == 3 and "different items" in report.results[0].message
    report = check(earlier, [], summary)
    assert report.exit_code == 3
    assert any("variant 'int8' of the earlier run is missing here" in r.message for r in report.results)


def test_unpaired_interval_is_newcombes() -> None:
    # Newcombe 1998 (Stat. Med. 17:873), table II, method 10: 56/70 - 48/80.
    from harness.stats import wilson_interval

    value, (low, high) = unpaired_difference((56 / 70, wilson_interval(56, 70)), (48 / 80, wilson_interval(48, 80)))
    assert (round(value, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)


# --- helpers and output ----------------------------------------------------------------------------------------------


def test_judge_at_the_edges() -> None:
    assert judge(0.95, (0.9, 1.0), 0.9) == "pass"
    assert judge(0.95, (0.9, 1.0), 1.0) == "inconclusive"
    assert judge(0.95, (0.9, 1.0), 1.01) == "fail"


def test_items_to_decide() -> None:
    # Half-width 0.05, distance 0.025: the interval must halve, four times the items.
    assert items_to_decide(100, 0.925, (0.875, 0.975), 0.9) == pytest.approx(400, abs=1)
    assert items_to_decide(100, 0.9, (0.85, 0.95), 0.9) is None


def test_text_and_json(summary: Summary) -> None:
    report = gate(
        summary,
        {"rule": "sparsity", "variant": "sparse70", "at_least": 0.6},
        {"rule": "recovery", "variant": "sparse70", "suite": "mean", "at_least": 0.9},
        {"rule": "recovery", "variant": "nobody", "suite": "mean", "at_least": 0.9},
    )
    text = gate_text(report)
    assert text.splitlines()[-1] == "gate: ERROR, 1 of 3 checks passed (1 fail, 1 error)"
    assert [line.split()[0] for line in text.splitlines()[:3]] == ["pass", "FAIL", "ERROR"]
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["exit_code"] == 3 and len(data["results"]) == 3


def test_gate_is_quick(summary: Summary) -> None:
    start = time.perf_counter()
    gate(summary, {"rule": "recovery", "at_least": 0.9}, {"rule": "no_regression"})
    assert time.perf_counter() - start < 2
