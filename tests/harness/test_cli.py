"""The command line as a user meets it: messages, exit codes, no tracebacks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "suites" / "pocket" / "model"
MINI = {
    "models": {"p": {"path": "pocket"}},
    "variants": {"dense": {"from": "p"}},
    "suites": {"gsm8k": {"n": 4}},
}

needs_pocket = pytest.mark.skipif(not (POCKET / "model.safetensors").is_file(), reason="the pocket model is not here")


def sparsebench(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def study(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump({**MINI, **changes}))
    return path


def refused(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """One line on stderr that holds `words`, no traceback, the exit code."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("sparsebench: ")]
    assert len(lines) == 1, done.stderr
    assert words in lines[0]


def test_help_names_every_verb() -> None:
    done = sparsebench("--help")
    assert done.returncode == 0
    for verb in ("run", "eval", "sparsify", "gate", "report", "score", "data"):
        assert f"  {verb}" in done.stdout
        assert sparsebench(verb, "--help").returncode == 0


def test_torchrun_is_for_stages_that_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(sparsebench("run", study(tmp_path), "--out", tmp_path / "o"), 2, "torchrun shares stages that train")
    assert not (tmp_path / "o").exists()


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    refused(sparsebench("run", "pockets", "--out", tmp_path / "o"), 2, "one of pocket")
    refused(
        sparsebench("run", study(tmp_path, suites={"gsm9k": {}}), "--out", tmp_path / "o"), 2, "unknown suite 'gsm9k'"
    )
    refused(sparsebench("eval", "pocket", "--suite", "haiku", "--out", tmp_path / "o"), 2, "unknown suite 'haiku'")
    refused(sparsebench("sparsify", "pocket", "--recipe", "sparse99", "-o", tmp_path / "o"), 2, "no recipe 'sparse99'")
    refused(sparsebench("frobnicate"), 2, "No such command 'frobnicate'")
    assert not (tmp_path / "o").exists()


def test_an_unknown_recipe_key_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("stages:\n  - prune: {method: magnitude, sparsity: 0.5, sparcity: 0.5}\n")
    refused(sparsebench("sparsify", "pocket", "--recipe", recipe, "-o", tmp_path / "o"), 2, "unknown key 'sparcity'")


@needs_pocket
def test_a_recipe_that_wants_a_teacher_says_so(tmp_path: Path) -> None:
    wanting = {"from": "p", "recipe": "sparse-finetuned"}
    out = tmp_path / "o"
    done = sparsebench("run", study(tmp_path, variants={"dense": wanting}), "--out", out)
    refused(done, 2, "add `teacher: MODEL`")
    done = sparsebench("run", study(tmp_path, variants={"dense": {**wanting, "teacher": "q"}}), "--out", out)
    refused(done, 2, "teacher 'q' is not in models: p")
    refused(sparsebench("sparsify", "pocket", "--recipe", "sparse-finetuned", "-o", out), 2, "name one (--teacher")
    assert [path.name for path in tmp_path.iterdir()] == ["mini.yaml"]


def test_a_missing_model_directory_is_refused(tmp_path: Path) -> None:
    refused(sparsebench("eval", tmp_path / "nowhere", "-s", "gsm8k", "--out", tmp_path / "o"), 2, "does not exist")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(sparsebench("sparsify", empty, "--recipe", "int8", "-o", tmp_path / "o"), 2, "config.json")


@needs_pocket
def test_corrupt_safetensors_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(POCKET, broken)
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(sparsebench("sparsify", broken, "--recipe", "int8", "-o", tmp_path / "o"), 2, "truncated")
    refused(sparsebench("eval", broken, "-s", "gsm8k", "-n", 2, "--out", tmp_path / "p"), 2, "truncated")
    (broken / "model.safetensors").write_bytes(b"\xff" * 100)
    refused(sparsebench("eval", broken, "-s", "gsm8k", "-n", 2, "--out", tmp_path / "q"), 2, "model.safetensors")


@needs_pocket
def test_an_empty_data_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    (tmp_path / "data" / "gsm8k" / "test.jsonl").write_text("")
    done = sparsebench("eval", "pocket", "-s", "gsm8k", "--data-dir", tmp_path / "data", "--out", tmp_path / "o")
    refused(done, 2, "no rows")
    done = sparsebench("eval", "pocket", "-s", "gsm8k", "--data-dir", tmp_path / "none", "--out", tmp_path / "o")
    refused(done, 2, "does not exist")


def test_an_output_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "o"
    out.mkdir()
    (out / "thesis.tex").write_text("do not touch")
    refused(sparsebench("run", study(tmp_path), "--out", out), 2, "no sparsebench run")
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    (out / "thesis.tex").unlink()
    (out / "study.json").write_text(json.dumps({"hash": "0" * 64, "study": {"name": "other"}}))
    refused(sparsebench("run", study(tmp_path), "--out", out), 2, "another study")
    (out / "study.json").write_text('{"hash": ')
    refused(sparsebench("run", study(tmp_path), "--out", out), 3, "damaged")


def test_gate_without_a_run_is_refused(tmp_path: Path) -> None:
    refused(sparsebench("gate", tmp_path), 2, "does not exist")
    (tmp_path / "summary.json").write_text("{}")
    refused(sparsebench("gate", tmp_path), 3, "schema_version")


def test_data_verify_names_what_is_missing(tmp_path: Path) -> None:
    done = sparsebench("data", "verify", "--data-dir", tmp_path)
    assert done.returncode == 2
    assert "gsm8k/test.jsonl: missing" in done.stdout
    assert "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14" in done.stdout
    assert "openai/gsm8k" in done.stdout


@needs_pocket
def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = sparsebench("run", "--dry-run", "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    assert "sparse70-recovered-int8" in done.stdout and "18000 requests" in done.stdout
    # The three variants that are pruned with calibration text say what that takes.
    assert done.stdout.count("linears to prune") == 3 and "1 CPU thread " in done.stdout
    assert not (tmp_path / "o").exists()


@needs_pocket
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_one_line_and_exit_3(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", mount], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        refused(sparsebench("run", study(tmp_path), "--out", mount / "o"), 3, "disk is full")
        done = sparsebench("sparsify", "pocket", "--recipe", "int8", "-o", mount / "v")
        refused(done, 3, "disk is full")
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


@needs_pocket
def test_ctrl_c_is_one_line_and_exit_130(tmp_path: Path) -> None:
    out = tmp_path / "o"
    command = [sys.executable, "-m", "harness.cli", "run", str(study(tmp_path)), "--out", str(out)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job, such as a CI run, starts with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (out / "study.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted; run the same command again" in stderr
    assert "Traceback" not in stderr + stdout


def test_an_interrupt_inside_exec_is_exit_130_too(tmp_path: Path) -> None:
    # Under `-m`, CPython takes an interrupted `exec` (dataclasses use it at import) for an unhandled interrupt.
    code = """
import harness.cli
def app(**_): exec("raise KeyboardInterrupt")
harness.cli.app = app
harness.cli.main()
"""
    (tmp_path / "probe.py").write_text(code)
    path = os.pathsep.join((str(ROOT), str(tmp_path)))
    command = [sys.executable, "-m", "probe"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "sparsebench: interrupted; run the same command again to continue\n"
