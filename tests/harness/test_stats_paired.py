"""Variant against baseline on the same items: right/wrong and continuous scores, with and without clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.stats import Estimate, paired_difference, recovery
from harness.stats.bootstrap import clopper_pearson_upper


def known(estimate: Estimate) -> tuple[float, float, float]:
    assert estimate.value is not None and estimate.ci95 is not None
    return estimate.value, *estimate.ci95


def test_binary_pairs_use_the_score_intervals() -> None:
    variant = [1.0] * 59 + [1.0] * 6 + [0.0] * 16 + [0.0] * 80
    baseline = [1.0] * 59 + [0.0] * 6 + [1.0] * 16 + [0.0] * 80
    ratio, difference = recovery(variant, baseline), paired_difference(variant, baseline)
    assert known(ratio.estimate) == pytest.approx((65 / 75, 0.7476, 0.9876), abs=5e-5)
    assert known(difference.estimate) == pytest.approx((-10 / 161, -0.1240, -0.0054), abs=5e-5)
    assert (difference.n_discordant, difference.b01, difference.b10) == (22, 6, 16)
    assert difference.p_value == pytest.approx(0.052479, abs=1e-6)
    assert ratio.estimate.method == "tang" and difference.estimate.method == "tango"


def test_recovery_of_a_zero_baseline_is_undefined() -> None:
    for variant in ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.3, 0.0, 0.2]):
        result = recovery(variant, [0.0, 0.0, 0.0])
        assert result.estimate.value is None and "undefined" in (result.estimate.reason or "")
    assert recovery([], []).estimate.value is None
    assert known(recovery([0.0] * 40, [1.0] * 40).estimate)[0] == 0.0


def test_scores_outside_the_scale_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        recovery([1.2], [0.5])
    with pytest.raises(ValueError, match="equally long"):
        paired_difference([1.0], [0.5, 0.5])


def test_continuous_without_a_difference_gives_the_flip_bound() -> None:
    scores = np.random.default_rng(4).uniform(0.5, 1.0, 200)
    ratio, difference = recovery(scores, scores), paired_difference(scores, scores)
    bound = clopper_pearson_upper(0, 200)
    assert bound == pytest.approx(1 - 0.025 ** (1 / 200))
    assert known(difference.estimate) == pytest.approx((0.0, -bound, bound))
    assert known(ratio.estimate) == pytest.approx((1.0, 1 - bound / scores.mean(), 1 + bound / scores.mean()))
    assert ratio.estimate.method == difference.estimate.method == "flip-bound"
    assert ratio.estimate.se is None


def test_continuous_bootstrap_agrees_with_linearisation() -> None:
    rng = np.random.default_rng(5)
    base = rng.uniform(0.4, 1.0, 400)
    variant = base * rng.uniform(0.8, 1.0, 400)
    estimate = recovery(variant, base).estimate
    value, low, high = known(estimate)
    residual = variant - value * base
    se = residual.std(ddof=1) / math.sqrt(400) / base.mean()
    assert estimate.se == pytest.approx(se)
    assert (low, high) == pytest.approx((value - 1.96 * se, value + 1.96 * se), abs=0.15 * se)
    assert recovery(variant, base).estimate == estimate  # seeded
    assert estimate.method == "bootstrap-t"


def test_all_zero_continuous_variant_keeps_an_upper_limit() -> None:
    value, low, high = known(recovery([0.0] * 50, [0.5 + 0.001 * i for i in range(50)]).estimate)
    assert value == low == 0.0
    assert high > 0.0


def test_clusters_widen_the_intervals() -> None:
    rng = np.random.default_rng(6)
    base = np.ones(300)
    broken = rng.random(30) < 0.2  # whole templates break together
    variant = np.where(np.repeat(broken, 10), 0.0, 1.0)
    labels = [str(i) for i in np.repeat(np.arange(30), 10)]
    _, low, high = known(paired_difference(variant, base).estimate)
    _, wide_low, wide_high = known(paired_difference(variant, base, labels).estimate)
    assert wide_high - wide_low > 2.5 * (high - low)
    assert paired_difference(variant, base, labels).estimate.method == "tango-clustered"


def test_single_cluster_falls_back_to_items() -> None:
    variant, base = [1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]
    assert paired_difference(variant, base, ["a"] * 4) == paired_difference(variant, base)
