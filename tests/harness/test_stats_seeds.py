"""Several seeds: the spread between them is in the interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats import paired_difference, recovery, seeds_difference, seeds_recovery
from harness.stats.estimate import PairedEstimate


def limits(result: PairedEstimate) -> tuple[float, float]:
    assert result.estimate.ci95 is not None
    return result.estimate.ci95


def runs(seeds: int, spread: float, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(41)
    base = (rng.random(n) < 0.8).astype(float)
    shift = np.linspace(-spread, spread, seeds)[:, None]
    return base * (rng.random((seeds, n)) >= 0.1 + shift), base[None]


def test_one_seed_is_the_paired_difference_and_says_what_is_missing() -> None:
    variant, base = runs(1, 0.0)
    for labels in (None, [str(i // 10) for i in range(300)]):
        got, want = seeds_difference(variant, base, labels), paired_difference(variant[0], base[0], labels)
        assert limits(got) == pytest.approx(limits(want), abs=1e-9)
        assert (got.b01, got.b10, got.estimate.value) == (want.b01, want.b10, want.estimate.value)
        assert "one seed" in (got.estimate.reason or "")


def test_spread_between_seeds_widens_the_interval() -> None:
    variant, base = runs(3, 0.09)
    got = seeds_difference(variant, base)
    means = (variant - base).mean(axis=1)
    # At least Student's t on the three means, and the items on top.
    half = float(stats.t.ppf(0.975, 2)) * means.std(ddof=1) / math.sqrt(3)
    low, high = limits(got)
    assert got.estimate.value == pytest.approx(means.mean())
    assert low < means.mean() - half and high > means.mean() + half
    pooled = paired_difference(variant.ravel(), np.resize(base, variant.shape).ravel())
    assert high - low > 2 * (limits(pooled)[1] - limits(pooled)[0])
    assert got.estimate.se is not None and got.estimate.se > means.std(ddof=1) / math.sqrt(3)
    assert got.estimate.reason is None and got.estimate.n == 300


def test_copies_of_one_run_are_not_new_items() -> None:
    variant, base = runs(1, 0.0)
    once, thrice = paired_difference(variant[0], base[0]), seeds_difference(np.repeat(variant, 3, axis=0), base)
    assert limits(thrice) == pytest.approx(limits(once), abs=4e-3)
    assert (thrice.b01, thrice.b10) == (3 * once.b01, 3 * once.b10)


def test_no_flip_in_any_seed_still_leaves_an_interval() -> None:
    base = np.ones((1, 200))
    low, high = limits(seeds_difference(np.ones((3, 200)), base))
    assert low < -0.01 and high > 0.01


def test_seeds_on_both_sides_add_their_spread() -> None:
    variant, base = runs(3, 0.05)
    other = np.stack([base[0], np.roll(base[0], 1), np.roll(base[0], 2)])
    other[1, :12] = 0
    got, one = seeds_difference(variant, other), seeds_difference(variant, other.mean(axis=0)[None])
    assert got.estimate.value == pytest.approx(one.estimate.value)
    assert got.estimate.se is not None and one.estimate.se is not None
    assert got.estimate.se > one.estimate.se
    parts = [t.mean(axis=1).var(ddof=1) / 3 for t in (variant, other)]
    items = one.estimate.se**2 - parts[0]
    assert got.estimate.se == pytest.approx(math.sqrt(items + sum(parts)))


def test_continuous_scores_over_seeds() -> None:
    rng = np.random.default_rng(42)
    base = rng.uniform(0.4, 0.9, (1, 150))
    variant = np.clip(base - rng.uniform(0, 0.1, (3, 150)), 0, 1)
    got = seeds_difference(variant, base)
    assert got.estimate.method == "bootstrap-t"
    low, high = limits(got)
    assert low < (variant - base).mean() < high
    # The seeds share one law, so that their spread is small and the interval close to that of the item means.
    inner = limits(paired_difference(variant.mean(axis=0), base[0]))
    assert low <= inner[0] and high >= inner[1]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="every seed needs the same items"):
        seeds_difference([[1.0, 0.0], [1.0]], [[1.0, 0.0]])
    with pytest.raises(ValueError, match="same items, got 2 and 3"):
        seeds_difference([[1.0, 0.0]], [[1.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="between 0 and 1"):
        seeds_difference([[math.nan, 0.0]], [[1.0, 0.0]])
    with pytest.raises(ValueError, match="every seed"):
        seeds_difference([], [[1.0]])
    assert seeds_difference([[]], [[]]).estimate.value is None


def test_recovery_of_one_seed_is_the_recovery_and_says_what_is_missing() -> None:
    variant, base = runs(1, 0.0)
    for labels in (None, [str(i // 10) for i in range(300)]):
        for v, b in ((variant, base), (0.3 * variant + 0.2, 0.3 * base + 0.2)):
            got, want = seeds_recovery(v, b, labels), recovery(v[0], b[0], labels)
            assert limits(got) == pytest.approx(limits(want), abs=1e-9)
            assert (got.b01, got.b10, got.estimate.value) == (want.b01, want.b10, pytest.approx(want.estimate.value))
            assert "one seed" in (got.estimate.reason or "")


def test_spread_between_seeds_widens_the_recovery_too() -> None:
    variant, base = runs(3, 0.09)
    got = seeds_recovery(variant, base)
    ratios = variant.mean(axis=1) / base.mean()
    half = float(stats.t.ppf(0.975, 2)) * ratios.std(ddof=1) / math.sqrt(3)
    low, high = limits(got)
    assert got.estimate.value == pytest.approx(ratios.mean())
    assert low < ratios.mean() - half and high > ratios.mean() + half
    # Where the baseline is fixed and almost all right, the recovery is the difference on another scale.
    full = np.ones((1, 300))
    worse = variant + (1 - base)
    difference, ratio = seeds_difference(worse, full), seeds_recovery(worse, full)
    assert limits(ratio) == pytest.approx([1 + x for x in limits(difference)], abs=2e-3)


def test_seeds_of_the_baseline_count_too() -> None:
    variant, base = runs(3, 0.09)
    fixed, moving = seeds_recovery(base, variant[:1]), seeds_recovery(base, variant)
    assert limits(moving)[1] - limits(moving)[0] > 1.5 * (limits(fixed)[1] - limits(fixed)[0])


def test_recovery_over_seeds_is_undefined_where_the_baseline_scores_nothing() -> None:
    got = seeds_recovery(np.ones((2, 50)), np.zeros((1, 50)))
    assert got.estimate.value is None and got.estimate.ci95 is None and "undefined" in (got.estimate.reason or "")
    assert (got.b01, got.b10) == (100, 0)
    none = seeds_recovery(np.zeros((2, 50)), np.ones((1, 50)))
    assert none.estimate.value == 0.0 and limits(none)[0] == 0.0 and limits(none)[1] > 0.01
    with pytest.raises(ValueError, match="same items"):
        seeds_recovery(np.ones((2, 50)), np.ones((1, 49)))
