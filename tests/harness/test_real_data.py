"""The same suites on the real benchmarks' files: honest scores, right denominators, typed statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPARSEBENCH_DATA", ROOT.parent / "shared" / "data"))
POCKET = ROOT / "suites" / "pocket" / "model" / "model.safetensors"
SUITES = ("chat", "instruct", "code", "gsm8k", "summarization")

pytestmark = [
    pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="no real data; set SPARSEBENCH_DATA to its folder"),
    pytest.mark.skipif(not POCKET.is_file(), reason="the pocket model is not here"),
]


def test_the_pocket_model_takes_the_real_benchmarks(tmp_path: Path) -> None:
    n, out = 4, tmp_path / "out"
    command = [sys.executable, "-m", "harness.cli", "eval", "pocket", "--data-dir", str(DATA), "-n", str(n)]
    for suite in SUITES:
        command += ["--suite", suite]
    done = subprocess.run([*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "summary.json").read_text())["variants"][0]["suites"]
    assert set(results) == set(SUITES)
    for suite, result in results.items():
        assert result["n_total"] == n, suite
        if suite == "chat":
            assert result["value"] is None and "judge" in result["reason"]
            continue
        assert result["n"] == n and 0.0 <= result["value"] <= 1.0, suite
        rows = [json.loads(line) for line in (out / "records" / "samples" / f"model.{suite}.jsonl").open()]
        cut = sum(row["status"] == "truncated_input" for row in rows)
        assert result["n_truncated_input"] == cut
        for row in rows:
            assert row["status"] in ("ok", "truncated_output", "truncated_input")
            assert (row["n_out"] == [0]) == (row["status"] == "truncated_input")
            assert row["finish"] != ["length"] or row["status"] == "truncated_output"
    gsm8k = [json.loads(line) for line in (out / "records" / "samples" / "model.gsm8k.jsonl").open()]
    assert all(row["n_in"][0] > 500 for row in gsm8k), "five worked examples come before the question"
