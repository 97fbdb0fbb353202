"""The gate as tests of pytest: ids, outcomes, `-k`, JUnit, workers; and that the plugin costs nothing unused."""

from __future__ import annotations

import importlib.metadata
import json
import runpy
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import harness.gate.as_tests  # noqa: F401  pytester forgets what is imported inside it; numpy must not be loaded twice

pytest_plugins = ["pytester"]
runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))
ROOT = Path(__file__).resolve().parents[2]
SUITES = ("gsm8k", "code")
GATES = [
    {"rule": "no_regression"},
    {"rule": "sparsity", "variant": "twin", "at_least": 0.5},
    {"rule": "sparsity", "variant": "twin", "at_least": 0.6},
    {"rule": "non_inferior", "suite": "gsm8k", "margin": 0.01},
]


def plugin() -> list[str]:
    """Arguments that load the plugin where it is not installed as an entry point."""
    points = importlib.metadata.entry_points(group="pytest11", name="sparsebench")
    return [] if points else ["-p", "harness.pytest_plugin"]


def build(folder: Path, damage: int = 0, gates: list[dict[str, Any]] = GATES) -> Path:
    base = {suite: runs.base_scores(suite, 120) for suite in SUITES}
    noisy = {**base, "gsm8k": runs.flipped(base["gsm8k"], 4, 4), "code": runs.flipped(base["code"], damage)}
    samples = runs.rows_of({"dense": base, "twin": noisy})
    twin = runs.variant("twin", sparsity_linears=0.7, sparsity_model=0.6)
    return Path(
        runs.write_run(folder, samples, runs.summary_of(samples, [runs.variant("dense", None), twin]), gates=gates)
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("plugin") / "good")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("plugin") / "bad", damage=30)


def outcomes(pytester: pytest.Pytester, *arguments: object) -> tuple[Any, dict[str, str]]:
    """The run, and what each test came to by its id."""
    done = pytester.runpytest_inprocess(*plugin(), "-rA", *map(str, arguments))
    found = {}
    for line in done.outlines:
        word, _, rest = line.partition(" ")
        if word in ("PASSED", "FAILED", "ERROR", "XFAIL") and "sparsebench-gate::" in rest:
            found[rest.split(" - ")[0]] = word
    return done, found


def test_each_check_is_a_test_with_a_readable_id(pytester: pytest.Pytester, good: Path) -> None:
    done, found = outcomes(pytester, f"--sparsebench-gate={good}")
    assert found == {
        "sparsebench-gate::no_regression[twin.gsm8k vs dense]": "PASSED",
        "sparsebench-gate::no_regression[twin.code vs dense]": "PASSED",
        "sparsebench-gate::sparsity[twin]": "PASSED",
        "sparsebench-gate::sparsity[twin] #2": "PASSED",
        "sparsebench-gate::non_inferior[twin.gsm8k vs dense]": "FAILED",
    }
    done.assert_outcomes(passed=4, failed=1)
    text = done.stdout.str()
    assert "inconclusive: difference" in text and "items would decide (there are 120)" in text
    assert "Traceback" not in text and "as_tests.py" not in text


@pytest.mark.parametrize(("choice", "count"), [("xfail", "xfailed"), ("skip", "skipped")])
def test_inconclusive_is_what_the_option_says(pytester: pytest.Pytester, good: Path, choice: str, count: str) -> None:
    done, _ = outcomes(pytester, f"--sparsebench-gate={good}", "--sparsebench-inconclusive", choice)
    done.assert_outcomes(passed=4, **{count: 1})
    assert done.ret == 0 and "inconclusive: difference" in done.stdout.str()


def test_k_chooses_and_own_tests_run_beside(pytester: pytest.Pytester, bad: Path) -> None:
    pytester.makepyfile("def test_mine():\n    pass\n")
    done, found = outcomes(pytester, f"--sparsebench-gate={bad}", "-k", "no_regression")
    assert found == {
        "sparsebench-gate::no_regression[twin.gsm8k vs dense]": "PASSED",
        "sparsebench-gate::no_regression[twin.code vs dense]": "FAILED",
    }
    assert done.ret == 1 and "30 lost, 0 gained" in done.stdout.str()
    done, _ = outcomes(pytester, f"--sparsebench-gate={bad}", "-k", "mine or sparsity")
    done.assert_outcomes(passed=3, deselected=3)


def test_earlier_runs_are_told_apart(pytester: pytest.Pytester, good: Path, bad: Path) -> None:
    arguments = [f"--sparsebench-gate={bad}", f"--sparsebench-against={good}", f"--sparsebench-against={bad}"]
    done, found = outcomes(pytester, *arguments, "-k", "earlier")
    failed = [name for name, word in found.items() if word == "FAILED"]
    assert failed == ["sparsebench-gate::no_regression[twin.code vs earlier run] against good"]
    assert len(found) == 8


def test_junit_holds_the_numbers(pytester: pytest.Pytester, bad: Path) -> None:
    outcomes(pytester, f"--sparsebench-gate={bad}", "--junitxml", "out.xml", "-k", "no_regression")
    cases = ElementTree.parse(pytester.path / "out.xml").findall(".//testcase")
    code = next(case for case in cases if "twin.code" in str(case.get("name")))
    properties = {entry.get("name"): entry.get("value") for entry in code.findall(".//property")}
    assert properties["verdict"] == "fail" and float(str(properties["value"])) == pytest.approx(-30 / 120)
    assert properties["n"] == "120" and code.find("failure") is not None


def test_broken_records_are_an_error_not_a_failure(pytester: pytest.Pytester, good: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(good, tmp_path / "copy"))
    rows = copy / "records" / "samples" / "twin.code.jsonl"
    rows.write_bytes(rows.read_bytes()[:-7])
    done, found = outcomes(pytester, f"--sparsebench-gate={copy}")
    done.assert_outcomes(errors=1)
    assert found == {"sparsebench-gate::records": "ERROR"} and "cut short" in done.stdout.str()
    done, _ = outcomes(pytester, f"--sparsebench-gate={tmp_path}/nowhere")
    done.assert_outcomes(errors=1)
    done, _ = outcomes(pytester, f"--sparsebench-gate={good}", f"--sparsebench-against={tmp_path}/nowhere")
    done.assert_outcomes(errors=1)


def test_a_rule_that_cannot_be_tried_is_an_error(pytester: pytest.Pytester, tmp_path: Path) -> None:
    run = build(tmp_path / "run", gates=[{"rule": "speedup", "workload": "decode", "at_least": 1.1}])
    done, found = outcomes(pytester, f"--sparsebench-gate={run}")
    done.assert_outcomes(errors=1)
    assert "exit code 2" in done.stdout.str() and list(found.values()) == ["ERROR"]


def test_options_without_a_run_are_refused(pytester: pytest.Pytester, good: Path) -> None:
    done = pytester.runpytest_inprocess(*plugin(), f"--sparsebench-against={good}")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "--sparsebench-against needs a run" in done.stderr.str()


def test_hostile_names_stay_on_one_line(pytester: pytest.Pytester, tmp_path: Path) -> None:
    name = "a\x1b[31m::b\nc]"
    base = {"code": runs.base_scores("code", 60)}
    samples = runs.rows_of({"dense": base, name: base})
    summary = runs.summary_of(samples, [runs.variant("dense", None), runs.variant(name)])
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text(summary.model_dump_json())
    from harness.records import samples_to_parquet

    samples_to_parquet([row for rows in samples.values() for row in rows], run / "samples.parquet")
    study = tmp_path / "study.yaml"
    study.write_text(
        json.dumps(
            {
                "models": {"p": {"path": "pocket"}},
                "variants": {"dense": {"from": "p"}},
                "gates": [{"rule": "no_regression"}],
            }
        )
    )
    done, found = outcomes(
        pytester, f"--sparsebench-gate={run}", f"--sparsebench-study={study}", "--junitxml", "out.xml"
    )
    done.assert_outcomes(passed=1)
    assert list(found) == ["sparsebench-gate::no_regression[a [31m:b c].code vs dense]"]
    ElementTree.parse(pytester.path / "out.xml")


def test_workers_of_xdist_share_the_checks(good: Path, tmp_path: Path) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    command = [sys.executable, "-m", "pytest", *plugin(), "-p", "xdist", "-n", "2", f"--sparsebench-gate={good}"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**_clean(), "PYTHONPATH": str(ROOT)}
    )
    assert "4 passed" in done.stdout and "1 failed" in done.stdout, done.stdout + done.stderr


def _clean() -> dict[str, str]:
    import os

    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")} | (
        {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if plugin() else {}
    )


SPY = """
import sys
def pytest_unconfigure(config):
    heavy = {"numpy", "pydantic", "scipy", "yaml", "typer", "harness.gate"} & set(sys.modules)
    print("LOADED", "harness.pytest_plugin" in sys.modules, sorted(heavy))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["-q"]])
def test_unused_it_loads_nothing(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n")
    command = [sys.executable, "-m", "pytest", *plugin(), "-p", "spy", "-s", *arguments]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **_clean(),
            "PYTHONPATH": f"{ROOT}:{tmp_path}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "" if not plugin() else "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LOADED True []" in done.stdout
    if arguments == ["--help"]:
        assert "--sparsebench-gate" in done.stdout


def test_the_entry_point_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"sparsebench": "harness.pytest_plugin"}
