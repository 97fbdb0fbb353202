"""Intervals of one score: means, proportions, clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats import Estimate, mean_ci, proportion_ci, score_ci
from harness.stats.adjust import observed_design_effect
from harness.stats.clusters import group, mean_variance


def known(estimate: Estimate) -> tuple[float, float, float]:
    assert estimate.value is not None and estimate.ci95 is not None
    return estimate.value, *estimate.ci95


def test_mean_equals_the_t_interval() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.1, 40)
    want = stats.t.interval(0.95, 39, loc=values.mean(), scale=stats.sem(values))
    got = mean_ci(values)
    assert got.se == pytest.approx(stats.sem(values))
    assert got.ci95 == pytest.approx(want)
    assert got.method == "t"


def test_clustered_standard_error_by_hand() -> None:
    # Clusters a: 1, 1; b: 0, 0, 1. Mean 0.6; residual sums 0.8 and -0.8; C/(C-1) = 2; 2 (0.64 + 0.64) / 25.
    got = mean_ci([1.0, 1.0, 0.0, 0.0, 1.0], ["a", "a", "b", "b", "b"])
    assert got.se == pytest.approx(math.sqrt(2 * 1.28 / 25))
    assert got.method == "t-clustered"


def test_identical_items_in_clusters_count_once() -> None:
    values = np.random.default_rng(2).random(30)
    alone = mean_ci(values)
    fourfold = mean_ci(np.repeat(values, 4), [str(i) for i in np.repeat(np.arange(30), 4)])
    assert fourfold.se == pytest.approx(alone.se)
    assert fourfold.ci95 == pytest.approx(alone.ci95)


def test_design_effect_of_copies_is_their_number() -> None:
    values = (np.random.default_rng(3).random(200) < 0.7).astype(float)
    labels = [str(i) for i in np.repeat(np.arange(200), 4)]
    # 4 up to the small-sample factors C/(C-1) and n/(n-1).
    assert observed_design_effect(np.repeat(values, 4), np.zeros(800), labels) == pytest.approx(4.0, rel=0.05)
    copies = score_ci(np.repeat(values, 4), [str(i) for i in np.repeat(np.arange(200), 4)])
    assert copies.ci95 == pytest.approx(score_ci(values).ci95, abs=2e-3)
    assert copies.method == "wilson-clustered"


def test_cluster_labels_of_single_items_change_nothing() -> None:
    values = [0.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    assert score_ci(values, list("abcdef")) == score_ci(values) == proportion_ci(4, 6)


def test_constant_scores_get_a_bound_not_zero_width() -> None:
    value, low, high = known(score_ci([0.5] * 100))
    assert value == 0.5
    assert low == pytest.approx(0.5 - 0.5 * (1 - 0.05**0.01))
    assert high > 0.5
    assert mean_ci([0.5] * 4).ci95 is None
    assert mean_ci([0.5] * 4).reason


def test_no_items_is_undefined() -> None:
    for estimate in (proportion_ci(0, 0), mean_ci([]), score_ci([])):
        assert estimate.value is None and estimate.reason


def test_mean_variance_of_one_item_is_zero() -> None:
    assert mean_variance(np.array([0.5]), group(1, None)) == 0.0
