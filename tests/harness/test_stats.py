"""Statistics against published examples, brute force and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from harness.stats import (
    Estimate,
    mcnemar_exact,
    mean_ci,
    mean_of_recoveries,
    paired_difference,
    proportion_ci,
    recovery,
    score_ci,
    tang_interval,
    tango_interval,
    undefined,
)
from harness.stats.bootstrap import clopper_pearson_upper
from harness.stats.clusters import design_effect, group, mean_variance
from harness.stats.estimate import Z95

Z90 = float(stats.norm.ppf(0.95))


def known(estimate: Estimate) -> tuple[float, float, float]:
    assert estimate.value is not None and estimate.ci95 is not None
    return estimate.value, *estimate.ci95


# --- one score -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 20), (1, 29), (15, 148), (81, 263), (56, 70), (20, 20)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    want = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert proportion_ci(k, n).ci95 == pytest.approx((want.low, want.high), abs=1e-12)


def test_wilson_published_example() -> None:
    # Newcombe 1998, Stat. Med. 17:857, table I, method 3.
    assert known(proportion_ci(81, 263)) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)
    assert known(proportion_ci(0, 20))[1:] == pytest.approx((0.0, 0.1611), abs=5e-5)


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
    grouped = group(800, [str(i) for i in np.repeat(np.arange(200), 4)])
    # 4 up to the small-sample factors C/(C-1) and n/(n-1).
    assert design_effect(np.repeat(values, 4), grouped) == pytest.approx(4.0, rel=0.01)
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


# --- pairs of right/wrong items --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "crit", "want", "digits"),
    [
        # Tango 1998, table II: 90 % interval of the cross-over trial of contact lens disinfection, (43, 0, 1, 0).
        ((43, 0, 1, 0), Z90, (-0.096, 0.037), 3),
        # Newcombe 1998 (Stat. Med. 17:2635) and Tango's letter: (4, 9, 3, 16).
        ((4, 9, 3, 16), Z95, (-0.027, 0.390), 3),
        # Agresti & Min 2005: (53, 16, 8, 9).
        ((53, 16, 8, 9), Z95, (-0.020, 0.207), 3),
        # Fagerland, Lydersen & Laake 2014: (1, 1, 7, 12) and (59, 6, 16, 80).
        ((1, 1, 7, 12), Z95, (-0.517, -0.026), 3),
        ((59, 6, 16, 80), Z95, (-0.1240, -0.0054), 4),
    ],
)
def test_tango_published(table: tuple[int, ...], crit: float, want: tuple[float, float], digits: int) -> None:
    _, b, c, _ = table
    got = tango_interval(b, c, sum(table), crit)
    assert tuple(round(x, digits) for x in got) == want


@pytest.mark.parametrize(
    ("table", "crit", "want", "digits"),
    [
        # Tang, Tang & Chan 2003: 90 % intervals.
        ((446, 5, 16, 690), Z90, (0.958, 0.992), 3),
        ((43, 0, 1, 0), Z90, (0.904, 1.039), 3),
        # Fagerland, Lydersen & Laake 2014.
        ((1, 1, 7, 12), Z95, (0.065, 0.907), 3),
        ((59, 6, 16, 80), Z95, (0.7476, 0.9876), 4),
    ],
)
def test_tang_published(table: tuple[int, ...], crit: float, want: tuple[float, float], digits: int) -> None:
    a, b, c, _ = table
    got = tang_interval(a, b, c, sum(table), crit)
    assert tuple(round(x, digits) for x in got) == want


def _constrained_likelihood(counts: tuple[int, int, int, int], p11: float, p10: float, p01: float) -> float:
    total = 0.0
    for count, p in zip(counts, (p11, p10, p01, 1 - p11 - p10 - p01), strict=True):
        if count:
            if p <= 0:
                return -math.inf
            total += count * math.log(p)
    return total


def test_tango_limits_by_brute_force() -> None:
    """At each limit, maximise the likelihood numerically under the constraint; the score statistic must equal z."""
    b, c, n = 7, 19, 150
    for limit in tango_interval(b, c, n):
        # p(variant only) = q + d, p(baseline only) = q
        best = optimize.minimize_scalar(
            lambda q, d=limit: -_constrained_likelihood((0, b, c, n - b - c), 0.0, q + d, q),
            bounds=(max(0.0, -limit) + 1e-9, (1 - limit) / 2 - 1e-9),
            method="bounded",
            options={"xatol": 1e-12},
        )
        variance = n * (2 * best.x + limit - limit * limit)
        assert abs(b - c - n * limit) / math.sqrt(variance) == pytest.approx(Z95, abs=1e-5)


def test_tang_limits_by_brute_force() -> None:
    a, b, c, n = 90, 7, 19, 150
    for ratio in tang_interval(a, b, c, n):
        # p1 = ratio * p0, with p0 = p11 + p01 (baseline right) and p1 = p11 + p10 (variant right).
        def loss(x: np.ndarray, r: float = ratio) -> float:
            p11, p01 = float(x[0]), float(x[1])
            p10 = r * (p11 + p01) - p11
            value = _constrained_likelihood((a, b, c, n - a - b - c), p11, p10, p01) if p10 > 0 else -math.inf
            return -value if math.isfinite(value) else 1e9

        best = optimize.minimize(
            loss, np.array([0.5, 0.2]), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 4000}
        )
        p11, p01 = best.x
        p0 = p11 + p01
        variance = n * (ratio * p0 + ratio**2 * p0 - 2 * ratio * p11)
        assert abs(a + b - ratio * (a + c)) / math.sqrt(variance) == pytest.approx(Z95, abs=1e-4)


def test_no_flips_still_leaves_an_interval() -> None:
    z2 = Z95**2
    assert tango_interval(0, 0, 300) == pytest.approx((-z2 / (300 + z2), z2 / (300 + z2)), abs=1e-9)
    assert tang_interval(250, 0, 0, 300) == pytest.approx((1 / (1 + z2 / 250), 1 + z2 / 250), abs=1e-6)


def test_extreme_tables() -> None:
    assert tango_interval(0, 300, 300)[0] == -1.0
    assert tango_interval(300, 0, 300)[1] == 1.0
    assert tang_interval(0, 0, 5, 300) == pytest.approx((0.0, Z95**2 / 5), abs=1e-6)
    with pytest.raises(ValueError, match="undefined"):
        tang_interval(0, 5, 0, 300)
    with pytest.raises(ValueError, match="n > 0"):
        tango_interval(1, 1, 0)


tables = st.tuples(*(st.integers(0, 60) for _ in range(4))).filter(lambda t: sum(t) > 0)


@settings(max_examples=150, deadline=None)
@given(tables)
def test_intervals_hold_the_estimate_and_mirror(table: tuple[int, int, int, int]) -> None:
    a, b, c, d = table
    n = sum(table)
    low, high = tango_interval(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert tango_interval(c, b, n) == pytest.approx((-high, -low), abs=1e-8)
    if a + c:
        low, high = tang_interval(a, b, c, n)
        assert 0 <= low <= (a + b) / (a + c) <= high < math.inf
        # The test for ratio 1 and the test for difference 0 are the same (McNemar's): they must agree on 0.
        if abs(abs(b - c) - Z95 * math.sqrt(b + c)) > 1e-6:
            d_low, d_high = tango_interval(b, c, n)
            assert (low <= 1 <= high) == (d_low <= 0 <= d_high)
        if a + b:
            mirrored = tang_interval(a, c, b, n)
            assert mirrored == pytest.approx((1 / high, 1 / low if low > 0 else mirrored[1]), rel=1e-5)


def test_mcnemar() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703125)  # 2 * 9 / 256
    assert mcnemar_exact(6, 16) == pytest.approx(0.052479, abs=1e-6)  # Fagerland et al. 2013


# --- recovery and difference of item scores --------------------------------------------------------------------------


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


# --- simulated coverage ----------------------------------------------------------------------------------------------


def _binary_pairs(
    rng: np.random.Generator, n: int, p: float, lose: float, gain: float
) -> tuple[np.ndarray, np.ndarray]:
    base = (rng.random(n) < p).astype(float)
    draw = rng.random(n)
    variant = np.where(base == 1, draw >= lose, draw < gain).astype(float)
    return variant, base


@pytest.mark.parametrize(
    ("n", "p", "lose", "gain"), [(300, 0.8, 0.08, 0.1), (164, 0.35, 0.2, 0.05), (300, 0.95, 0.03, 0.1)]
)
def test_coverage_of_binary_pairs(n: int, p: float, lose: float, gain: float) -> None:
    rng, runs = np.random.default_rng(7), 1200
    p1 = p * (1 - lose) + (1 - p) * gain
    hits = np.zeros(2)
    for _ in range(runs):
        variant, base = _binary_pairs(rng, n, p, lose, gain)
        both = float((variant * base).sum())
        b01, b10 = float((variant > base).sum()), float((variant < base).sum())
        low, high = tango_interval(b01, b10, n)
        r_low, r_high = tang_interval(both, b01, b10, n)
        hits += [low <= p1 - p <= high, r_low <= p1 / p <= r_high]
    # Simulation error of the coverage itself: 0.0056.
    assert np.all((hits / runs > 0.935) & (hits / runs < 0.97)), hits / runs


def test_coverage_with_rare_flips_is_at_least_nominal() -> None:
    rng, runs, hits = np.random.default_rng(8), 500, np.zeros(2)
    for _ in range(runs):
        variant, base = _binary_pairs(rng, 80, 0.8, 0.01, 0.01)
        both = float((variant * base).sum())
        b01, b10 = float((variant > base).sum()), float((variant < base).sum())
        low, high = tango_interval(b01, b10, 80)
        r_low, r_high = tang_interval(both, b01, b10, 80)
        truth = 0.8 * 0.99 + 0.2 * 0.01
        hits += [low <= truth - 0.8 <= high, r_low <= truth / 0.8 <= r_high]
    assert np.all(hits / runs >= 0.95), hits / runs


def test_coverage_of_clustered_binary_difference() -> None:
    """40 templates of 8 items; the chance to lose an item varies between templates."""
    rng, runs, hits, naive = np.random.default_rng(9), 600, 0, 0
    labels = [str(i) for i in np.repeat(np.arange(40), 8)]
    a, b = 0.5, 3.5  # beta distribution of the loss rate, mean 0.125
    truth = -0.8 * a / (a + b)
    for _ in range(runs):
        base = (rng.random(320) < 0.8).astype(float)
        lose = np.repeat(rng.beta(a, b, 40), 8)
        variant = base * (rng.random(320) >= lose)
        grouped = group(320, labels)
        deff = design_effect(variant - base, grouped)
        lost = float((variant < base).sum())
        crit = float(stats.t.ppf(0.975, 39))
        low, high = tango_interval(0, lost / deff, 320 / deff, crit)
        hits += low <= truth <= high
        low, high = tango_interval(0, lost, 320)
        naive += low <= truth <= high
    assert 0.925 < hits / runs < 0.985, hits / runs
    assert naive / runs < 0.92  # what ignoring the templates would cost


def test_coverage_of_the_bootstrap_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.stats.bootstrap.RESAMPLES", 250)
    rng, runs, hits = np.random.default_rng(10), 300, 0
    truth = 1 - 0.15 * 0.4  # a share of 15 % of the summaries loses 40 % of its score on average
    for _ in range(runs):
        base = np.clip(rng.normal(0.7, 0.15, 120), 0.05, 1)
        variant = np.where(rng.random(120) < 0.15, base * rng.uniform(0.3, 0.9, 120), base)
        _, low, high = known(recovery(variant, base).estimate)
        hits += low <= truth <= high
    assert 0.92 < hits / runs < 0.98, hits / runs


def test_flip_bound_covers_when_few_items_differ() -> None:
    rng, runs, hits = np.random.default_rng(11), 300, 0
    truth = -0.01 * 0.5
    for _ in range(runs):
        base = rng.uniform(0.5, 1.0, 200)
        variant = np.where(rng.random(200) < 0.01, base - 0.5, base)
        result = paired_difference(variant, base)
        _, low, high = known(result.estimate)
        hits += low <= truth <= high
    assert hits / runs >= 0.95


def test_mean_variance_of_one_item_is_zero() -> None:
    assert mean_variance(np.array([0.5]), group(1, None)) == 0.0
