"""The gate's questions: Holm, the p-value of a loss, the lower limit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.stats import holm, loss_p_value, lower_bound, paired_difference, tango_interval
from harness.stats.decisions import walk_p


def binary(both: int, gained: int, lost: int, neither: int) -> tuple[list[float], list[float]]:
    variant = [1.0] * both + [1.0] * gained + [0.0] * lost + [0.0] * neither
    baseline = [1.0] * both + [0.0] * gained + [1.0] * lost + [0.0] * neither
    return variant, baseline


def test_holm_by_hand() -> None:
    # Sorted: .005 x 4, .01 x 3, .03 x 2, .04 x 1, each at least the one before it. statsmodels 0.14.6 multipletests(
    # [.01, .04, .03, .005], method="holm")[1] gives the same.
    got = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(got) == ["a", "b", "c", "d"]
    assert list(got.values()) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_keeps_one_p_and_stops_at_one() -> None:
    assert holm({"a": 0.04}) == {"a": 0.04}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    for bad in (math.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="a: a p-value"):
            holm({"a": bad})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_rejects(p_values: list[float]) -> None:
    alpha, names = 0.05, [str(i) for i in range(len(p_values))]
    adjusted = holm(dict(zip(names, p_values, strict=True)))
    rejected = set()
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] * (len(p_values) - rank) > alpha:
            break
        rejected.add(names[i])
    assert {name for name, p in adjusted.items() if p <= alpha} == rejected


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (1, 7), (6, 16), (16, 6), (0, 0), (30, 61)])
def test_loss_of_independent_items_is_the_exact_mcnemar_test(gained: int, lost: int) -> None:
    want = stats.binomtest(gained, gained + lost, 0.5, alternative="less").pvalue if gained + lost else 1.0
    assert loss_p_value(*binary(40, gained, lost, 9)) == pytest.approx(want, abs=1e-12)


def _every_sign(sums: list[float]) -> float:
    totals = [
        sum(sign * x for sign, x in zip(signs, sums, strict=True))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    return float(np.mean(np.array(totals) <= sum(sums) + 1e-9))


def test_loss_in_clusters_flips_them_whole() -> None:
    # Cluster sums -3, -2, +1, 0: 2 of the 8 patterns of the three that differ reach -4 or less.
    variant = [0.0] * 3 + [0.0, 0.0] + [1.0, 1.0] + [1.0, 0.0]
    baseline = [1.0] * 3 + [1.0, 1.0] + [1.0, 0.0] + [0.0, 1.0]
    labels = ["a"] * 3 + ["b"] * 2 + ["c"] * 2 + ["d"] * 2
    assert loss_p_value(variant, baseline, labels) == pytest.approx(2 / 8)
    assert loss_p_value(variant, baseline) < 2 / 8


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_walk_equals_every_pattern(sums: list[int]) -> None:
    assert walk_p(np.array(sums)) == pytest.approx(_every_sign([float(x) for x in sums]))


def test_loss_of_continuous_scores_by_every_pattern() -> None:
    rng = np.random.default_rng(21)
    base = rng.uniform(0.3, 0.9, 9)
    variant = np.clip(base + rng.normal(-0.02, 0.05, 9), 0, 1)
    assert loss_p_value(variant, base) == pytest.approx(_every_sign((variant - base).tolist()))


def test_loss_of_many_continuous_scores_is_near_the_normal_p() -> None:
    rng = np.random.default_rng(22)
    base = rng.uniform(0.3, 0.7, 300)
    variant = base + rng.normal(-0.004, 0.05, 300)
    difference = variant - base
    want = stats.norm.cdf(difference.sum() / math.sqrt(np.square(difference).sum()))
    got = loss_p_value(variant, base)
    assert got == pytest.approx(want, abs=0.01)
    assert got == loss_p_value(variant, base)  # seeded
    assert loss_p_value(np.clip(base - 0.2, 0, 1), base) == pytest.approx(1 / 20_001)


def test_loss_without_a_difference_is_one() -> None:
    assert loss_p_value([0.4, 1.0], [0.4, 1.0]) == 1.0
    with pytest.raises(ValueError, match="at least one pair"):
        loss_p_value([], [])
    with pytest.raises(ValueError, match="between 0 and 1"):
        loss_p_value([math.nan], [0.5])


def test_lower_bound_is_the_score_limit() -> None:
    variant, baseline = binary(59, 6, 16, 80)
    # At 2.5 % it is the lower limit of the 95 % interval; at 5 % that of the 90 % interval.
    limits = paired_difference(variant, baseline).estimate.ci95
    assert limits is not None
    assert lower_bound(variant, baseline, alpha=0.025) == pytest.approx(limits[0])
    assert lower_bound(variant, baseline) == pytest.approx(tango_interval(6, 16, 161, float(stats.norm.ppf(0.95)))[0])
    labels = [str(i % 23) for i in range(161)]
    limits = paired_difference(variant, baseline, labels).estimate.ci95
    assert limits is not None
    assert lower_bound(variant, baseline, labels, alpha=0.025) == pytest.approx(limits[0])
    assert lower_bound(variant, baseline, labels) > limits[0]


def test_lower_bound_of_continuous_scores() -> None:
    rng = np.random.default_rng(23)
    base = rng.uniform(0.4, 1.0, 120)
    variant = np.where(rng.random(120) < 0.3, base * 0.8, base)
    limits = paired_difference(variant, base).estimate.ci95
    assert limits is not None
    assert lower_bound(variant, base, alpha=0.025) == pytest.approx(limits[0])
    assert limits[0] < lower_bound(variant, base) < float((variant - base).mean())
    with pytest.raises(ValueError, match="at least one pair"):
        lower_bound([], [])
