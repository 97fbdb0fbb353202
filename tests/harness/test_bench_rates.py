"""The error rates of speed panels: bounds, counting, and a collection that can be cut short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.bench.error_rates import kind_of, numbers_to_run, panel_spec, read_lines
from harness.bench.rates import lower_bound, rates_markdown, rates_of, upper_bound
from harness.errors import ConfigError, CorruptRecordError

FLOOR = {"ratio": 1.01, "ci95": [0.98, 1.02]}
MACHINE = {"cpu": "Some CPU", "cores": 2}
RUN = {"busy": 0.6, "steal": 0.01}


def line(number: int, verdict: str = "no difference", gate: str = "pass", **more: Any) -> dict[str, Any]:
    made = {"panel": number, "kind": kind_of(number), "verdict": verdict, "gate": gate, "ratio": 1.0, "floor": FLOOR}
    return {**made, "confirmation": None, "runs": [RUN], "seconds": 2.0, **more}


def test_bounds_are_the_published_ones() -> None:
    """No event in n trials: 1 - 0.05^(1/n), the rule of three; and the sum of the binomial tail elsewhere."""
    assert upper_bound(0, 150) == pytest.approx(1 - 0.05 ** (1 / 150)) and upper_bound(0, 150) < 0.02
    assert upper_bound(0, 148) > 0.02
    from math import comb

    bound = upper_bound(3, 40)
    assert sum(comb(40, k) * bound**k * (1 - bound) ** (40 - k) for k in range(4)) == pytest.approx(0.05)
    assert lower_bound(40, 40) == pytest.approx(0.05 ** (1 / 40))
    assert (upper_bound(5, 5), lower_bound(0, 5), upper_bound(0, 0)) == (1.0, 0.0, 1.0)


def test_rates_count_undecided_panels_apart() -> None:
    same = [n for n in range(70) if kind_of(n) == "same"]
    slower = [n for n in range(70) if kind_of(n) == "slower"]
    assert (len(same), len(slower)) == (50, 20)
    lines = [line(n) for n in same[:46]]
    lines += [line(same[46], "slower", "fail"), line(same[47], "unconfirmed"), line(same[48], "faster")]
    lines += [line(same[49], "not decided", "inconclusive", runs=[RUN] * 3)]
    lines += [line(n, "slower", "fail", confirmation={}, runs=[RUN] * 2) for n in slower[:18]]
    lines += [line(slower[18], "unconfirmed"), line(slower[19], "not decided", "inconclusive", runs=[RUN] * 3)]
    rates = rates_of(lines, MACHINE)
    assert (rates["same"]["panels"], rates["same"]["decided"], rates["same"]["repeated"]) == (50, 49, 1)
    assert rates["same"]["reported_slower"] == {
        "count": 1,
        "n": 49,
        "rate": round(1 / 49, 5),
        "upper": pytest.approx(upper_bound(1, 49), abs=1e-5),
    }
    assert rates["same"]["gate_fails"]["count"] == 1 and rates["same"]["reported_faster"] == 1
    assert rates["slower"]["reported_slower"]["count"] == 18 and rates["slower"]["reported_slower"]["n"] == 19
    assert rates["slower"]["reported_slower_of_all"]["n"] == 20 and rates["slower"]["unconfirmed"] == 1
    assert rates["same"]["noise_floor"]["median"] == pytest.approx(0.02)
    page = rates_markdown(rates)
    assert "on Some CPU, 2 cores." in page and rates["machine"] == MACHINE
    assert "1 of 49 = 2.0 % (at most" in page and "18 of 19 = 94.7 % (at least" in page
    assert "none" in rates_markdown(rates_of([], MACHINE)), "before the first panel"


def test_numbers_go_on_and_undecided_panels_are_replaced() -> None:
    wanted = {"same": 3, "slower": 1}
    lines: list[dict[str, Any]] = []
    for number in numbers_to_run(lines, wanted):
        verdict = "not decided" if len(lines) == 1 else "no difference"
        lines.append(line(number, verdict))
    assert [entry["panel"] for entry in lines] == [0, 1, 2, 3, 4]
    assert [number for number, _ in zip(numbers_to_run(lines, {"same": 3, "slower": 2}), range(1), strict=False)] == [5]
    assert list(numbers_to_run(lines, wanted)) == []


def test_a_cut_line_is_dropped_and_other_settings_are_refused(tmp_path: Path) -> None:
    head, path = {"a": [1, 2]}, tmp_path / "panels.jsonl"
    assert read_lines(path, head) == []
    path.write_text(json.dumps(head) + "\n" + json.dumps(line(0)) + "\n" + '{"panel": 1, "ki')
    assert read_lines(path, {"a": (1, 2)}) == [line(0)]
    assert path.read_bytes().endswith(b"}\n"), "the next line starts on its own"
    with pytest.raises(ConfigError, match="other settings"):
        read_lines(path, {"a": [1]})
    path.write_text(json.dumps(head) + "\n{oops\n" + json.dumps(line(0)) + "\n")
    with pytest.raises(CorruptRecordError, match="delete it"):
        read_lines(path, head)


def test_the_slow_side_does_a_fifth_more() -> None:
    from harness.bench.error_rates import EXTRA, FORWARDS

    assert (FORWARDS + EXTRA) / FORWARDS == 1.2 and panel_spec(3, 2.0).seed == 3
