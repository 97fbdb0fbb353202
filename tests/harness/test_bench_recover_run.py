"""The recovery benchmark's course: a whole small run, killed and continued, with an arm that fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.bench.recover.arms import Arm, chosen_arms
from harness.bench.recover.cost import CostTask, operations_of
from harness.bench.recover.piece import PieceTask, Place, folder_of
from harness.bench.recover.run import Plan, run_benchmark
from harness.bench.recover.session import Session
from harness.bench.recover.settings import Settings
from harness.bench.sparsify.journal import Journal
from harness.errors import ConfigError
from harness.models import BUNDLED

# One row of pretraining text is less than a batch, so that every arm that pretrains fails.
SMALL: dict[str, Any] = {
    "items": 2,
    "batch": 2,
    "finetune_tokens": 900,
    "skill_tokens": 900,
    "pretrain_tokens": {"50": 512, "70": 512, "80": 512, "2:4": 512},
    "rates": (1e-3, 2e-3),
    "trial_tokens": 400,
    "batch_tokens": 256,
    "seq": 128,
    "dev": 0.1,
    "dev_tokens": 200,
    "dev_every": 2,
    "pretrain_seq": 256,
    "precision": "float32",
    "rows": 40,
    "pretrain_rows": 1,
    "samples": 2,
    "calibration_seq": 32,
    "cost_tokens": 300,
    "cost_rounds": 1,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few thousand weights with the pocket model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("tiny")
    base = BUNDLED["pocket-base"]
    for path in base.iterdir():
        if path.suffix != ".safetensors":
            shutil.copyfile(path, directory / path.name)
    config = json.loads((base / "config.json").read_text())
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {**small, "num_key_value_heads": 1, "head_dim": 16}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(directory)
    return directory


def plan_of(model: Path, root: Path, arms: str, hours: float | None = None) -> Plan:
    settings = Settings(model=str(model), **SMALL)
    return Plan(chosen_arms(arms), (0, 1), root / "out", root / "work", "torch", 1, hours, settings, "cmd")


def pieces(root: Path) -> list[tuple[str, int, bool]]:
    path = root / "out" / "pieces.jsonl"
    lines = Journal(path).lines if path.exists() else []
    return [(line["arm"], line["seed"], "error" in line) for line in lines]


CHILD = """
import sys
from pathlib import Path
from harness.bench.recover.arms import chosen_arms
from harness.bench.recover.run import Plan, run_benchmark
from harness.bench.recover.settings import Settings
root, model = Path(sys.argv[1]), sys.argv[2]
settings = Settings(model=model, **eval(sys.argv[3]))
plan = Plan(chosen_arms("*@50"), (0, 1), root / "out", root / "work", "torch", 1, None, settings, "cmd")
run_benchmark(plan, quiet=True)
"""


# 46 to 169 seconds on one machine, by what runs beside it.
@pytest.mark.timeout(1800)
def test_a_run_goes_on_after_a_kill_and_lists_what_failed(model: Path, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD, str(tmp_path), str(model), repr(SMALL)], cwd=os.getcwd()
    )
    deadline = time.monotonic() + 300
    while not pieces(tmp_path) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    child.kill()
    child.wait()
    killed = pieces(tmp_path)
    assert killed and killed[0] == ("base", 0, False)
    run_benchmark(plan_of(model, tmp_path, "*@50", hours=0.0), quiet=True)
    assert len(pieces(tmp_path)) == len(killed) + 1, "time was up after one piece"
    whole = run_benchmark(plan_of(model, tmp_path, "*@50"), quiet=True)
    final = "pretrain+ce+squarehead@50"
    assert pieces(tmp_path) == [
        ("base", 0, False),
        ("dense", 0, False),
        ("one-shot@50", 0, False),
        (final, 0, True),
        ("dense", 1, False),
        ("one-shot@50", 1, False),
        (final, 1, True),
    ]
    failed = {line["seed"]: line["error"] for line in whole["failed"]}
    assert "lower batch_tokens or give more text" in failed[0] and f"it needs {final} seed 0" in failed[1]
    lines = {(line["arm"], line["seed"]): line for line in Journal(tmp_path / "out" / "pieces.jsonl").lines}
    dense, second = lines["dense", 0], lines["dense", 1]
    assert dense["chosen"]["lr"] in SMALL["rates"] and len(dense["chosen"]["trials"]) == 2
    assert second["chosen"]["lr"] == dense["chosen"]["lr"] and "trials" not in second["chosen"]
    assert dense["variant_sha256"] != second["variant_sha256"] and len(dense["scores"]) == 5
    pruned = lines["one-shot@50", 0]
    assert pruned["masks"]["revived"] == 0 and pruned["zeros"] == pytest.approx(0.5, abs=0.01)
    assert [stage["key"] for stage in pruned["stages"]][:1] == [stage["key"] for stage in dense["stages"]]
    # Only what failed is tried again, and the report alone needs no work folder.
    run_benchmark(plan_of(model, tmp_path, "*@50"), quiet=True)
    assert pieces(tmp_path)[7:] == [(final, 0, True), (final, 1, True)]
    shutil.rmtree(tmp_path / "work")
    shown = (tmp_path / "out" / "results.md").read_text()
    (tmp_path / "out" / "results.md").unlink()
    again = run_benchmark(plan_of(model, tmp_path, "*@50"), measure=False, quiet=True)
    assert json.loads(json.dumps(again)) == json.loads((tmp_path / "out" / "results.json").read_text())
    assert (tmp_path / "out" / "results.md").read_text() == shown and "## Failed" in shown
    assert not (tmp_path / "work").exists()


def test_the_dense_lineage_teaches_and_training_is_timed(model: Path, tmp_path: Path) -> None:
    settings = Settings(model=str(model), **SMALL)
    place = Place(model, tmp_path / "pieces.jsonl", tmp_path / "work", "torch")
    session = Session(settings, place, Journal(place.journal))
    told: list[Any] = []

    def piece(arm: Arm) -> dict[str, Any]:
        line = PieceTask(arm, 0, settings, place, session.model_sha256).run(lambda kind, value: told.append(value))
        session._note(PieceTask(arm, 0, settings, place, session.model_sha256), line)
        return line

    taught = Arm("ce+squarehead", "70", "code")
    assert "it needs dense/code seed 0" in piece(taught)["error"]
    dense = piece(Arm("dense", skill="code"))
    assert list(dense["scores"]) == ["code"]
    line = piece(taught)
    assert line["stages"][1]["teacher_weights_sha256"] == dense["variant_sha256"]
    assert line["masks"]["revived"] == 0 and told[-1][0] == pytest.approx(1.0)
    assert session.known(taught, 0) is not None, "the last try counts"
    # Another machine has the journal and not the work folder: the teacher is made again, with the chosen rate alone.
    other = Place(model, place.journal, tmp_path / "elsewhere", "torch")
    again = PieceTask(Arm("ce+kl", "70", "code"), 0, settings, other, session.model_sha256)
    taught_again = again.run(lambda kind, value: None)
    info = json.loads(
        (other.layout.variant(folder_of(Arm("dense", skill="code"), 0, settings)) / "variant.json").read_text()
    )
    (trained,) = info["stages"]
    assert taught_again["stages"][1]["teacher_weights_sha256"] == info["weights_sha256"]
    assert trained["chosen"]["lr"] == dense["chosen"]["lr"] and "trials" not in trained["chosen"]
    cost = CostTask(Arm("cost", "70"), 0, settings, place).run(lambda kind, value: None)
    assert [len(row["tokens_per_s"]) for row in cost["rows"]] == [1] * 4 and cost["zeros"] == pytest.approx(
        0.7, abs=0.01
    )
    operations = [row["operations"] for row in cost["rows"]]
    assert operations[1] < operations[0] < operations[2] and operations[1] < operations[3]


def test_operations_are_counted_from_the_shapes(model: Path) -> None:
    block = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    found = operations_of(model, 10.0)
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    assert found.linears == 2 * 2 * block and found.others == 2 * 32 * vocabulary + 4 * 10 * 32 * 2


def test_two_runs_do_not_share_a_work_folder(model: Path, tmp_path: Path) -> None:
    settings = Settings(model=str(model), **SMALL)
    place = Place(model, tmp_path / "pieces.jsonl", tmp_path / "work", "torch")
    sessions = [Session(settings, place, Journal(place.journal)) for _ in range(2)]
    with sessions[0]._alone(), pytest.raises(ConfigError, match="another run is using"), sessions[1]._alone():
        pass


def test_a_piece_waits_while_another_makes_the_same_pretrained_model(model: Path, tmp_path: Path) -> None:
    settings = Settings(model=str(model), **SMALL)
    place = Place(model, tmp_path / "pieces.jsonl", tmp_path / "work", "torch")
    session = Session(settings, place, Journal(place.journal))
    final = "pretrain+ce+squarehead"
    first, second = session._task(Arm(final, "70"), 0), session._task(Arm(final, "50"), 0)
    assert not session._ready(first, []), "the dense lineage teaches it"
    session._finished.add(("dense", 0))
    assert session._ready(first, []) and session._ready(second, [])
    assert not session._ready(second, [first]), "the model at 50 % is being made"
    assert session._ready(session._task(Arm("ce", "70"), 0), [first])
    assert session._ready(session._task(Arm(final, "2:4"), 0), [first])
    session._note(first, {"scores": {}})
    assert session._ready(second, [session._task(Arm(final, "80"), 0)]), "it is there now"
