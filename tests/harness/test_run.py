"""The main job on the pocket model: complete, resumable at any moment, and the same whatever happened on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "suites" / "pocket" / "model" / "model.safetensors"
pytestmark = pytest.mark.skipif(not POCKET.is_file(), reason="the pocket model is not here")

RECIPE = """
stages:
  - prune: {method: sparsegpt, sparsity: 0.5, calibration: {source: "suite:gsm8k/train", samples: 16, seq: 128}}
  - finetune:
      data: ["suite:gsm8k/train"]
      tokens: 30000
      batch_tokens: 2048
      seq: 128
      teacher: base
      losses: {ce: 1.0, squarehead: 1.0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study")
    (path / "recovered.yaml").write_text(RECIPE)
    body = {
        "models": {"p": {"path": "pocket"}},
        "variants": {"dense": {"from": "p"}, "tuned": {"from": "p", "recipe": str(path / "recovered.yaml")}},
        "suites": {"gsm8k": {"n": 40}, "chat": {"n": 20}, "summarization": {"n": 10}},
        "engine": {"batch_size": 8},
        "gates": [{"rule": "sparsity", "variant": "tuned", "at_least": 0.49}],
    }
    (path / "mini.yaml").write_text(yaml.safe_dump(body))
    return path


def command(folder: Path, out: str) -> list[str]:
    return [sys.executable, "-m", "harness.cli", "run", str(folder / "mini.yaml"), "--out", str(folder / out)]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A run that nothing disturbed."""
    done = subprocess.run(command(folder, "whole"), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "tuned" in done.stdout and "leaderboard.md" in done.stdout
    return folder / "whole"


def rows(path: Path) -> dict[str, dict[str, object]]:
    """Journal rows by request id; `seconds` is the clock's, not the result's."""
    found = {}
    for line in path.read_bytes().split(b"\n")[1:]:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the row that a kill cut short
        found[row["request_id"]] = row
    return found


def results(out: Path) -> dict[str, bytes]:
    """The bytes that a run's results are made of."""
    kept = {path.name: path.read_bytes() for path in sorted((out / "records" / "samples").iterdir())}
    for variant in ("dense", "tuned"):
        kept[variant] = (out / "variants" / variant / "model.safetensors").read_bytes()
    return kept


def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    schema = json.loads((ROOT / "harness" / "schema" / "summary.schema.json").read_text())
    import jsonschema

    jsonschema.validate(summary, schema)
    assert [variant["name"] for variant in summary["variants"]] == ["dense", "tuned"]
    tuned = summary["variants"][1]
    assert tuned["baseline"] == "dense" and 0.495 < tuned["sparsity"]["linears"] < 0.505
    assert tuned["suites"]["gsm8k"]["n"] == tuned["suites"]["gsm8k"]["n_total"] == 40
    assert summary["variants"][0]["suites"]["gsm8k"]["value"] > 0.3
    for name in ("leaderboard.md", "recovery.md", "records/samples.parquet", "study.json"):
        assert (whole / name).stat().st_size > 0, name
    text = "".join(path.read_text() for path in whole.rglob("*.json"))
    assert str(whole) not in text.replace((whole / "study.json").read_text(), "")


def test_a_second_run_does_nothing(folder: Path, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    done = subprocess.run(command(folder, "whole"), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "nothing was missing" in done.stdout
    after = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    changed = {path.relative_to(whole).as_posix() for path in after if after[path] != before.get(path)}
    assert changed <= {"study.json"}


def test_gate_reads_the_run(whole: Path) -> None:
    gate = [sys.executable, "-m", "harness.cli", "gate", str(whole)]
    done = subprocess.run(gate, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gate: PASS" in done.stdout
    same = subprocess.run(
        [*gate, "--against", str(whole / "summary.json")], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert same.returncode == 0, same.stdout + same.stderr
    assert "paired" in same.stdout


def test_killed_at_five_moments_it_ends_in_the_same_results(folder: Path, whole: Path) -> None:
    """kill -9, wherever it strikes: no journaled row is lost or made again, and results are the same to the byte."""
    out, rng = folder / "killed", random.Random(7)
    spent = sum(json.loads((whole / "timings.json").read_text()).values())
    seen: dict[str, dict[str, dict[str, object]]] = {}
    struck: list[str] = []
    for turn in range(5):
        process = subprocess.Popen(
            command(folder, "killed"), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
        )
        ready = time.monotonic() + 120
        while not (out / "study.json").is_file() and time.monotonic() < ready:
            time.sleep(0.05)
        moment = time.monotonic() + rng.uniform(0.15, 0.6) * max(spent, 5.0)
        # The first strikes while it evaluates, however much faster the machine is now.
        while time.monotonic() < moment and not (turn == 0 and any((out / "journal").glob("*.jsonl"))):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)  # the parent only: its workers must die with it
        process.wait()
        struck.append("done" if process.returncode == 0 else "killed")
        _wait_for_workers(out)
        for journal in sorted((out / "journal").glob("*.jsonl")) if (out / "journal").is_dir() else []:
            now = rows(journal)
            for request, row in seen.get(journal.name, {}).items():
                assert now.get(request) == row, f"{journal.name}: row {request} was lost or made again"
            seen[journal.name] = now
    assert "killed" in struck
    done = subprocess.run(command(folder, "killed"), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    for name, before in seen.items():
        now = rows(out / "journal" / name)
        assert all(now[request] == row for request, row in before.items())
    assert results(out) == results(whole)
    summaries = [json.loads((path / "summary.json").read_text()) for path in (out, whole)]
    assert summaries[0] == summaries[1]


def _wait_for_workers(out: Path) -> None:
    """Workers get their parent's death as a signal; give it a moment and check that none is left."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if not _users_of(out):
            return
        time.sleep(0.1)
    raise AssertionError(f"workers outlived their parent: {_users_of(out)}")


def _users_of(out: Path) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            names = [os.readlink(link) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        found += [process.name for name in names if name.startswith(f"{out}/")]
    return found
