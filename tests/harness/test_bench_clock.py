"""The arithmetic of speed panels, on stub clocks and made-up times."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from harness.bench import PanelSpec
from harness.bench.clock import (
    Clocks,
    Least,
    Timing,
    adjust_blocks,
    block_medians,
    block_order,
    blocks_to_go,
    is_steady,
    measure,
    speed_ratio,
)
from harness.errors import ConfigError

SPEC = PanelSpec("decode", "decode", 16, 1, 8, 1, "float32", "dense", 1.5, 7)


def test_measure_times_steps_between_synchronised_stamps() -> None:
    events: list[str] = []
    clock = {"wall": 100.0, "cpu": 5.0}

    def step() -> None:
        events.append("step")
        clock["wall"] += len(events)
        clock["cpu"] += 0.5

    clocks = Clocks(lambda: clock["wall"], lambda: clock["cpu"], lambda: events.append("sync"))
    timing = measure(step, steps=3, clocks=clocks)
    assert events == ["sync", "step", "sync", "step", "sync", "step", "sync"]
    assert timing == Timing((2.0, 4.0, 6.0), 1.5)


def test_blocks_mirror_each_other_and_rotate() -> None:
    orders = ["".join(block_order("abc", block)) for block in range(6)]
    assert orders == ["abc", "cba", "bca", "acb", "cab", "bac"]


def test_a_linear_drift_cancels_between_the_blocks_of_a_pair() -> None:
    seen: dict[str, list[int]] = {}
    at = 0
    for block in range(2):
        for name in block_order("abcd", block):
            seen.setdefault(name, []).append(at)
            at += 1
    assert {sum(times) for times in seen.values()} == {7}


def test_steady() -> None:
    assert not is_steady([1.0] * 9)
    assert is_steady([5.0, 1, 1, 1, 1, 1, 1.04, 1.04, 1.04, 9])
    assert not is_steady([1.0] * 5 + [1.06] * 5)
    assert not is_steady([1.0] * 5 + [0.9] * 5)


def test_blocks_come_in_pairs_and_end_with_the_budget() -> None:
    def total(each: float, budget: float, share: float = 1.0) -> int:
        done = 0
        while blocks_to_go(done, elapsed=done * each, budget=budget, least=Least(6, 3.0), measured=done * share):
            done += 1
        return done

    assert total(10.0, 1.0) == 6
    assert total(1.0, 20.0) == 20
    assert total(1.0, 21.0) == 20
    assert total(1.0, 19.0) == 18
    assert total(10.0, 1.0, share=0.3) == 10, "every process is measured for three seconds"


def test_block_medians() -> None:
    assert block_medians([Timing((1.0, 9.0, 2.0), 0), Timing((4.0, 2.0), 0)]) == [2.0, 3.0]


def test_ratio_is_baseline_over_variant() -> None:
    exact = speed_ratio([2.0] * 6, [1.0] * 6, seed=0)
    assert exact.value == 2.0 and exact.ci95 == (2.0, 2.0)
    base, variant = [1.0, 1.1, 0.9, 1.3, 1.0, 1.2], [2.0, 2.3, 1.9, 2.2, 2.0, 2.1]
    got = speed_ratio(base, variant, seed=1)
    assert got.value == pytest.approx(1.05 / 2.05)
    assert got.ci95 is not None and got.ci95[0] < got.value < got.ci95[1] < 1
    assert got == speed_ratio(base, variant, seed=1)
    assert got.ci95 != speed_ratio(base, variant, seed=2).ci95
    with pytest.raises(ValueError):
        speed_ratio([], [], seed=0)


def test_a_drift_that_meets_all_processes_cancels_exactly() -> None:
    drift = [1.0, 3.0, 0.5, 7.0, 1.1, 2.0]
    times = {"a": [2.0 * d for d in drift], "b": [1.0 * d for d in drift], "c": [5.0 * d for d in drift]}
    adjusted = adjust_blocks(times)
    assert all(np.allclose(values, values[0]) for values in adjusted.values())
    ratio = speed_ratio(adjusted["a"], adjusted["b"], seed=0)
    assert ratio.value == pytest.approx(2.0) and ratio.ci95 == pytest.approx((2.0, 2.0))
    rng = np.random.default_rng(1)
    noisy = {name: (np.array(values) * rng.lognormal(0, 0.1, 6)).tolist() for name, values in times.items()}
    cleaned = adjust_blocks(noisy)
    for block in range(6):  # proportions within a block stay, and so does the scale of the whole
        assert cleaned["a"][block] / cleaned["b"][block] == pytest.approx(noisy["a"][block] / noisy["b"][block])
    assert np.mean([np.log(v) for v in cleaned.values()]) == pytest.approx(np.mean([np.log(v) for v in noisy.values()]))
    with pytest.raises(ValueError):
        adjust_blocks({"a": [1.0], "b": [1.0, 2.0]})


def test_the_interval_covers_and_shared_noise_cancels() -> None:
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    for trial in range(100):
        shared = rng.lognormal(0, 0.3, 30)  # a slow block is slow for both
        base = shared * rng.lognormal(0, 0.03, 30)
        variant = shared * rng.lognormal(0, 0.03, 30) / 1.25
        ratio = speed_ratio(base.tolist(), variant.tolist(), seed=trial)
        assert ratio.ci95 is not None
        covered += ratio.ci95[0] <= 1.25 <= ratio.ci95[1]
        widths.append(ratio.ci95[1] - ratio.ci95[0])
    assert covered >= 0.88 * 100
    unpaired = speed_ratio(rng.lognormal(0, 0.3, 30).tolist(), (rng.lognormal(0, 0.3, 30) / 1.25).tolist(), seed=0)
    assert unpaired.ci95 is not None
    assert np.median(widths) < 0.5 * (unpaired.ci95[1] - unpaired.ci95[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workload", "dance"),
        ("engine", "steam"),
        ("context", 0),
        ("batch", 0),
        ("threads", 0),
        ("budget_s", 0),
        ("panel", "../x"),
        ("batches", (1, 2)),
        ("engines", ("torch",)),
        ("attempts", 0),
        ("memory_limit", 0),
    ],
)
def test_an_impossible_spec_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError):
        replace(SPEC, **{field: value})


def test_a_spec_survives_json_and_knows_its_points() -> None:
    sweep = replace(SPEC, workload="throughput", batches=(1, 4), memory_limit=10**9)
    assert PanelSpec.from_dict(json.loads(json.dumps(asdict(sweep)))) == sweep
    assert (SPEC.points, sweep.points, replace(sweep, batches=()).points) == ((1,), (1, 4), (1, 2, 4, 8, 16))
    with pytest.raises(ConfigError):
        replace(sweep, batches=(4, 1))
