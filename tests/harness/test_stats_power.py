"""Planning: against exact power, published sample sizes and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats import expected_design_effect, minimum_detectable_difference, observed_design_effect, required_n
from harness.stats.binary import tango_score


def exact_power(n: int, flips: float, d: float, alpha: float) -> float:
    """Power of the one-sided exact McNemar test, summed over the number of discordant pairs."""
    k = np.arange(n + 1)
    gained = (flips - d) / 2 / flips
    limit = stats.binom.ppf(alpha, k, 0.5)
    limit = np.where(stats.binom.cdf(limit, k, 0.5) > alpha, limit - 1, limit)
    return float(np.sum(stats.binom.pmf(k, n, flips) * stats.binom.cdf(limit, k, gained)))


@pytest.mark.parametrize(("n", "flips"), [(1319, 0.1), (1319, 0.25), (541, 0.1), (300, 0.15), (164, 0.25)])
def test_detectable_difference_has_the_power_it_claims(n: int, flips: float) -> None:
    d = minimum_detectable_difference(n, flip_rate=flips)
    # The exact test is conservative, the more so the fewer pairs are discordant.
    assert 0.72 < exact_power(n, flips, d, 0.05) < 0.83


def test_detectable_difference_by_the_formula() -> None:
    # Connor 1987, eq. for n, solved backwards: n d^2 = (1.6449 sqrt(.1) + .8416 sqrt(.1 - d^2))^2.
    d = minimum_detectable_difference(1319, flip_rate=0.1)
    z_alpha, z_power = stats.norm.ppf(0.95), stats.norm.ppf(0.8)
    assert 1319 * d * d == pytest.approx((z_alpha * math.sqrt(0.1) + z_power * math.sqrt(0.1 - d * d)) ** 2)
    assert round(d, 4) == 0.0216


def test_detectable_difference_falls_with_items_and_rises_with_flips() -> None:
    values = [minimum_detectable_difference(n, flip_rate=0.1) for n in (60, 164, 300, 541, 1319)]
    assert values == sorted(values, reverse=True)
    assert minimum_detectable_difference(300, flip_rate=0.05) < minimum_detectable_difference(300, flip_rate=0.2)
    assert minimum_detectable_difference(300, flip_rate=0.1, design_effect=2.0) == pytest.approx(
        minimum_detectable_difference(150, flip_rate=0.1)
    )
    # A loss of d needs at least d flips: with none expected the answer is that loss, all flips being losses.
    d = minimum_detectable_difference(300, flip_rate=0.0)
    assert d == pytest.approx(minimum_detectable_difference(300, flip_rate=d), rel=1e-6)
    assert minimum_detectable_difference(1, flip_rate=0.1) == 1.0


@pytest.mark.parametrize(
    ("flips", "margin", "difference", "deff"),
    [(0.1, 0.02, 0.0, 1.0), (0.25, 0.05, 0.0, 1.0), (0.1, 0.05, -0.02, 1.0), (0.1, 0.02, -0.06, 1.0)],
)
def test_required_n_has_the_power_it_claims(flips: float, margin: float, difference: float, deff: float) -> None:
    n = required_n(flip_rate=flips, margin=margin, difference=difference, design_effect=deff)
    rng, z = np.random.default_rng(31), float(stats.norm.ppf(0.95))
    tables = rng.multinomial(n, [(flips + difference) / 2, (flips - difference) / 2, 1 - flips], size=4000)
    scores = np.array([tango_score(b01, b10, n, -margin) for b01, b10, _ in tables.tolist()])
    decided = np.mean(scores > z) if difference > -margin else np.mean(scores < -z)
    assert 0.77 < decided < 0.83  # simulation error 0.006


def test_required_n_without_flips_and_with_clusters() -> None:
    # No flip at all: the limit is -z^2 / (n + z^2), which clears the margin from z^2 (1 - m) / m items on.
    z2 = float(stats.norm.ppf(0.95)) ** 2
    assert required_n(flip_rate=0.0, margin=0.02) == math.ceil(z2 * 0.98 / 0.02)
    alone = required_n(flip_rate=0.1, margin=0.02)
    assert required_n(flip_rate=0.1, margin=0.02, design_effect=2.0) == pytest.approx(2 * alone, abs=1)
    # GSM8K's 1319 items do not resolve 2 points at 10 % flips, but do at 5 %.
    assert alone > 1319 > required_n(flip_rate=0.05, margin=0.02)


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="lies on the margin"):
        required_n(flip_rate=0.1, margin=0.02, difference=-0.02)
    for arguments in ({"margin": 0.0}, {"margin": math.nan}, {"flip_rate": 1.5}, {"alpha": 0.0}, {"power": 1.0}):
        with pytest.raises(ValueError, match="need"):
            required_n(**{"flip_rate": 0.1, "margin": 0.02, **arguments})
    with pytest.raises(ValueError, match="design effect"):
        required_n(flip_rate=0.1, margin=0.02, design_effect=0.5)
    with pytest.raises(ValueError, match="need n"):
        minimum_detectable_difference(0, flip_rate=0.1)


def test_design_effects_to_plan_with() -> None:
    labels = [str(i // 25) for i in range(300)]
    assert expected_design_effect(labels, 300) == pytest.approx(1 + 24 * 0.05)
    assert expected_design_effect(None, 300) == expected_design_effect([str(i) for i in range(300)], 300) == 1.0
    # Uneven sizes 30 and 10: an item meets 25 others of its kind on average, (900 + 100) / 40.
    assert expected_design_effect(["a"] * 30 + ["b"] * 10, 40, icc=0.1) == pytest.approx(1 + 24 * 0.1)
    base = np.ones(300)
    whole = np.where(np.repeat(np.arange(12), 25) < 3, 0.0, 1.0)  # three templates break entirely
    assert observed_design_effect(whole, base, labels) > 15
    assert observed_design_effect(whole, base) == 1.0
