"""What a panel may say: floors, restlessness, slowdowns, confirmation, percentiles, energy. No processes."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench import INT8_REASON, PanelOptions, PanelRow, PanelSpec
from harness.bench.clock import Ratio, Timing
from harness.bench.decide import (
    ALPHA,
    Comparison,
    Findings,
    floor_of,
    is_faster,
    is_slower,
    mann_whitney,
    moved,
    needs_confirmation,
    restlessness,
    verdict_of,
)
from harness.bench.energy import joules_between, read_energy
from harness.bench.latency import percentile, percentile_interval, percentiles, supports
from harness.bench.meter import CHUNK, read_bandwidth
from harness.bench.panel import panel_entries, panel_roles
from harness.bench.record import read_record, write_record
from harness.bench.rows import TWIN, Entry, Outcome, energy_per_token, findings_of, panel_rows
from harness.bench.series import Series

SPEC = PanelSpec("decode", "decode", 16, 1, 3, 1, "float32", "dense", 1.5, 7)
REST = ("noise floor 9.0 % is above 5 %",)


def result(seconds: dict[str, float], *, bandwidth: tuple[float, float] = (1e10, 1e10), **more: Any) -> dict[str, Any]:
    """Ten blocks, a little apart so that ranks are without ties."""
    measures = [
        {"block": block, "position": 0, "process": name, "seconds": [s * (1 + block / 1e4)] * 3, "cpu": 0.0, **more}
        for block in range(10)
        for name, s in seconds.items()
    ]
    return {
        "processes": {name: {"peak_rss": 7_000_000, "peak_device": None} for name in seconds},
        "measures": measures,
        "dropped": {},
        "before": {"read_bandwidth": bandwidth[0]},
        "after": {"read_bandwidth": bandwidth[1]},
    }


def found(value: float, half: float = 0.01, p: float = 0.001) -> Comparison:
    return Comparison(Ratio(value, (value - half, value + half)), p)


def findings(restless: tuple[str, ...] = (), **ratios: float) -> Findings:
    return Findings(found(1.0), {name: found(value) for name, value in ratios.items()}, restless)


def test_the_noise_floor_is_the_farthest_reach_of_the_twin() -> None:
    assert floor_of(Ratio(1.01, (0.97, 1.02))) == pytest.approx(0.03)
    assert floor_of(Ratio(0.9, None)) == pytest.approx(0.1)
    assert moved(10.0, 9.0) == moved(9.0, 10.0) == pytest.approx(0.1)
    assert restlessness(0.05, (10.0, 9.01)) == ()
    assert restlessness(0.051, None) == ("noise floor 5.1 % is above 5 %",)
    assert restlessness(0.01, (10.0, 8.9)) == ("read bandwidth moved 11 %, above 10 %",)


def test_mann_whitney_is_the_exact_count() -> None:
    """Against all 924 ways of choosing six of twelve ranks."""
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0], [6.0, 7.0, 8.0, 10.0, 11.0, 12.0]
    joint = [*first, *second]

    def u(chosen: tuple[int, ...]) -> int:
        rest = [joint[i] for i in range(12) if i not in chosen]
        return sum(joint[i] > other for i in chosen for other in rest)

    mine = u(tuple(range(6)))
    counts = [u(chosen) for chosen in itertools.combinations(range(12), 6)]
    extreme = min(mine, 36 - mine)
    expected = sum(count <= extreme or count >= 36 - extreme for count in counts) / len(counts)
    assert mann_whitney(first, second) == pytest.approx(expected)
    assert mann_whitney([1.0] * 6, [1.0] * 6) == 1.0
    assert mann_whitney([1.0, 2, 3, 4, 5, 6], [7.0, 8, 9, 10, 11, 12]) == pytest.approx(2 / 924)
    assert 2 / 924 < ALPHA, "six blocks can decide"


def test_a_slowdown_clears_the_floor_with_its_whole_interval_and_its_ranks() -> None:
    assert is_slower(found(0.9), 0.05) and not is_faster(found(0.9), 0.05)
    assert not is_slower(found(0.945), 0.05), "0.955 is inside the floor"
    assert not is_slower(found(0.9, p=0.02), 0.05)
    assert is_faster(found(1.1), 0.05) and not is_faster(found(1.055), 0.05)
    assert not is_slower(Comparison(Ratio(0.5, None), 0.0), 0.01)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (findings(v=1.0), None, "no difference"),
        (findings(v=1.2), None, "faster"),
        (findings(v=0.8), findings(v=0.8), "slower"),
        (findings(v=0.8), findings(v=1.0), "unconfirmed"),
        (findings(v=0.8), None, "unconfirmed"),
        (findings(v=0.8), findings(REST, v=0.8), "not decided"),
        (findings(REST, v=0.8), None, "not decided"),
        (findings(REST, v=1.5), None, "not decided"),
        (findings(), None, "not measured"),
    ],
)
def test_verdicts(first: Findings, second: Findings | None, expected: str) -> None:
    assert verdict_of("v", first, second) == expected


def test_a_missed_target_is_confirmed_like_a_slowdown() -> None:
    fast = findings(v=1.5)
    assert not needs_confirmation(fast, {}) and not needs_confirmation(fast, {"v": 1.5})
    assert needs_confirmation(fast, {"v": 1.8}) and needs_confirmation(findings(v=0.8), {})
    assert not needs_confirmation(findings(REST, v=0.8), {})
    assert verdict_of("v", fast, None, at_least=1.8) == "unconfirmed"
    assert verdict_of("v", fast, findings(v=1.9), at_least=1.8) == "unconfirmed"
    assert verdict_of("v", fast, findings(v=1.6), at_least=1.8) == "faster", "short of the target, as both runs say"
    assert verdict_of("v", findings(v=0.8), findings(v=1.6), at_least=1.8) == "unconfirmed"


class Scripted:
    """Answers one request after the other, and notes which asked for new processes."""

    def __init__(self, *results: dict[str, Any]) -> None:
        self.results, self.fresh = list(results), []

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        self.fresh.append(request["fresh"])
        return {"result": self.results.pop(0), "libraries": {"torch": "0"}}


QUIET = {"dense": 1.0, "dense" + TWIN: 1.0, "v": 1.0}
SLOW = {**QUIET, "v": 1.25}
NOISY = {**QUIET, "dense" + TWIN: 1.1}
ROLES = {name: {"variant": name.removesuffix(TWIN)} for name in QUIET}


@pytest.mark.parametrize(
    ("script", "fresh", "verdict"),
    [
        ([result(QUIET)], [False], "no difference"),
        ([result(SLOW), result(SLOW)], [False, True], "slower"),
        ([result(SLOW), result(QUIET)], [False, True], "unconfirmed"),
        ([result(NOISY), result(QUIET)], [False, True], "no difference"),
        ([result(QUIET, bandwidth=(1e10, 8e9)), result(QUIET)], [False, True], "no difference"),
        ([result(NOISY)] * 3, [False, True, True], "not decided"),
        ([result(NOISY), result(SLOW), result(NOISY), result(SLOW)], [False, True, True, True], "slower"),
        ([result(SLOW), *[result(NOISY)] * 3], [False, True, True, True], "not decided"),
    ],
)
def test_runs_are_repeated_and_confirmed(script: list[dict[str, Any]], fresh: list[bool], verdict: str) -> None:
    ask = Scripted(*script)
    series = Series(ask, PanelOptions())
    outcome = series.settle(SPEC, ROLES)
    assert ask.fresh == fresh and ask.results == [] and len(series.runs) == len(fresh)
    row = panel_rows(SPEC, [Entry("v", "torch", "v")], outcome)[0]
    assert row.verdict == verdict
    assert (row.reason or "").startswith(verdict if verdict in ("not decided", "unconfirmed") else "")
    confirmed = [run for run in series.runs if run["purpose"] == "confirmation"]
    assert (row.confirmation is not None) == bool(confirmed)
    if row.confirmation and confirmed:
        assert row.confirmation["decided"] == (not confirmed[-1]["restless"])


def test_no_confirmation_where_none_is_wanted() -> None:
    ask = Scripted(result(SLOW))
    outcome = Series(ask, PanelOptions()).settle(replace(SPEC, confirm=False), ROLES)
    assert panel_rows(SPEC, [Entry("v", "torch", "v")], outcome)[0].verdict == "unconfirmed"


def test_rows_from_timings() -> None:
    spec = replace(SPEC, batch=4)
    seconds = {"dense": 0.02, "dense" + TWIN: 0.0202, "slow": 0.04}
    made = result(seconds)
    entries = [
        Entry("slow", "torch", "slow", bytes=123),
        Entry("int8", "torch", "int8", skip=INT8_REASON),
        Entry("dense", "torch", "dense"),
    ]
    rows = panel_rows(spec, entries, Outcome(made, findings_of(spec, made), 2, findings_of(spec, made)))
    slow, skipped, dense = rows
    assert slow.tokens_per_s == pytest.approx(100.0, rel=1e-3) and slow.ratio == pytest.approx(0.5)
    assert (slow.verdict, slow.reason, slow.attempts, slow.n_blocks, slow.bytes) == ("slower", None, 2, 10, 123)
    assert slow.noise_floor == {"ratio": pytest.approx(1 / 1.01), "ci95": [pytest.approx(1 / 1.01, rel=1e-3)] * 2}
    assert slow.baseline == {"variant": "dense", "engine": "torch", "dtype": "float32"}
    assert slow.energy_j_per_token == "unavailable" and slow.peak_rss == 7_000_000
    assert slow.percentiles == {
        "metric": "itl",
        "n": 30,
        "p50": pytest.approx(0.04, rel=1e-3),
        "p90": None,
        "p95": None,
        "p99": None,
    }
    assert (skipped.tokens_per_s, skipped.ratio, skipped.ci95, skipped.n_blocks) == (None, None, None, 0)
    assert (skipped.reason, skipped.verdict, skipped.energy_j_per_token) == (INT8_REASON, "not measured", None)
    assert (dense.ratio, dense.ci95, dense.verdict) == (1.0, None, "baseline") and dense.reason
    prefill = replace(spec, workload="prefill", context=50)
    row = panel_rows(prefill, entries, Outcome(made, findings_of(spec, made), 1))[0]
    assert row.tokens_per_s == pytest.approx(4 * 50 / 0.04, rel=1e-3)
    for each in rows:
        assert PanelRow.from_dict(json.loads(json.dumps(each.as_dict()))) == each


def test_a_row_of_an_older_record_is_read(tmp_path: Path) -> None:
    old = panel_rows(SPEC, [Entry("v", "torch", "v")], Outcome(result(QUIET), findings_of(SPEC, result(QUIET)), 1))[0]
    older = {name: value for name, value in old.as_dict().items() if name in list(PanelRow.__annotations__)[:15]}
    assert list(older)[-1] == "reason"
    read = PanelRow.from_dict(older)
    assert read.ratio == old.ratio and read.verdict is None and read.bytes is None
    with pytest.raises(ValueError, match="unknown"):
        PanelRow.from_dict({**older, "surprise": 1})
    write_record(tmp_path / "x.jsonl", {"n_rows": 1}, [{"purpose": "first", **result(QUIET)}], [read])
    assert read_record(tmp_path / "x.jsonl")[1] == [read]


def test_the_baseline_may_be_what_does_not_fit() -> None:
    spec = replace(SPEC, workload="throughput", batches=(8,), batch=8)
    made = result({"v": 0.5})
    made["dropped"] = {"dense": "out of memory at batch 8", "dense" + TWIN: "out of memory at batch 8"}
    entries = [Entry("dense", "torch", "dense"), Entry("v", "torch", "v")]
    dense, other = panel_rows(spec, entries, Outcome(made, findings_of(spec, made), 1))
    assert dense.tokens_per_s is None and dense.reason == "out of memory at batch 8"
    assert other.tokens_per_s is not None and other.ratio is None and "the baseline has no time" in str(other.reason)
    assert other.verdict == "not measured"


def test_every_variant_runs_on_every_engine_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import harness.bench.spec

    monkeypatch.setattr(harness.bench.spec, "ENGINES", ("torch", "other"))
    for name in ("dense", "int8"):
        (tmp_path / name).mkdir()
    (tmp_path / "int8" / "config.json").write_text('{"quantization_config": {"quant_method": "x"}}')
    spec = replace(SPEC, engines=("other",))
    variants = {name: tmp_path / name for name in ("dense", "int8")}
    options = PanelOptions(extra={"int8": 2})
    entries = panel_entries(spec, variants, options)
    assert [(e.variant, e.engine, e.skip is None) for e in entries] == [
        ("dense", "torch", True),
        ("int8", "torch", False),
        ("dense", "other", True),
        ("int8", "other", True),
    ], "emulated on torch only"
    roles = panel_roles(spec, variants, entries, options)
    assert list(roles) == ["dense", "dense@other", "dense#twin", "int8@other"]
    assert roles["dense"] == roles["dense#twin"] != roles["dense@other"]
    assert roles["int8@other"]["extra"] == 2 and roles["int8@other"]["engine"] == "other"


# Percentiles.


def test_a_percentile_needs_five_values_beyond_it() -> None:
    assert [supports(n, 0.99) for n in (499, 500)] == [False, True]
    assert [supports(n, 0.9) for n in (49, 50)] == [False, True]
    assert [supports(n, 0.5) for n in (9, 10)] == [False, True]
    assert [supports(n, 0.05) for n in (99, 100)] == [False, True]
    assert percentiles(range(1, 101)) == {"p50": 50, "p90": 90, "p95": 95, "p99": None}
    assert percentile([3.0, 1.0, 2.0], 0.5) is None


@given(st.lists(st.integers(-50, 50), min_size=10, max_size=120), st.sampled_from([0.1, 0.5, 0.9]))
def test_percentiles_are_nearest_rank(values: list[int], p: float) -> None:
    got = percentile(values, p)
    assert (got is not None) == supports(len(values), p)
    if got is not None:
        assert got == np.quantile(values, p, method="inverted_cdf")
        interval = percentile_interval(values, p)
        assert interval is not None and interval[0] <= got <= interval[1]


def test_the_interval_of_a_percentile_covers() -> None:
    """Exact: the binomial probability that the two order statistics enclose the quantile."""
    for n, p in ((10, 0.5), (50, 0.9), (100, 0.95), (500, 0.99), (1000, 0.9)):
        interval = percentile_interval(range(1, n + 1), p)
        assert interval is not None
        low, high = (int(end) for end in interval)
        inside = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(low, high))
        assert 0.95 <= inside <= 0.99, (n, p, inside)


# Energy and bandwidth.


def rapl(root: Path, zone: str, used: int, limit: int = 1000) -> None:
    (root / zone).mkdir(exist_ok=True)
    (root / zone / "energy_uj").write_text(f"{used}\n")
    (root / zone / "max_energy_range_uj").write_text(f"{limit}\n")


def test_energy_is_read_per_package_and_survives_a_wrap(tmp_path: Path) -> None:
    for zone, used in (("intel-rapl:0", 100), ("intel-rapl:1", 900), ("intel-rapl:0:0", 5)):
        rapl(tmp_path, zone, used)
    before = read_energy(tmp_path)
    assert before is not None and set(before) == {"intel-rapl:0", "intel-rapl:1"}
    rapl(tmp_path, "intel-rapl:0", 350)
    rapl(tmp_path, "intel-rapl:1", 50)
    assert joules_between(before, read_energy(tmp_path)) == pytest.approx((250 + 150) / 1e6)


def test_energy_that_cannot_be_read_is_unavailable_and_never_zero(tmp_path: Path) -> None:
    assert read_energy(tmp_path) is None and read_energy(tmp_path / "none") is None
    rapl(tmp_path, "intel-rapl:0", 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("")
    assert read_energy(tmp_path) is None and joules_between(None, None) is None
    assert energy_per_token(SPEC, [Timing((1.0,), 0.0, None)]) == "unavailable"
    assert energy_per_token(SPEC, [Timing((1.0,), 0.0, 3.0), Timing((1.0,), 0.0, None)]) == "unavailable"
    assert energy_per_token(SPEC, [Timing((1.0,), 0.0, 0.0)]) == "unavailable"
    assert energy_per_token(replace(SPEC, batch=2), [Timing((1.0, 1.0), 0.0, 3.0)] * 2) == pytest.approx(6.0 / 8)


def test_bandwidth_is_of_this_world() -> None:
    got = read_bandwidth(np.ones(4 * CHUNK, dtype=np.uint8), seconds=0.01)
    assert 1e8 < got < 1e12
