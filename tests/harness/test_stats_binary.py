"""Score intervals of right/wrong items against published examples and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from harness.stats import Estimate, mcnemar_exact, proportion_ci, tang_interval, tango_interval
from harness.stats.estimate import Z95

Z90 = float(stats.norm.ppf(0.95))


def known(estimate: Estimate) -> tuple[float, float, float]:
    assert estimate.value is not None and estimate.ci95 is not None
    return estimate.value, *estimate.ci95


@pytest.mark.parametrize(("k", "n"), [(0, 20), (1, 29), (15, 148), (81, 263), (56, 70), (20, 20)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    want = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert proportion_ci(k, n).ci95 == pytest.approx((want.low, want.high), abs=1e-12)


def test_wilson_published_example() -> None:
    # Newcombe 1998, Stat. Med. 17:857, table I, method 3.
    assert known(proportion_ci(81, 263)) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)
    assert known(proportion_ci(0, 20))[1:] == pytest.approx((0.0, 0.1611), abs=5e-5)


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
