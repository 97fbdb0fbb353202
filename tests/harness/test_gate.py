"""The gate's rules: every verdict, every refusal, and never a pass for something that is missing."""

from __future__ import annotations

import itertools
import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.errors import ConfigError, CorruptRecordError
from harness.gate import Context, GateReport, RuleResult, RunRecords, check
from harness.gate.judge import items_to_decide, judge
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


@pytest.fixture(scope="module")
def run() -> RunRecords:
    return made()


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
    return RunRecords.in_memory(Summary.model_validate(data), run._table or {})


# --- no_regression ---------------------------------------------------------------------------------------------------


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


def speed(*rows: Any) -> RunRecords:
    return made(60, speed=[runs.speed_row("dense", 1.0, reason="the baseline itself", ci95=None), *rows])


def test_speedup_by_the_interval() -> None:
    run = speed(runs.speed_row("twin", 1.9), runs.speed_row("noisy", 1.2))
    rule = {"rule": "speedup", "workload": "decode", "variant": "twin"}
    assert only(gate(run, {**rule, "at_least": 1.8})).verdict == "pass"
    assert only(gate(run, {**rule, "at_least": 2.2})).verdict == "fail"
    assert only(gate(run, {**rule, "at_least": 1.9})).verdict == "inconclusive"
    both = gate(run, {"rule": "speedup", "workload": "decode", "at_least": 1.1})
    assert {r.variant: r.verdict for r in both.results} == {"twin": "pass", "noisy": "pass"}


def test_speedup_is_never_finer_than_the_noise_floor() -> None:
    rule = {"rule": "speedup", "workload": "decode", "variant": "twin", "at_least": 1.0}
    sharp = runs.speed_row("twin", 1.03, half=0.001, noise_floor=0.01)
    assert only(gate(speed(sharp), rule)).verdict == "pass"
    noisy = runs.speed_row("twin", 1.03, half=0.001, noise_floor=0.04)
    assert only(gate(speed(noisy), rule)).verdict == "inconclusive"
    slow = runs.speed_row("twin", 0.98, half=0.001, noise_floor=0.04)
    assert only(gate(speed(slow), rule)).verdict == "inconclusive"
    assert only(gate(speed(runs.speed_row("twin", 0.9, noise_floor=0.04)), rule)).verdict == "fail"


def test_a_fail_takes_a_second_run_that_shows_it_again() -> None:
    rule = {"rule": "speedup", "workload": "decode", "variant": "twin", "at_least": 1.5}
    assert only(gate(speed(runs.speed_row("twin", 1.2)), rule)).verdict == "fail"
    for again, words in (
        (None, "no second run"),
        (runs.confirmation(1.6), "does not confirm it: 1.600x"),
        (runs.confirmation(1.49), "does not confirm"),
        (runs.confirmation(1.2, decided=False), "no rest"),
        (runs.confirmation(1.2, ci95=None), "no rest"),
    ):
        result = only(gate(speed(runs.speed_row("twin", 1.2, confirmation=again)), rule))
        assert result.verdict == "inconclusive" and words in result.message


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_floor": 0.06},
        {"verdict": "not decided"},
        {"noise_floor": None},
        {"ci95": None},
        {"reason": "not decided after 3 runs: noise floor 7.0 % is above 5 %"},
        {"ratio": None, "tokens_per_s": None, "ci95": None, "reason": "not decided: the read bandwidth moved"},
    ],
)
def test_a_panel_that_did_not_decide_is_inconclusive(changes: dict[str, Any]) -> None:
    for at_least in (0.5, 1.5, 3.0):
        rule = {"rule": "speedup", "workload": "decode", "variant": "twin", "at_least": at_least}
        assert only(gate(speed(runs.speed_row("twin", 1.9, **changes)), rule)).verdict == "inconclusive"


def test_speed_that_is_not_there_is_an_error() -> None:
    run = speed(runs.speed_row("twin", None, reason="INT8 is emulated"), runs.speed_row("noisy", 1.2))
    rule = {"rule": "speedup", "at_least": 0.5}
    cases = [
        ({"workload": "prefill"}, 2),
        ({"workload": "decode", "variant": "damaged"}, 2),
        ({"workload": "decode", "variant": "nobody"}, 2),
        ({"workload": "decode", "variant": "dense"}, 2),
        ({"workload": "decode", "engine": "sparse"}, 2),
        ({"workload": "decode", "batch": 8}, 2),
        ({"workload": "decode", "panel": "other"}, 2),
        ({"workload": "decode", "variant": "twin"}, 3),
    ]
    for more, code in cases:
        assert gate(run, {**rule, **more}).exit_code == code, more


# --- same_outputs ----------------------------------------------------------------------------------------------------


def test_same_outputs_names_the_items_that_differ(run: RunRecords) -> None:
    assert only(gate(run, {"rule": "same_outputs", "variant": "twin", "suite": "code"})).verdict == "pass"
    result = only(gate(run, {"rule": "same_outputs", "variant": "noisy", "suite": "code"}))
    assert result.verdict == "fail" and len(result.items) == 16
    assert "284 of 300 answers are the same" in result.message
    table = run._table or {}
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
    fewer = {key: rows for key, rows in (run._table or {}).items() if key[0] != "twin"}
    variants = [runs.variant("dense", None), runs.variant("noisy"), runs.variant("damaged")]
    now = RunRecords.in_memory(runs.summary_of(fewer, variants), fewer)
    report = gate(now, earlier=run)
    assert report.exit_code == 3
    assert {r.variant for r in report.results if r.verdict == "error"} == {"twin"}
    no_code = {key: rows for key, rows in (run._table or {}).items() if key[1] != "code"}
    variants.append(runs.variant("twin"))
    report = gate(RunRecords.in_memory(runs.summary_of(no_code, variants), no_code), earlier=run)
    assert report.exit_code == 3 and {r.suite for r in report.results if r.verdict == "error"} == {"code"}


# --- never a wrong pass ----------------------------------------------------------------------------------------------

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
    gone = RunRecords.in_memory(Summary.model_validate(data), run._table or {})
    assert gate(gone, {**rule, "variant": "twin"}).exit_code == 3
    unnamed = edited(run, "twin", lambda entry: entry.update(baseline=None))
    assert gate(unnamed, {**rule, "variant": "twin"}).exit_code == 2


@pytest.mark.parametrize("rule", SKILL, ids=lambda rule: rule["rule"])
def test_rows_and_summary_must_agree(run: RunRecords, rule: dict[str, Any]) -> None:
    table = dict(run._table or {})
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
