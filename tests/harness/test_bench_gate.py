"""The benchmark of the gate: the commands really run on the made-up run, and the record says what they did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bench.gate import run as bench
from harness.bench.report.synthetic import Shape
from harness.errors import InfrastructureError

PLAN = bench.Plan(Shape(variants=3, rows=300, words=4, blocks=1), times=1, commits=8, command="sparsebench bench gate")


def test_every_command_runs_and_is_timed(tmp_path: Path) -> None:
    record = bench.run_benchmark(PLAN, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == record
    timed = {each["what"].split()[0].strip("`") + str(i): each for i, each in enumerate(record["timed"])}
    assert list(timed) == ["gate0", "pytest1", "history2", "history3", "history4"]
    assert timed["gate0"]["note"].split()[0].isdigit() and int(timed["gate0"]["note"].split()[0]) >= 15
    assert len(timed["history2"]["seconds"]) == 8 and record["history_bytes"] > 1000
    assert all(0 < cpu for each in record["timed"] for cpu in each["cpu_seconds"])
    assert "`history check FILE`" in (tmp_path / "results.md").read_text()


def test_a_command_that_fails_is_no_time(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="gate .* ended with 2"):
        bench._times(["-m", "harness.cli", "gate", str(tmp_path / "nowhere")], 1)
