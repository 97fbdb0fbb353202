"""Steps: noise is none, real ones are found where they are, and the tests say what an independent reckoning says."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.history.check import Limits, check_history
from harness.history.plot import history_svg
from harness.history.record import HistoryRecord, SkillPoint, SpeedPoint
from harness.history.series import Point, Series, absent, skill_series, speed_series
from harness.history.simulate import pieces, shortened
from harness.history.simulate_report import report
from harness.history.skill_test import (
    cluster_differences,
    items_p,
    least_squares_cut,
    spread_t,
    standardised,
    unpaired_p,
)
from harness.history.speed_test import rank_statistic, ranks_p, shift
from harness.history.steps import CHECKS, find_steps
from harness.history.worlds import Change, history_world, skill_world, speed_world
from harness.stats import loss_p_value
from harness.stats.clusters import Clusters, group

ALONE = Clusters(np.arange(12, dtype=np.intp), 12, clustered=False)


def test_two_levels_of_items_are_the_sign_flip_test_of_the_gate() -> None:
    before = np.array([1.0] * 10 + [0.0] * 2)
    after = before.copy()
    after[:8], after[11] = 0.0, 1.0
    changes = cluster_differences(np.stack([before] * 5 + [after] * 3), ALONE)
    assert items_p(changes, 5, 0.05) == pytest.approx(2 * loss_p_value(after, before), rel=0.1)
    # All cuts show the same change of the same items, so the search over them costs nothing.
    assert items_p(changes, 2, 0.05) == pytest.approx(items_p(changes, 5, 0.05))


def test_the_largest_change_of_any_cut_against_all_sign_patterns() -> None:
    rng = np.random.default_rng(1)
    items = rng.random((5, 10)) * np.array([1.0] * 5 + [0.2] * 5)
    items[3:, :6] *= 0.4
    grouped = group(10, None)
    changes = cluster_differences(items, grouped)
    for cut in range(4):
        expected = items[cut + 1 :].mean(axis=0) - items[: cut + 1].mean(axis=0)
        assert changes[cut] == pytest.approx(expected)
    observed = abs(standardised(changes)[2])
    patterns = np.array(list(itertools.product((-1, 1), repeat=10)))
    size = np.sqrt((changes**2).sum(axis=1))
    exact = np.mean(np.abs(patterns @ changes.T / size).max(axis=1) >= observed * (1 - 1e-9))
    assert items_p(changes, 3, 0.2) == pytest.approx(exact, abs=0.01)


def test_clusters_move_as_one() -> None:
    items = np.zeros((6, 40))
    items[3:, :20] = 1.0
    codes = (np.arange(40) // 20).astype(np.intp)
    changes = cluster_differences(items, Clusters(codes, 2, clustered=True))
    assert changes.shape == (5, 2) and changes[2].tolist() == [20.0, 0.0]
    assert items_p(changes, 3, 0.05) > 0.3  # one template of two: no evidence, whatever the number of items


def test_spread_and_cut_against_a_plain_reckoning() -> None:
    values = np.random.default_rng(2).random(9)
    squares = [
        sum(((part - part.mean()) ** 2).sum() for part in (values[:at], values[at:])) for at in range(1, 9)
    ]  # fmt: skip
    assert least_squares_cut(values) == int(np.argmin(squares)) + 1
    others = np.delete(np.diff(values), 3)
    scale = np.sqrt((others**2).sum() / 14 * (1 / 4 + 1 / 5))
    assert spread_t(values)[3] == pytest.approx(abs(values[4:].mean() - values[:4].mean()) / scale)
    assert spread_t(np.array([0.5, 0.5, 0.5, 0.4]))[2] == np.inf and spread_t(np.full(5, 0.3)).max() == 0


def test_ranks_against_scipy_and_all_orders() -> None:
    from scipy.stats import mannwhitneyu

    values = np.random.default_rng(3).random(30)
    for cut in (1, 7, 29):
        u = mannwhitneyu(values[cut:], values[:cut]).statistic
        z = (u - cut * (30 - cut) / 2) / np.sqrt(cut * (30 - cut) * 31 / 12)
        assert rank_statistic(values)[cut - 1] == pytest.approx(z)
    six = np.array([1.0, 3.0, 2.0, 6.0, 5.0, 4.0])
    largest = [np.abs(rank_statistic(np.array(order))).max() for order in itertools.permutations(six)]
    exact = np.mean(np.array(largest) >= np.abs(rank_statistic(six)).max() - 1e-9)
    p, at = ranks_p(six, 0.5)
    assert at == 3 and p == pytest.approx(exact, abs=0.005)
    middle, interval = shift(np.arange(10.0), np.arange(10.0) + 5)
    assert middle == 5 and interval is not None and interval[0] < 5 < interval[1]


def test_a_separation_that_only_the_exact_test_finds_is_not_screened_out() -> None:
    from math import comb

    # Ten below ten: 1.6e-4 by the normal distribution of one cut, far above the level that one of 70 series has.
    values = np.concatenate([np.arange(10.0), np.arange(20.0, 30.0)])
    level = 0.05 / 70 / CHECKS
    p, at = ranks_p(values, level)
    # Of all cuts only the middle one reaches so far, in these two orders of the halves.
    assert at == 10 and p == pytest.approx(2 / comb(20, 10), abs=1.2e-5) and p <= level
    mixed = np.array([0.0, 3, 1, 4, 2, 5, 9, 6, 8, 7])
    assert ranks_p(mixed, 1e-9)[0] > 1e-3


def test_drawing_ends_early_only_above_the_level() -> None:
    before = np.repeat([1.0, 0.0], [80, 40])
    after = before.copy()
    after[:13], after[100] = 0.0, 1.0
    changes = cluster_differences(np.stack([before] * 5 + [after] * 5), group(120, None))
    exact = 2 * loss_p_value(after, before)
    assert 1e-3 < exact < 3e-3
    assert items_p(changes, 5, 4e-4) == pytest.approx(exact, rel=0.5) and items_p(changes, 5, 4e-4) > 4e-4
    assert items_p(changes, 5, 0.01) == pytest.approx(exact, rel=0.3)


def test_too_many_series_for_a_level_is_said() -> None:
    records = [record(i) for i in range(5)]
    assert "less than a speed's test can tell" in check_history(records, Limits(), level=1e-5).text()
    assert "less than a speed's test can tell" not in check_history(records, Limits(), level=0.05).text()


def test_without_items_only_a_step_beyond_the_sampling_error_counts() -> None:
    values = np.array([0.8] * 5 + [0.75] * 5)
    assert unpaired_p(values, np.full(10, 0.025), 5) == 1.0
    assert unpaired_p(values, np.full(10, 0.005), 5) < 1e-8
    assert unpaired_p(values, np.zeros(10), 5) == 1.0


@pytest.mark.parametrize("noise", ["same", "unstable", "rare flips", "drifting", "retrained"])
def test_noise_of_scores_is_no_step_and_a_step_is_found(noise: Any) -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(12):
        assert find_steps([skill_world(rng, commits=40, n=300, noise=noise)], family=70) == []
        change = Change(at=28, points=0.12)
        steps = find_steps([skill_world(rng, commits=40, n=300, noise=noise, change=change)], family=70)
        found += [(step.at, step.worse) for step in steps] == [(28, True)]
    assert found >= 10


@pytest.mark.parametrize("noise", ["normal", "heavy tails", "outliers"])
def test_noise_of_speeds_is_no_step_and_a_step_is_found(noise: Any) -> None:
    rng = np.random.default_rng(5)
    for _ in range(6):
        assert find_steps([speed_world(rng, commits=50, noise=noise)], family=70) == []
        steps = find_steps([speed_world(rng, commits=50, noise=noise, change=Change(30, 0.15))], family=70)
        assert len(steps) == 1 and steps[0].worse and abs(steps[0].at - 30) <= 2


def test_few_histories_without_change_show_a_step_at_any_commit() -> None:
    rng = np.random.default_rng(6)
    wrong = 0
    for _ in range(20):
        whole = history_world(rng, commits=30, n=120, skill="retrained", speed="outliers", variants=2)
        wrong += any(find_steps([shortened(one, count) for one in whole]) for count in range(4, 31, 2))
    assert wrong <= 3  # 5 % of 20; four or more have a chance of 1.6 %


def test_a_deterministic_loss_of_the_newest_commit_is_found_at_once() -> None:
    world = skill_world(np.random.default_rng(7), commits=6, n=300, noise="same", change=Change(5, 0.1, 0.01))
    (step,) = find_steps([world], family=70)
    assert step.counts == (5, 1) and step.change == pytest.approx(-0.1)
    assert step.ci95 is not None and step.ci95[0] < -0.1 < step.ci95[1] < 0


def test_two_steps_and_their_levels() -> None:
    rng = np.random.default_rng(8)
    world = skill_world(rng, commits=30, n=500, noise="unstable")
    assert world.items is not None
    items = world.items.copy()
    items[10:20, :100] = 0.0
    points = tuple(replace(p, value=float(row.mean())) for p, row in zip(world.points, items, strict=True))
    steps = find_steps([replace(world, items=items, points=points)])
    assert [(step.at, step.worse) for step in steps] == [(10, True), (20, False)]
    assert steps[0].after == pytest.approx(items[10:20].mean()) and steps[1].before == steps[0].after


def test_a_speed_below_the_noise_floor_is_no_step() -> None:
    def series(floor: float) -> Series:
        values = [1.5 + 0.001 * (i % 3) for i in range(20)] + [1.44 + 0.001 * (i % 3) for i in range(20)]
        points = tuple(Point(f"c{i}", f"t{i:02}", value, None, None, floor) for i, value in enumerate(values))
        return Series("speed", "v", "decode", points)

    assert len(find_steps([series(0.01)])) == 1 and find_steps([series(0.05)]) == []


# --- records to series -----------------------------------------------------------------------------------------------


def record(i: int, protocol: str = "p1", value: float = 0.5, skills: bool = True, **speed: Any) -> HistoryRecord:
    point = SkillPoint(
        variant="v<b>", suite="code", metric="m", preset="p", protocol=protocol, value=value, n=100, se=0.001,
        ci95=(value - 0.1, value + 0.1), items=None, scores=None,
    )  # fmt: skip
    fields = {"ratio": 1.5, "ci95": (1.4, 1.6), "noise_floor": 0.02, "undecided": None, "protocol": "m1", **speed}
    fast = SpeedPoint(variant="v", workload="decode", engine="torch", dtype="f32", batch=1, context=8, **fields)
    return HistoryRecord(
        commit=f"c{i}", time=f"2026-01-01T00:00:{i:02}Z", study="s <x>", study_hash="h", machine="m",
        skills=[point] if skills else [], speeds=[fast], item_sets={}, missing={"v<b>.code": "no sandbox"},
    )  # fmt: skip


def test_another_protocol_begins_a_new_series_and_is_no_step() -> None:
    records = [record(i, value=0.9) for i in range(6)] + [record(i, "p2", 0.4) for i in range(6, 12)]
    first, second = skill_series(records)
    assert (len(first.points), len(second.points)) == (6, 6) and second.restarted and not first.restarted
    result = check_history(records, Limits(), level=0.05)
    assert result.exit_code == 0 and "was measured in another way before c6" in result.text()
    same = [record(i, value=0.9 if i < 6 else 0.4) for i in range(12)]
    assert check_history(same, Limits(), level=0.05).exit_code == 1


def test_undecided_speeds_are_shown_not_tested() -> None:
    records = [record(i, ratio=1.5) for i in range(20)] + [
        record(i, ratio=0.7, undecided="noise floor 9 %") for i in range(20, 40)
    ]
    (series,) = speed_series(records)
    assert len(series.tested) == 20 and find_steps([series]) == []
    assert "are not tested: noise floor 9 %" in check_history(records, Limits(), level=0.05).text()


def test_what_the_newest_commit_lacks_is_said() -> None:
    records = [record(0), record(1, skills=False)]
    assert absent(records) == ["v<b>.code: no sandbox"]
    assert "has no value of v<b>.code: no sandbox" in check_history(records, Limits(), level=0.05).text()


def test_the_plot_is_an_inert_svg_with_every_point() -> None:
    records = [record(i, value=0.9 if i < 6 else 0.4, undecided="noise" if i == 3 else None) for i in range(12)]
    series = [*skill_series(records), *speed_series(records)]
    steps = find_steps(series)
    text = history_svg(series, steps, title="a <script> \x00 & b")
    root = ElementTree.fromstring(text)
    tags = {element.tag.partition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "rect", "g", "text", "line", "circle", "polygon"}
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == 24 and sum(c.get("fill") == "#fff" for c in circles) == 1
    assert len(steps) == 1 and "-50.0 at c6" in text
    colours = set(re.findall(r"#[0-9a-fA-F]{3,6}\b", text))
    assert all(len(set(colour[1:])) == 1 for colour in colours), "greys only"
    assert history_svg(series, steps, title="t") == history_svg(series, steps, title="t")


def test_the_simulation_reports_what_it_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.history.simulate.COMMITS", 12)
    wanted = {("false_steps", "same, normal, 300"), ("skill_power", "same, instruct, 300, 0.05")}
    tables: dict[str, dict[str, Any]] = {}
    for table, name, work in pieces(2):
        if (table, name) in wanted:
            tables.setdefault(table, {})[name] = work()
    assert tables["false_steps"]["same, normal, 300"]["skill share"] == 0
    facts = {"command": "x", "seed": 1, "versions": {"numpy": "2"}, "level": 0.05, "checks": 20, "tables": tables}
    text = report(facts)
    assert "| same            | normal          | 300 |      12 |         2 |" in text and "(not simulated yet)" in text
