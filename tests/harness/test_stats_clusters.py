"""Clustered variance against statsmodels and by hand; the design effect of few, uneven clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats import Estimate, mean_ci, paired_difference, recovery, score_ci
from harness.stats.adjust import MOST_GROWTH, PRIOR_ICC, Adjustment, adjustment, prior_effect
from harness.stats.bootstrap import too_few
from harness.stats.clusters import Clusters, group
from harness.stats.estimate import Z95

INDEX = np.arange(60)
LABELS = [str(c) for c in np.repeat(np.arange(6), [20, 15, 10, 8, 4, 3])]
BASE = ((INDEX * 7) % 10 < 8).astype(float)
VARIANT = np.where((INDEX * 17) % 23 < 4, 1 - BASE, BASE)


def width(estimate: Estimate) -> float:
    assert estimate.ci95 is not None
    return estimate.ci95[1] - estimate.ci95[0]


def test_standard_errors_equal_statsmodels() -> None:
    # statsmodels 0.15.0: OLS(y, ones).fit(cov_type="cluster", cov_kwds={"groups": labels}).bse[0], for y the baseline,
    # the difference, and the residual v - r b (then over the baseline's mean).
    assert mean_ci(BASE, LABELS).se == pytest.approx(0.013662601021279424, rel=1e-9)
    assert paired_difference(VARIANT, BASE, LABELS).estimate.se == pytest.approx(0.05519661825389913, rel=1e-9)
    assert recovery(VARIANT, BASE, LABELS).estimate.se == pytest.approx(0.05467708234108086 / BASE.mean(), rel=1e-9)


def test_no_flip_takes_the_assumed_correlation() -> None:
    labels = [str(i // 25) for i in range(300)]
    prior = 1 + 24 * PRIOR_ICC
    fit = adjustment(np.zeros(300), 0, group(300, labels))
    assert fit.deff() == pytest.approx(prior) == prior_effect(np.full(12, 25.0))
    # No cluster carries more than another: Student's t with 11 degrees of freedom.
    crit = float(stats.t.ppf(0.975, 11))
    assert fit.crit == pytest.approx(crit)
    estimate = paired_difference(np.ones(300), np.ones(300), labels).estimate
    z2 = crit * crit * prior
    assert estimate.ci95 == pytest.approx((-z2 / (300 + z2), z2 / (300 + z2)), abs=1e-9)


def test_adjustment_by_hand() -> None:
    # Two clusters of 3 and two of 2; flips of one sign: 2, 0, 1, 0 of them.
    labels = ["a"] * 3 + ["b"] * 3 + ["c"] * 2 + ["d"] * 2
    changed = np.array([1.0, 1, 0, 0, 0, 0, 1, 0, 0, 0])
    residuals = changed - 0.3
    fit = adjustment(residuals, 3, group(10, labels))
    sums = np.array([2 - 0.9, -0.9, 1 - 0.6, -0.6])
    observed = 4 / 3 * np.sum(sums**2) / (10 / 9 * np.sum(residuals**2))
    assert fit.observed == pytest.approx(observed)
    # Their kurtosis is below 1, that of two points: no cluster stands out, and C - 1 degrees of freedom are left.
    assert stats.kurtosis(sums, fisher=False, bias=False) < 1 and fit.crit == pytest.approx(stats.t.ppf(0.975, 3))
    assert fit.prior == pytest.approx(1 + ((9 + 9 + 4 + 4) / 10 - 1) * PRIOR_ICC)
    assert fit.most == pytest.approx(2.6)
    # Three flips show the excess of two: it is carried up by 3 / 2, and further where more flips are expected.
    carried = 1 + (observed - 1) * 1.5
    assert fit.deff() == pytest.approx(max((3 * carried + 2 * fit.prior) / 5, fit.floor))
    assert fit.deff(1.5) >= fit.deff() and fit.deff(100.0) == fit.deff(MOST_GROWTH)


def test_degrees_of_freedom_take_the_unbiased_kurtosis_of_the_clusters() -> None:
    flips = [6, 2, 1, 1, 0, 0, 0, 1]
    labels = [str(c) for c in range(8) for _ in range(10)]
    changed = np.concatenate([np.arange(10) < count for count in flips]).astype(float)
    fit = adjustment(changed - changed.mean(), sum(flips), group(80, labels))
    kurtosis = stats.kurtosis(np.array(flips) - np.mean(flips), fisher=False, bias=False)  # scipy's own G2
    assert 2 * 8 / (kurtosis - 1) < 7
    assert fit.crit == pytest.approx(stats.t.ppf(0.975, max(1.0, 2 * 8 / (kurtosis - 1))))


def test_design_effect_never_passes_that_of_copies() -> None:
    fit = Adjustment(crit=2.2, observed=20.0, informative=100.0, prior=2.2, floor=0.8, most=25.0)
    assert fit.deff(3.0) == pytest.approx((100 * 25 + 2 * 2.2) / 102)
    assert Adjustment(Z95).deff() == Adjustment(Z95).deff(9.0) == 1.0


def test_one_cluster_that_breaks_widens_more_than_flips_spread_evenly() -> None:
    labels = [str(i // 25) for i in range(300)]
    base, spread, whole = np.ones(300), np.ones(300), np.ones(300)
    spread[::25] = 0  # one item of each template
    whole[:12] = 0  # half a template
    even, broken = (paired_difference(v, base, labels).estimate for v in (spread, whole))
    alone = paired_difference(spread, base).estimate
    assert width(alone) <= width(even) < 0.5 * width(broken)


def test_related_items_are_never_more_certain_than_independent_ones() -> None:
    rng = np.random.default_rng(71)
    for _ in range(40):
        base = (rng.random(200) < 0.7).astype(float)
        variant = np.where(rng.random(200) < 0.1, 1 - base, base)
        labels = [str(x) for x in rng.integers(0, rng.integers(3, 60), 200)]
        for function in (paired_difference, recovery):
            assert width(function(variant, base, labels).estimate) > width(function(variant, base).estimate) - 1e-9
        assert width(score_ci(base, labels)) > width(score_ci(base)) - 1e-9


def test_flips_of_one_cluster_do_not_feed_a_bootstrap() -> None:
    changed = np.zeros((2, 300), dtype=bool)
    changed[0, :24] = True  # one template
    changed[1, ::12] = True  # 25 items all over
    labels = group(300, [str(i // 25) for i in range(300)])
    assert too_few(changed, labels).tolist() == [True, False]
    assert too_few(changed, group(300, None)).tolist() == [False, False]
    scores = np.linspace(0.4, 0.9, 300)
    bound = paired_difference(np.where(changed[0], scores / 2, scores), scores, [str(i // 25) for i in range(300)])
    assert bound.estimate.method == "flip-bound-clustered"
    low = bound.estimate.ci95 and bound.estimate.ci95[0]
    assert low is not None and low < -0.08  # 8 % of the items changed: their share may be more


def test_sums_of_many_rows() -> None:
    clusters = Clusters(np.array([1, 0, 1, 2]), 3, clustered=True)
    values = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 1.0]])
    assert clusters.sums(values).tolist() == [[2.0, 4.0, 4.0], [1.0, 0.0, 1.0]]
    assert group(2, None).sums(np.array([5.0, 6.0])).tolist() == [5.0, 6.0]
    assert math.isclose(clusters.sums(values[0]).sum(), 10.0)
