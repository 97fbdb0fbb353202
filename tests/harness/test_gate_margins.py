"""The default margins: what they promise, simulated with the gate's own interval; and the warning when planning."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from harness.dry_run import plan_text
from harness.gate.judge import judge
from harness.gate.margins import DEFAULTS, FLIP_RATE, PlannedSuite, needed_for, planning_warnings, resolvable
from harness.gate_rules import GateRule
from harness.run import RunOptions
from harness.stats import paired_difference, tango_interval
from harness.study import parse_study
from suites.pocket import items
from suites.registry import load_suite

RULES: TypeAdapter[Any] = TypeAdapter(list[GateRule])
REAL = {("gsm8k", "5shot"): 1319, ("instruct", "full"): 541, ("code", "full"): 164}
DRAWS = 4_000
POCKET_DRAWS = 300


def test_every_default_names_a_preset_and_its_real_size() -> None:
    for (suite, preset), default in DEFAULTS.items():
        load_suite(suite).preset(preset)
        assert default.n == REAL.get((suite, preset), 300)
    assert DEFAULTS.keys() >= REAL.keys()
    assert {suite for suite, preset in DEFAULTS if preset == "pocket"} >= {"gsm8k", "instruct", "code", "chat"}


def test_every_default_is_the_smallest_round_margin_that_its_n_resolves() -> None:
    for (suite, preset), default in DEFAULTS.items():
        assert needed_for(suite, preset, default.margin) <= default.n, (suite, preset)
        assert needed_for(suite, preset, default.margin - 0.005) > default.n, (suite, preset)
        assert default.margin - 0.005 < resolvable(suite, preset, default.n) <= default.margin


def share_of_passes(n: int, margin: float, difference: float) -> float:
    """How often a variant with this true difference passes: flips drawn, judged by the interval of the records."""

    @cache
    def passes(gained: int, lost: int) -> bool:
        interval = tango_interval(gained, lost, n)
        return judge((gained - lost) / n, interval, -margin, strictly=True) == "pass"

    flips = max(FLIP_RATE, abs(difference))
    chances = [(flips + difference) / 2, (flips - difference) / 2, 1 - flips]
    drawn = np.random.default_rng(n).multinomial(n, chances, size=DRAWS)
    return sum(passes(int(gained), int(lost)) for gained, lost, _ in drawn) / DRAWS


@pytest.mark.parametrize("key", sorted(REAL), ids=lambda key: key[0])
def test_an_equal_variant_clears_the_default_margin_and_a_worse_one_does_not(key: tuple[str, str]) -> None:
    n, margin = REAL[key], DEFAULTS[key].margin
    assert share_of_passes(n, margin, 0.0) >= 0.78  # 80 % asked for; the normal approximation is a little off
    assert share_of_passes(n, margin, -margin) <= 0.035  # 2.5 %, and two standard errors of the simulation


def pocket_run(rng: np.random.Generator, skill: str, difference: float) -> tuple[Any, Any, list[str]]:
    """One pocket run whose truth is known: variant, baseline, and the real templates of the first 300 items.

    Flips of one template are correlated so that the design effect is the one that the default was worked out for.
    """
    default, clusters = DEFAULTS[skill, "pocket"], [draw.template for draw in items.test_items(skill)[:300]]
    codes = np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(codes)
    icc = (default.design_effect - 1) / (float(sizes @ sizes) / codes.size - 1)

    def rates(mean: float) -> Any:
        if icc == 0:
            return np.full(codes.size, mean)
        total = 1 / icc - 1
        return rng.beta(mean * total, (1 - mean) * total, size=sizes.size)[codes]

    if skill == "summarization":  # continuous: a mean squared difference of `flip_rate`
        noise = math.sqrt(icc) * rng.normal(size=sizes.size)[codes] + math.sqrt(1 - icc) * rng.normal(size=codes.size)
        base = np.clip(0.5 + 0.1 * rng.normal(size=codes.size), 0.2, 0.8)
        change = math.sqrt(default.flip_rate) * noise + difference
        return np.clip(base + change, 0, 1), base, clusters
    right, flips = 0.7, max(FLIP_RATE, abs(difference))
    base = (rng.random(codes.size) < right).astype(float)
    lost, gained = rates((flips - difference) / 2 / right), rates((flips + difference) / 2 / (1 - right))
    drawn = rng.random(codes.size)
    return np.where(base == 1, drawn >= lost, drawn < gained).astype(float), base, clusters


@pytest.mark.parametrize("skill", sorted(suite for suite, preset in DEFAULTS if preset == "pocket"))
def test_the_pocket_defaults_hold_with_the_templates_that_the_items_come_from(skill: str) -> None:
    margin, rng = DEFAULTS[skill, "pocket"].margin, np.random.default_rng(20_261)

    def passes(difference: float) -> float:
        estimates = (paired_difference(*pocket_run(rng, skill, difference)).estimate for _ in range(POCKET_DRAWS))
        return (
            sum(
                e.value is not None and e.ci95 is not None and judge(e.value, e.ci95, -margin, strictly=True) == "pass"
                for e in estimates
            )
            / POCKET_DRAWS
        )

    assert passes(0.0) >= 0.74  # 80 % asked for, less three standard errors of the simulation
    assert passes(-margin) <= 0.055  # 2.5 %, and as much for the simulation and the few templates


def warned(n: int, **rule: Any) -> list[str]:
    rules = RULES.validate_python([{"rule": "non_inferior", **rule}, {"rule": "no_regression"}])
    return planning_warnings(rules, {"code": PlannedSuite("full", n, 0.02), "gsm8k": PlannedSuite("5shot", 1319, 0.02)})


def test_a_margin_that_n_cannot_resolve_is_a_warning_with_the_n_it_takes() -> None:
    assert warned(164) == []  # the defaults are made for their n
    (line,) = warned(164, suite="code", margin=0.02)
    needed = needed_for("code", "full", 0.02)
    assert line.startswith("warning: non_inferior on code: 164 items cannot resolve a margin of 2.00 %")
    assert f"{needed:,} items" in line and needed > 1500
    assert warned(needed, suite="code", margin=0.02) == []
    assert len(warned(needed - 1, suite="code", margin=0.02)) == 1
    assert len(warned(164, margin=0.02)) == 2
    (line,) = warned(164, suite="poetry")
    assert "'poetry' is not in the study" in line


def test_the_plan_of_a_study_shows_the_warning(tmp_path: Path) -> None:
    body: dict[str, Any] = {
        "name": "plan",
        "models": {"p": {"path": "pocket"}},
        "variants": {"dense": {"from": "p"}, "int8": {"from": "p", "recipe": "int8"}},
        "suites": {"gsm8k": {"n": 60}},
    }
    rule = {"rule": "non_inferior", "suite": "gsm8k", "margin": 0.02}
    assert "warning" not in plan_text(parse_study(body, where="test"), tmp_path / "o", RunOptions())
    study = parse_study({**body, "gates": [rule]}, where="test")
    lines = plan_text(study, tmp_path / "o", RunOptions()).splitlines()
    (line,) = [line for line in lines if line.startswith("warning")]
    assert "60 items cannot resolve a margin of 2.00 %" in line
