"""The tests behind ranks: p-values against exact ones, groups against their definition, error rate by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats import mcnemar_exact
from harness.stats.decisions import walk_p
from harness.stats.ranking import letter, rank_groups
from harness.stats.sign_flip import _all_patterns, _saddlepoint, sign_flip_p


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_right_wrong_items_give_mcnemars_exact_p(gained: int, lost: int) -> None:
    sums = np.array([1.0] * gained + [-1.0] * lost)
    assert sign_flip_p(sums) == pytest.approx(mcnemar_exact(gained, lost), rel=1e-6, abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=60))
def test_whole_clusters_give_the_walk_of_the_gate(sums: list[int]) -> None:
    kept = np.array([s for s in sums if s], dtype=np.int64)
    wanted = min(1.0, 2 * min(walk_p(kept), walk_p(-kept))) if kept.size else 1.0
    assert sign_flip_p(np.array(sums, dtype=float)) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8, 1.5])
def test_the_saddlepoint_is_close_to_all_patterns(shift: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        sums = rng.normal(shift, 1.0, size=16)
        exact = _all_patterns(sums)
        # Within a tenth, or within the steps that 2^16 patterns make.
        assert _saddlepoint(sums) == pytest.approx(exact, rel=0.1, abs=2e-4)


def test_p_values_reach_far_enough_for_a_thousand_comparisons() -> None:
    assert sign_flip_p(np.full(300, 0.37)) < 1e-20
    assert sign_flip_p(np.zeros(5)) == 1.0
    assert sign_flip_p(np.array([0.5])) == 1.0


def test_one_better_entry_stands_alone() -> None:
    found = rank_groups([0.9, 0.5, 0.5], {(0, 1): 1e-6, (0, 2): 1e-6, (1, 2): 0.8})
    assert found.ranks == (1, 2, 2)
    assert found.letters == ("a", "b", "b")
    assert found.apart == {(0, 1), (0, 2)}


def test_the_middle_one_may_belong_to_both_groups() -> None:
    found = rank_groups([0.9, 0.7, 0.5], {(0, 1): 0.2, (0, 2): 1e-6, (1, 2): 0.2})
    assert found.ranks == (1, 1, 2)
    assert found.letters == ("a", "ab", "b")


def test_p_values_are_adjusted_for_the_number_of_pairs() -> None:
    assert rank_groups([0.9, 0.5], {(0, 1): 0.03}).ranks == (1, 2)
    assert rank_groups([0.9, 0.5, 0.5], {(0, 1): 0.03, (0, 2): 0.03, (1, 2): 1.0}).ranks == (1, 1, 1)


def test_a_missing_test_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no p-value for the pair \(0, 2\)"):
        rank_groups([1.0, 0.5, 0.2], {(0, 1): 0.5, (1, 2): 0.5})


@settings(deadline=None)
@given(st.integers(2, 7), st.data())
def test_letters_are_shared_exactly_where_no_difference_is_shown(k: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.floats(0, 1), min_size=k, max_size=k, unique=True))
    pairs = list(itertools.combinations(range(k), 2))
    p_values = {pair: data.draw(st.sampled_from([1e-9, 0.9])) for pair in pairs}
    found = rank_groups(values, p_values)
    assert found.letters is not None
    for i, j in pairs:
        apart = (i, j) in found.apart or (j, i) in found.apart
        assert apart == (p_values[i, j] < 0.5)
        assert apart == (not set(_names(found.letters[i])) & set(_names(found.letters[j])))
    for i in range(k):
        assert found.ranks[i] == 1 + sum(worse == i for _, worse in found.apart)


def _names(told: str) -> list[str]:
    names: list[str] = []
    for char in told:
        if char.isdigit():
            names[-1] += char
        else:
            names.append(char)
    return names


def test_letters_go_on_after_z() -> None:
    assert [letter(n) for n in (0, 25, 26, 51, 52)] == ["a", "z", "a1", "z1", "a2"]


def test_equal_variants_are_rarely_told_apart_and_different_ones_are() -> None:
    from harness.bench.leaderboard.errors import World, simulate

    equal = simulate(World(variants=8, items=200, clusters=20, binary=True), runs=150, seed=1)
    # At most 5 %: 150 runs of exactly 5 % would show more than 15 once in 200 times.
    assert equal.false_splits <= 15
    apart = simulate(World(variants=8, items=400, clusters=80, binary=True, worse=4, loss=0.2), runs=20, seed=2)
    assert apart.false_splits <= 4
    assert apart.found > 0.9
