"""The gate's rules: every verdict, every refusal, and never a pass for something that is missing."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from harness.errors import ConfigError, CorruptRecordError
from harness.gate import GateReport, RuleResult, RunRecords
from harness.gate.judge import items_to_decide, judge
from harness.records import Summary

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gating.py"))))
runs = kit.runs
made = kit.made
scores = kit.scores
gate = kit.gate
only = kit.only
verdicts = kit.verdicts
edited = kit.edited
N = kit.N
RULES = kit.RULES


@pytest.fixture(scope="module")
def run() -> RunRecords:
    return made()


def test_no_regression_fails_on_the_damaged_suite_alone(run: RunRecords) -> None:
    report = gate(run, {"rule": "no_regression"})
    assert report.exit_code == 1
    failed = [(r.variant, r.suite) for r in report.results if r.verdict == "fail"]
    assert failed == [("damaged", "code")]
    assert len(report.results) == 9
    message = next(r.message for r in report.results if r.verdict == "fail")
    assert "40 lost, 3 gained" in message
    assert gate(run, {"rule": "no_regression", "variants": ["twin", "noisy"]}).exit_code == 0


def test_no_regression_is_the_exact_test_with_holms_step(run: RunRecords) -> None:
    """Against the textbook's binomial tail and a hand-made Holm, on independent items."""
    from scipy.stats import binomtest

    n, base = 200, [1.0] * 160 + [0.0] * 40
    lost = {"gsm8k": (14, 4), "code": (13, 3)}
    now = {suite: runs.flipped(base, *counts) for suite, counts in lost.items()}
    samples = runs.rows_of({"dense": dict.fromkeys(lost, base), "sparse": now})
    summary = runs.summary_of(samples, [runs.variant("dense", None), runs.variant("sparse")])
    report = gate(RunRecords.in_memory(summary, samples), {"rule": "no_regression"})
    raw = {suite: binomtest(a, a + b, 0.5, alternative="greater").pvalue for suite, (a, b) in lost.items()}
    first, second = sorted(raw, key=lambda suite: raw[suite])
    expected = {first: 2 * raw[first], second: max(2 * raw[first], raw[second])}
    assert {r.suite: r.p_value for r in report.results} == pytest.approx(expected)
    # Alone, each is significant at 2.5 %; the smaller p holds after Holm, and so does the other one behind it.
    assert raw["gsm8k"] < 0.025 and raw["code"] < 0.025
    assert verdicts(report) == {suite: "fail" if p <= 0.025 else "pass" for suite, p in expected.items()}
    alone = gate(RunRecords.in_memory(summary, samples), {"rule": "no_regression", "suite": "gsm8k"})
    assert only(alone).verdict == "fail" and n == only(alone).n


def test_holm_takes_back_what_one_of_many_suites_shows_by_chance() -> None:
    base = [1.0] * 160 + [0.0] * 40
    now = {"gsm8k": runs.flipped(base, 12, 3), "code": base, "summarization": base}
    samples = runs.rows_of({"dense": dict.fromkeys(now, base), "sparse": now})
    summary = runs.summary_of(samples, [runs.variant("dense", None), runs.variant("sparse")])
    run = RunRecords.in_memory(summary, samples)
    assert gate(run, {"rule": "no_regression", "suite": "gsm8k"}).verdict == "fail"
    assert gate(run, {"rule": "no_regression"}).verdict == "pass"


# --- non_inferior ----------------------------------------------------------------------------------------------------


def test_non_inferior_passes_fails_or_says_how_many_items(run: RunRecords) -> None:
    rule = {"rule": "non_inferior", "suite": "code"}
    assert only(gate(run, {**rule, "variant": "twin", "margin": 0.05})).verdict == "pass"
    assert only(gate(run, {**rule, "variant": "damaged", "margin": 0.05})).verdict == "fail"
    result = only(gate(run, {**rule, "variant": "noisy", "margin": 0.02}))
    assert result.verdict == "inconclusive" and result.needed is not None and result.needed > N
    assert f"about {result.needed:,} items would decide (there are 300)" in result.message


def test_the_stated_number_of_items_decides() -> None:
    """With as many items of the same kind as the message asks for, the rule passes."""
    base = [1.0] * 45 + [0.0] * 15
    now = runs.flipped(base, 2, 2)
    rule = {"rule": "non_inferior", "margin": 0.03, "suite": "gsm8k"}

    def outcome(times: int) -> RuleResult:
        samples = runs.rows_of({"dense": {"gsm8k": base * times}, "sparse": {"gsm8k": now * times}})
        summary = runs.summary_of(samples, [runs.variant("dense", None), runs.variant("sparse")])
        return only(gate(RunRecords.in_memory(summary, samples), rule))

    few = outcome(1)
    assert few.verdict == "inconclusive" and few.n == 60 and few.needed is not None
    assert outcome(-(-few.needed // 60)).verdict == "pass"
    # Required n has 80 % power; with the estimate held exactly, about half of it is enough, a quarter is not.
    assert outcome(max(1, few.needed // 60 // 4)).verdict == "inconclusive"


def test_on_the_margin_itself_is_no_pass(run: RunRecords) -> None:
    def move(entry: dict[str, Any]) -> None:
        entry["difference"]["code"].update(ci95=(-0.05, 0.01))

    rule = {"rule": "non_inferior", "suite": "code", "variant": "noisy", "margin": 0.05}
    assert only(gate(edited(run, "noisy", move), rule)).verdict == "inconclusive"


def test_default_margin_is_the_presets(run: RunRecords) -> None:
    assert only(gate(run, {"rule": "non_inferior", "suite": "code", "variant": "noisy"})).bound == -0.065
    other = runs.rows_of({"dense": {"code": [1.0] * 20}, "sparse": {"code": [1.0] * 20}}, preset="mine")
    summary = runs.summary_of(other, [runs.variant("dense", None), runs.variant("sparse")])
    result = only(gate(RunRecords.in_memory(summary, other), {"rule": "non_inferior", "suite": "code"}))
    assert (result.verdict, result.exit_code) == ("error", 2) and "give `margin`" in result.message


def test_inconclusive_counts_as_told(run: RunRecords) -> None:
    rule = {"rule": "non_inferior", "suite": "code", "variant": "noisy", "margin": 0.02}
    assert gate(run, rule).exit_code == 1
    report = gate(run, rule, on_inconclusive="pass")
    assert (report.verdict, report.exit_code) == ("inconclusive", 0)
    assert "inconclusive counts as a pass" in report.line
    bad = {**rule, "variant": "damaged"}
    assert gate(run, rule, bad, on_inconclusive="pass").exit_code == 1


# --- recovery, sparsity, size, zeros ---------------------------------------------------------------------------------


def test_recovery(run: RunRecords) -> None:
    rule = {"rule": "recovery", "suite": "code"}
    assert only(gate(run, {**rule, "variant": "noisy", "at_least": 0.9})).verdict == "pass"
    assert only(gate(run, {**rule, "variant": "damaged", "at_least": 0.95})).verdict == "fail"
    result = only(gate(run, {**rule, "variant": "noisy", "at_least": 0.99}))
    assert result.verdict == "inconclusive" and result.needed is not None and result.needed > N
    assert only(gate(run, {**rule, "variant": "noisy", "at_least": 0.99, "on": "point"})).verdict == "pass"
    assert only(gate(run, {**rule, "variant": "noisy", "at_least": 1.2, "on": "point"})).verdict == "fail"
    mean = {"rule": "recovery", "suite": "mean", "at_least": 0.9}
    assert only(gate(run, {**mean, "variant": "noisy"})).verdict == "pass"


def test_recovery_is_an_error_where_the_baseline_scores_0() -> None:
    samples = runs.rows_of({"dense": {"gsm8k": [0.0] * 50}, "sparse": {"gsm8k": [0.0] * 50}})
    summary = runs.summary_of(samples, [runs.variant("dense", None), runs.variant("sparse")])
    result = only(gate(RunRecords.in_memory(summary, samples), {"rule": "recovery", "at_least": 0.5}))
    assert (result.verdict, result.exit_code) == ("error", 3) and "scores 0" in result.message


def test_sparsity_and_size(run: RunRecords) -> None:
    assert only(gate(run, {"rule": "sparsity", "variant": "noisy", "at_least": 0.7})).verdict == "pass"
    assert only(gate(run, {"rule": "sparsity", "variant": "noisy", "at_least": 0.71})).verdict == "fail"
    assert gate(run, {"rule": "sparsity", "variant": "damaged", "at_least": 0.1}).exit_code == 3
    result = only(gate(run, {"rule": "size", "variant": "noisy", "at_most": 0.4}))
    assert result.verdict == "pass" and result.value == 0.4 and "40.00 %" in result.message
    assert only(gate(run, {"rule": "size", "variant": "noisy", "at_most": 0.39})).verdict == "fail"
    assert gate(run, {"rule": "size", "variant": "damaged", "at_most": 0.9}).exit_code == 3
    assert gate(run, {"rule": "size", "variant": "dense", "at_most": 0.9}).exit_code == 2


def test_zeros_that_nobody_checked_are_an_error(run: RunRecords) -> None:
    result = only(gate(run, {"rule": "no_revived_zeros", "variant": "twin"}))
    assert (result.verdict, result.exit_code) == ("error", 3) and "no mask was checked" in result.message


# --- speedup ---------------------------------------------------------------------------------------------------------


def test_same_outputs_names_the_items_that_differ(run: RunRecords) -> None:
    assert only(gate(run, {"rule": "same_outputs", "variant": "twin", "suite": "code"})).verdict == "pass"
    result = only(gate(run, {"rule": "same_outputs", "variant": "noisy", "suite": "code"}))
    assert result.verdict == "fail" and len(result.items) == 16
    assert "284 of 300 answers are the same" in result.message
    table = run.samples or {}
    differing = {
        a.item_id for a, b in zip(table["noisy", "code"], table["dense", "code"], strict=True) if a.outputs != b.outputs
    }
    assert set(result.items) == differing


def test_two_failed_items_are_not_the_same_answer() -> None:
    def failed(name: str) -> Any:
        return runs.row(name, "code", 0, 0.0, status="error", error="engine stopped", outputs=[])

    samples = {(name, "code"): [failed(name), runs.row(name, "code", 1, 1.0)] for name in ("dense", "sparse")}
    summary = runs.summary_of(samples, [runs.variant("dense", None), runs.variant("sparse")])
    result = only(gate(RunRecords.in_memory(summary, samples), {"rule": "same_outputs"}))
    assert result.verdict == "fail" and result.items == ("code/00000",)


# --- against an earlier run ------------------------------------------------------------------------------------------


SKILL = [
    {"rule": "recovery", "at_least": 0.1},
    {"rule": "non_inferior", "margin": 0.9},
    {"rule": "no_regression"},
    {"rule": "same_outputs"},
]


@pytest.mark.parametrize("rule", SKILL, ids=lambda rule: rule["rule"])
def test_slips_in_a_rule_are_the_users(run: RunRecords, rule: dict[str, Any]) -> None:
    for more in ({"suite": "poetry"}, {"variant": "nobody"}, {"variant": "dense"}):
        good = {"rule": "sparsity", "variant": "noisy", "at_least": 0.1}
        report = gate(run, good, {**rule, **more})
        assert (report.verdict, report.exit_code) == ("error", 2), more
    if rule["rule"] != "recovery":
        assert gate(run, {**rule, "suite": "mean"}).exit_code == 2


@pytest.mark.parametrize("rule", SKILL, ids=lambda rule: rule["rule"])
@pytest.mark.parametrize("who", ["twin", "dense"])
@pytest.mark.parametrize("changes", [{"n": 299}, {"n": 0}, {"n_total": 301}, {"value": None, "reason": "lost"}])
def test_incomplete_cells_are_errors(run: RunRecords, rule: dict[str, Any], who: str, changes: dict[str, Any]) -> None:
    broken = edited(run, who, lambda entry: entry["suites"]["code"].update(changes))
    chosen = {**rule, "variant": "twin", "suite": "code"}
    assert gate(run, chosen).exit_code == 0
    assert gate(broken, chosen).exit_code == 3


@pytest.mark.parametrize("rule", SKILL, ids=lambda rule: rule["rule"])
def test_a_missing_baseline_is_an_error(run: RunRecords, rule: dict[str, Any]) -> None:
    data = run.summary.model_dump()
    data["variants"] = [entry for entry in data["variants"] if entry["name"] != "dense"]
    gone = RunRecords.in_memory(Summary.model_validate(data), run.samples or {})
    assert gate(gone, {**rule, "variant": "twin"}).exit_code == 3
    unnamed = edited(run, "twin", lambda entry: entry.update(baseline=None))
    assert gate(unnamed, {**rule, "variant": "twin"}).exit_code == 2


@pytest.mark.parametrize("rule", SKILL, ids=lambda rule: rule["rule"])
def test_rows_and_summary_must_agree(run: RunRecords, rule: dict[str, Any]) -> None:
    table = dict(run.samples or {})
    chosen = {**rule, "variant": "twin", "suite": "code"}
    rows = table["twin", "code"]
    wrong = 1.0 - rows[7].scores["pass@1"]
    broken = {
        "another score": [*rows[:7], rows[7].model_copy(update={"scores": {"pass@1": wrong}}), *rows[8:]],
        "NaN": [*rows[:7], rows[7].model_copy(update={"scores": {"pass@1": float("nan")}}), *rows[8:]],
        "no score": [*rows[:7], rows[7].model_copy(update={"scores": {}}), *rows[8:]],
        "one gone": rows[1:],
        "one twice": [*rows[:-1], rows[0]],
        "another version": [row.model_copy(update={"suite_hash": "v0"}) for row in rows],
        "none": [],
    }
    for name, changed in broken.items():
        bad = RunRecords.in_memory(run.summary, {**table, ("twin", "code"): changed})
        assert gate(bad, chosen).exit_code == 3, name


def test_empty_runs_never_pass() -> None:
    empty = RunRecords.in_memory(runs.summary_of({}, []), {})
    for rule in (*SKILL, {"rule": "sparsity", "variants": "all", "at_least": 0.1}):
        assert gate(empty, rule).exit_code in (2, 3)
    assert gate(empty, earlier=empty).exit_code == 3
    assert GateReport(()).exit_code == 3
    with pytest.raises(ConfigError, match="nothing to check"):
        gate(empty)
    nothing = {("dense", "code"): [], ("sparse", "code"): []}
    summary = runs.summary_of(nothing, [runs.variant("dense", None), runs.variant("sparse")])
    for rule in SKILL:
        assert gate(RunRecords.in_memory(summary, nothing), rule).exit_code == 3


def test_error_comes_before_fail_and_3_before_2(run: RunRecords) -> None:
    fail = {"rule": "sparsity", "variant": "noisy", "at_least": 0.9}
    slip = {"rule": "sparsity", "variant": "nobody", "at_least": 0.1}
    gap = {"rule": "sparsity", "variant": "damaged", "at_least": 0.1}
    codes = {0: 1, 1: 2, 2: 3}
    for chosen in itertools.permutations([fail, slip, gap]):
        for count in (1, 2, 3):
            kinds = [[fail, slip, gap].index(rule) for rule in chosen[:count]]
            assert gate(run, *chosen[:count]).exit_code == max(codes[kind] for kind in kinds)


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "recovery"},
        {"rule": "recovery", "at_least": float("nan")},
        {"rule": "recovery", "at_least": 0.9, "atleast": 0.9},
        {"rule": "recovery", "at_least": 0.9, "suite": "a", "suites": ["b"]},
        {"rule": "recovery", "at_least": 0.9, "suites": []},
        {"rule": "recovery", "at_least": 0.9, "on": "luck"},
        {"rule": "recovery", "at_least": 0.9, "to": "earlier"},
        {"rule": "sparsity", "at_least": 0.5},
        {"rule": "sparsity", "variant": "a", "at_least": 70},
        {"rule": "sparsity", "variant": "a", "at_least": 0.7, "suite": "gsm8k"},
        {"rule": "non_inferior", "margin": -0.02},
        {"rule": "non_inferior", "margin": 0.02, "to": "nowhere"},
        {"rule": "size", "variant": "a"},
        {"rule": "size", "variant": "a", "at_most": 0},
        {"rule": "no_revived_zeros"},
        {"rule": "no_revived_zeros", "variants": "all"},
        {"rule": "speedup", "at_least": 1.5},
        {"rule": "speedup", "workload": "decode", "at_least": float("inf")},
        {"rule": "speed_of_light"},
        {},
        "recovery",
    ],
)
def test_bad_rules_are_refused(rule: Any) -> None:
    with pytest.raises(ValidationError):
        RULES.validate_python([rule])


def test_judge_at_the_edges() -> None:
    assert judge(0.95, (0.9, 1.0), 0.9) == "pass"
    assert judge(0.95, (0.9, 1.0), 0.9, strictly=True) == "inconclusive"
    assert judge(0.95, (0.9, 1.0), 1.0) == "inconclusive"
    assert judge(0.95, (0.9, 1.0), 1.01) == "fail"
    for broken in ((float("nan"), (0.9, 1.0)), (0.9, (float("nan"), 1.0)), (0.9, (0.5, float("nan")))):
        with pytest.raises(ValueError, match="cannot judge"):
            judge(*broken, 0.5)


def test_items_to_decide() -> None:
    # Half-width 0.05, distance 0.025: the interval must halve, four times the items.
    assert items_to_decide(100, 0.925, (0.875, 0.975), 0.9) == pytest.approx(400, abs=1)
    assert items_to_decide(100, 0.9, (0.85, 0.95), 0.9) is None


def test_rows_are_checked_when_they_are_asked_for(run: RunRecords) -> None:
    assert len(run.cell("twin", "code").rows) == N
    with pytest.raises(CorruptRecordError, match="by its rows"):
        edited(run, "twin", lambda e: e["suites"]["code"].update(value=0.5)).cell("twin", "code")
