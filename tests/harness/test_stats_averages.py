"""Mean of recoveries and recovery of means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from harness.stats import Estimate, mean_of_recoveries, recovery, recovery_of_means, undefined


def known(estimate: Estimate) -> tuple[float, float, float]:
    assert estimate.value is not None and estimate.ci95 is not None
    return estimate.value, *estimate.ci95


def test_mean_of_recoveries() -> None:
    parts = {
        "a": Estimate(0.9, 100, 0.02, (0.8, 0.95), "tang"),
        "b": Estimate(0.7, 100, 0.03, (0.6, 0.75), "tang"),
        "c": undefined("the baseline scores 0"),
    }
    mean = mean_of_recoveries(parts)
    half_down, half_up = math.hypot(0.1, 0.1) / 2, math.hypot(0.05, 0.05) / 2
    assert known(mean) == pytest.approx((0.8, 0.8 - half_down, 0.8 + half_up))
    assert mean.se == pytest.approx(math.hypot(0.02, 0.03) / 2)
    assert mean.n == 200
    assert "over 2 of 3" in (mean.reason or "") and "c" in (mean.reason or "")
    assert mean_of_recoveries({"c": undefined("no")}).value is None


@dataclass
class Pairs:
    variant: list[float]
    baseline: list[float]
    clusters: list[str] | None = None


def binary(both: int, gained: int, lost: int, neither: int) -> Pairs:
    return Pairs(
        [1.0] * (both + gained) + [0.0] * (lost + neither),
        [1.0] * both + [0.0] * gained + [1.0] * lost + [0.0] * neither,
    )


def test_the_two_conventions_differ() -> None:
    suites = {"strong": binary(80, 0, 10, 10), "weak": binary(5, 0, 5, 90)}
    means = recovery_of_means(suites)
    recoveries = {name: recovery(s.variant, s.baseline).estimate for name, s in suites.items()}
    assert means.value == pytest.approx((0.80 + 0.05) / (0.90 + 0.10))
    assert mean_of_recoveries(recoveries).value == pytest.approx((8 / 9 + 1 / 2) / 2)
    assert means.method == "mover-ratio" and means.n == 200


def test_suites_weigh_alike_whatever_their_size() -> None:
    small, large = binary(8, 0, 1, 1), binary(500, 0, 400, 100)
    assert recovery_of_means({"a": small, "b": large}).value == pytest.approx((0.8 + 0.5) / (0.9 + 0.9))


@pytest.mark.parametrize(
    "table", [(59, 6, 16, 80), (150, 5, 20, 25), (250, 0, 0, 50), (60, 0, 2, 238), (90, 30, 10, 20)]
)
def test_one_suite_is_near_the_score_interval(table: tuple[int, int, int, int]) -> None:
    pairs = binary(*table)
    got, want = recovery_of_means({"a": pairs}), recovery(pairs.variant, pairs.baseline).estimate
    assert got.value == pytest.approx(want.value)
    if want.se is None:
        assert got.se is None
    else:
        assert got.se == pytest.approx(want.se)
    width = known(want)[2] - known(want)[1]
    assert known(got)[1:] == pytest.approx(known(want)[1:], abs=0.12 * width)


def test_recovery_of_means_covers() -> None:
    rng, hits, runs = np.random.default_rng(51), 0, 400
    worlds = [(300, 0.8, 0.08, 0.02), (164, 0.35, 0.10, 0.05), (541, 0.7, 0.03, 0.02)]
    truth = sum(p - lost + gained for _, p, lost, gained in worlds) / sum(p for _, p, _, _ in worlds)
    for _ in range(runs):
        suites = {}
        for index, (n, p, lost, gained) in enumerate(worlds):
            suites[str(index)] = binary(*rng.multinomial(n, [p - lost, gained, lost, 1 - p - gained]).tolist())
        _, low, high = known(recovery_of_means(suites))
        hits += low <= truth <= high
    assert 0.92 < hits / runs < 0.985, hits / runs  # simulation error 0.011


def test_suite_with_a_zero_baseline_still_counts_in_the_recovery_of_means() -> None:
    suites = {"a": binary(80, 0, 10, 10), "zero": binary(0, 5, 0, 95)}
    assert recovery_of_means(suites).value == pytest.approx((0.80 + 0.05) / 0.90)
    nothing = recovery_of_means({"zero": binary(0, 5, 0, 95)})
    assert nothing.value is None and "undefined" in (nothing.reason or "") and nothing.n == 100
    assert recovery_of_means({}).value is None
    empty = recovery_of_means({"a": suites["a"], "b": Pairs([], [])})
    assert empty.value is None and "b has no pair" in (empty.reason or "")


def test_unbounded_ratio_keeps_a_lower_limit() -> None:
    # One right item of 50: the baseline's mean could be near 0, so the ratio has hardly an upper limit.
    value, low, high = known(recovery_of_means({"a": binary(1, 10, 0, 39)}))
    assert value == pytest.approx(11.0)
    assert 1.0 < low < value < high


def test_clusters_widen_the_recovery_of_means() -> None:
    broken = np.repeat(np.arange(30) % 5 == 0, 10)
    variant, base = np.where(broken, 0.0, 1.0).tolist(), [1.0] * 300
    labels = [str(i) for i in np.repeat(np.arange(30), 10)]
    alone, related = (
        recovery_of_means({"a": Pairs(variant, base)}),
        recovery_of_means({"a": Pairs(variant, base, labels)}),
    )
    assert known(related)[2] - known(related)[1] > 2 * (known(alone)[2] - known(alone)[1])
