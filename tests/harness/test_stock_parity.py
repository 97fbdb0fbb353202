"""A stock `lm_eval` run over `suites/` and our own run give the same text and the same scores, item by item.

Promised for the suites that lm-eval can express, at float32 on the CPU with the same batch size (1 here, so that
padding cannot move a bit) and the chat template applied. One stock process runs all three suites: its start costs most.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.evaluate.plan import GenSettings
from harness.evaluate.suite import evaluate_suite, score_rows
from harness.journal import Journal
from suites.data import load_items
from suites.registry import ROOT, load_suite

SUITES = ("gsm8k", "instruct", "summarization")
N = 12
POCKET = ROOT / "pocket" / "model"


@pytest.fixture(scope="module")
def model_dir() -> Path:
    if not (POCKET / "config.json").is_file():
        pytest.skip("the pocket model is not in this checkout (suites/pocket/model)")
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("lm-eval's own hf model needs accelerate: pip install accelerate")
    return POCKET


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> Any:
    from harness.engines.torch import TorchEngine

    return TorchEngine.load(model_dir, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def stock(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, Any]]]:
    """The stock run's samples: suite -> item id -> sample."""
    out = tmp_path_factory.mktemp("stock")
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf"]
    command += ["--model_args", f"pretrained={model_dir},dtype=float32", "--device", "cpu", "--batch_size", "1"]
    command += ["--tasks", *(f"sparsebench_{name}" for name in SUITES), "--include_path", str(ROOT)]
    command += ["--apply_chat_template", "--log_samples", "--output_path", str(out)]
    command += ["--metadata", json.dumps({"preset": "pocket", "n": N})]
    path = os.pathsep.join([str(ROOT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in SUITES:
        (file,) = out.rglob(f"samples_sparsebench_{name}_*.jsonl")
        samples = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        found[name] = {sample["doc"]["item_id"]: sample for sample in samples}
    return found


@pytest.mark.parametrize("name", SUITES)
def test_same_text_and_scores_as_stock_lm_eval(
    name: str, engine: Any, stock: dict[str, dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    suite = load_suite(name)
    items = load_items(suite, "pocket", n=N)
    with Journal(tmp_path / "cell.jsonl", {}) as journal:
        rows = evaluate_suite(
            engine, suite, items, preset="pocket", journal=journal, settings=GenSettings(batch_size=1)
        )
    assert list(stock[name]) == [item.item_id for item in items] and len(rows) == N
    total = 0.0
    for item, row, scores in zip(items, rows, score_rows(suite, items, rows), strict=True):
        sample = stock[name][item.item_id]
        assert json.loads(sample["doc"]["doc_json"]) == item.doc, item.item_id
        assert sample["resps"] == [[row.outputs[0]]], item.item_id
        assert suite.primary_metric in scores and set(sample["metrics"]) <= set(scores)
        for metric in sample["metrics"]:
            assert sample[metric] == scores[metric], (item.item_id, metric)
        total += float(str(scores[suite.primary_metric]))
    assert total > 0, "parity at zero would prove nothing; the model must get some items right"
