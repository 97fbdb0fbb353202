"""A study under torchrun: two processes make its variants, rank 0 does the rest, and the run is finished without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.making import no_member

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "suites" / "pocket" / "model" / "model.safetensors"
CALL = [sys.executable, "-P", "-c", "import sys; from harness.cli import main; sys.exit(main())"]
# Says which processes trained: a file for each rank.
WATCHED = """
import os, sys
import sparsify.finetune
train = sparsify.finetune.run_training
def watched(*given):
    open("trained-by-" + os.environ["RANK"], "w").close()
    return train(*given)
sparsify.finetune.run_training = watched
from harness.cli import main
sys.exit(main())
"""
TORCHRUN = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
PRUNE = {"prune": {"method": "magnitude", "sparsity": 0.5}}
TRAIN = {"finetune": {"data": "suite:gsm8k/train", "tokens": 3000, "batch_tokens": 1024, "seq": 128, "teacher": "base"}}

pytestmark = pytest.mark.skipif(not POCKET.is_file(), reason="the pocket model is not here")


def run(folder: Path, *call: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [*call, "run", "study.yaml", "--out", "out", "--offline"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "trained.yaml").write_text(yaml.safe_dump({"stages": [PRUNE, TRAIN]}), encoding="utf-8")
    (folder / "pruned.yaml").write_text(yaml.safe_dump({"stages": [PRUNE]}), encoding="utf-8")
    body: dict[str, Any] = {
        "version": 1,
        "models": {"base": {"path": "pocket"}},
        "variants": {
            "dense": {"from": "base"},
            "pruned": {"from": "base", "recipe": "pruned.yaml"},
            "trained": {"from": "base", "recipe": "trained.yaml"},
        },
        "suites": {"gsm8k": {"preset": "pocket", "n": 4}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
    return folder


def test_two_processes_make_what_trains_and_one_goes_on(study: Path) -> None:
    done = run(study, *TORCHRUN, sys.executable, "-P", "-c", WATCHED)
    assert done.returncode == 0, done.stderr[-3000:]
    # Rank 0 alone evaluates and speaks.
    assert done.stdout.count("recovery.html") == 1 and done.stdout.count("mean recovery") <= 1
    summary = json.loads((study / "out" / "summary.json").read_text(encoding="utf-8"))
    assert [variant["name"] for variant in summary["variants"]] == ["dense", "pruned", "trained"]
    trained = summary["variants"][2]
    assert trained["sparsity"]["linears"] == pytest.approx(0.5, abs=0.01) and trained["masks"]["revived"] == 0
    assert trained["suites"]["gsm8k"]["n"] == 4
    assert (study / "trained-by-1").exists()
    # Nothing of it is missing for one process.
    again = run(study, *CALL)
    assert again.returncode == 0 and "nothing was missing" in again.stdout, again.stderr


def test_started_processes_are_no_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with no_member():
        assert "RANK" not in os.environ and "WORLD_SIZE" not in os.environ
    assert os.environ["RANK"] == "0" and os.environ["WORLD_SIZE"] == "2"
