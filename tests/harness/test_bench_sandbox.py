"""`sparsebench bench sandbox`: what it measures, how it goes on after an interruption, what it says of bad news."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.bench.sandbox import run as bench
from harness.bench.sandbox.cpu_time import _seconds, cpu_meter
from harness.bench.sandbox.programs import MBPP_FILE, references
from harness.bench.sandbox.render import markdown
from harness.bench.sandbox.speed import BARE, measure_speed, one_core
from harness.cli import app
from harness.errors import ConfigError, InfrastructureError, SandboxUnavailable
from harness.evaluate.sandbox import Job, Problem, open_sandbox
from harness.evaluate.sandbox.preflight import canonical_jobs
from harness.evaluate.sandbox.threats import THREATS
from sparsify.progress import NullProgress

DATA = Path(os.environ.get("SPARSEBENCH_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def name() -> str:
    try:
        return open_sandbox().info.name
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four solutions and three threats in place of all."""
    small = tuple(threat for threat in THREATS if threat.name in ("read_host", "equal_int", "sys_exit"))
    monkeypatch.setattr("harness.bench.sandbox.programs.canonical_jobs", lambda full: canonical_jobs(full=False))
    monkeypatch.setattr(bench, "run_threats", lambda sandbox, progress: _run_threats(sandbox, small, progress=progress))


_run_threats = bench.run_threats


def _plan(name: str, out: Path, **changes: object) -> bench.Plan:
    fields = {"backends": (name,), "out": out, "data": None, "workers": 2, "rounds": 1, "command": "sparsebench x"}
    return bench.Plan(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_whole_benchmark_and_its_resumption(
    name: str, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = _plan(name, tmp_path, backends=(name, "podman" if name != "podman" else "docker"))
    results = bench.run_benchmark(plan, quiet=True)
    assert bench.holds(results)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    found = results["sandboxes"][name]
    assert (found["contained"], found["not_fooled"], found["as_told"]) == ([1, 1], [2, 2], [3, 3])
    assert found["references"]["humaneval"]["passed"] == 4
    assert results["speed"]["arms"][name]["median"] > 0 and results["speed"]["arms"][BARE]["ratio"] == 1.0
    text = (tmp_path / "results.md").read_text()
    assert "1 of 1" in text and "2 of 2" in text and "4 of 4" in text and "**" not in text.replace("**no**", "")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("was measured already")

    monkeypatch.setattr(bench, "run_threats", never)
    monkeypatch.setattr(bench, "measure_speed", never)
    assert bench.run_benchmark(plan, quiet=True)["sandboxes"] == results["sandboxes"]
    lines = (tmp_path / "parts.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "parts.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20])  # killed while it wrote the speed
    with pytest.raises(AssertionError, match="measured already"):
        bench.run_benchmark(plan, quiet=True)


def test_a_hole_is_bad_news_in_bold(name: str, few: None, tmp_path: Path) -> None:
    results = bench.run_benchmark(_plan(name, tmp_path, rounds=0), quiet=True)
    trial = next(trial for trial in results["sandboxes"][name]["trials"] if trial["name"] == "read_host")
    trial.update(held=False, as_told=False, status="passed", outcome="passed")
    results["sandboxes"][name]["contained"] = [0, 1]
    reference = results["sandboxes"][name]["references"]["humaneval"]
    reference.update(passed=3, failed=[{"task": "HumanEval/0", "status": "timeout", "detail": ""}])
    text = markdown(results)
    assert "**0 of 1**" in text and "`read_host` **got through**" in text
    assert "**3 of 4**" in text and "HumanEval/0: timeout" in text
    assert not bench.holds(results)


def test_honest_programs_that_fail_stop_the_speed_measurement(name: str) -> None:
    wrong = Job(Problem("t", "", "def check(f):\n    assert f() == 1\n", "f"), "def f():\n    return 2\n")
    with pytest.raises(InfrastructureError, match="1 of 1 programs failed in bare python"):
        measure_speed({}, [wrong], rounds=1, progress=NullProgress())


def test_no_sandbox_at_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBENCH_SANDBOX_IMAGE", "nobody.example/no-such-image:0")
    with pytest.raises(SandboxUnavailable, match="none of podman works here"):
        bench.run_benchmark(_plan("podman", tmp_path), quiet=True)


def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with one_core() as core:
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


def test_the_meter_counts_work_and_not_sleep() -> None:
    home = Path("/proc/self/cgroup").read_text()
    with cpu_meter() as meter:
        if meter is None:
            pytest.skip("no control group may be made here")
        start, spent = meter(), os.times()
        while os.times().user - spent.user < 0.2:
            pass
        assert 0.15 < meter() - start < 2.0
    assert Path("/proc/self/cgroup").read_text() == home


def test_without_control_groups_there_is_no_meter(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/there\n")
    with cpu_meter(tmp_path, tmp_path / "cgroup") as meter:
        assert meter is None
    with cpu_meter(tmp_path, tmp_path / "absent") as meter:
        assert meter is None


def test_a_group_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    group = tmp_path / "own" / f"sparsebench-{os.getpid()}"
    group.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/own\n")
    with cpu_meter(tmp_path, tmp_path / "cgroup") as meter:
        assert meter is None
    assert group.is_dir() and not (tmp_path / "own" / "cgroup.procs").exists()


def test_both_versions_counters_are_read(tmp_path: Path) -> None:
    (tmp_path / "cpuacct.usage").write_text("1500000000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n")
    assert (_seconds(tmp_path / "cpuacct.usage"), _seconds(tmp_path / "cpu.stat")) == (1.5, 2.5)


@pytest.mark.skipif(not (DATA / "mbpp").is_dir(), reason="no real data; set SPARSEBENCH_DATA to its folder")
def test_reference_sets() -> None:
    plain, plus, mbpp = references(DATA)
    assert (plain.name, len(plain.jobs), plus.name, len(plus.jobs)) == ("humaneval", 164, "humaneval+", 164)
    assert len(mbpp.jobs) == 974
    assert len(references(None)) == 1


def test_a_damaged_data_file_is_named(tmp_path: Path) -> None:
    (tmp_path / MBPP_FILE).parent.mkdir()
    (tmp_path / MBPP_FILE).write_text("{not json\n")
    with pytest.raises(ConfigError, match=r"mbpp.jsonl cannot be read .* copy it again"):
        references(tmp_path)


def test_the_command_explains_itself() -> None:
    done = CliRunner().invoke(app, ["bench", "sandbox", "--help"], terminal_width=200)
    assert done.exit_code == 0
    assert "Examples:" in done.stdout and "--backends" in done.stdout
    wrong = CliRunner().invoke(app, ["bench", "sandbox", "--out", "x", "--backends", "jail"])
    assert isinstance(wrong.exception, ConfigError) and "bwrap, docker" in str(wrong.exception)
