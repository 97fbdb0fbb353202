"""The rule speedup: panels that decide, panels that do not, and second runs."""

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
gate = kit.gate
only = kit.only


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
