"""`sparsebench judge` as a user runs it: a real model as the judge, a run's variants, existing files, bad input."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.judge.records import JudgeSummary

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPARSEBENCH_DATA", ROOT.parent / "shared" / "data"))
POCKET = ROOT / "suites" / "pocket" / "model" / "model.safetensors"
kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("judging.py"))))
needs_pocket = pytest.mark.skipif(not POCKET.is_file(), reason="the pocket model is not here")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder: Path = kit.write_data(tmp_path / "data")
    return folder


def sparsebench(*words: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=550)


def summary(out: Path) -> JudgeSummary:
    return JudgeSummary.model_validate_json((out / "summary.json").read_text())


@needs_pocket
def test_the_pocket_model_judges_the_variants_of_a_run(data: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    done = sparsebench("eval", "pocket", "--suite", "chat", "--data-dir", data, "-n", "3", "--out", run, "-q")
    assert done.returncode == 0, done.stderr
    words = ("judge", f"{run}:model", "--judge", "pocket", "--data-dir", data, "--out", out, "--max-new-tokens", "12")
    done = sparsebench(*words)
    assert done.returncode == 0, done.stderr
    assert "unparsable" in done.stdout and "2 no_answer" in done.stdout
    (model,) = summary(out).models
    assert model.overall.statuses == {"no_answer": 2, "unparsable": 6} and model.overall.all.value == 1.0
    assert set(summary(out).judge.identity) >= {"weights_sha256", "chat_template_sha256", "engine"}
    before = (out / "journal.jsonl").read_bytes()
    again = sparsebench(*words, "-q")
    assert again.returncode == 0 and (out / "journal.jsonl").read_bytes() == before and again.stdout == ""
    rows = kit.read_lines(out / "model_judgment" / "pocket_single.jsonl")
    assert len(rows) == 8 and rows[0]["judge"] == ["pocket", "single-v1"] and rows[0]["judgment"]
    other = sparsebench(*words[:3], "pocket-base", *words[4:])
    assert other.returncode == 2 and "differs in judge, weights_sha256" in other.stderr
    gone = sparsebench("judge", f"{run}:sparse", *words[2:])
    assert gone.returncode == 2 and "has no variant 'sparse', it has model" in gone.stderr


@needs_pocket
@pytest.mark.skipif(not (DATA / "alpaca_eval").is_dir(), reason="no real data; set SPARSEBENCH_DATA to its folder")
@pytest.mark.parametrize("prompt", ["alpaca_eval_clf", "alpaca_eval_gpt4"])
def test_the_pocket_model_judges_real_outputs(prompt: str, tmp_path: Path) -> None:
    outputs, out = DATA / "alpaca_eval" / "alpaca-7b_outputs.json", tmp_path / "out"
    done = sparsebench(
        "judge", outputs, "-b", "alpaca-eval", "--judge", "pocket", "--data-dir", DATA, "--prompt", prompt, "-n", "6",
        "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (model,) = summary(out).models
    assert model.overall.n_planned == 6 and sum(model.overall.statuses.values()) == 6
    assert model.overall.all.value == 0.0 and "judged" not in model.overall.statuses
    assert "alpaca-7b vs " in done.stdout and "6 of 6" in done.stdout
    rows = json.loads((out / "alpaca-7b" / "annotations.json").read_text())
    assert len(rows) == 6 and all(row["preference"] is None for row in rows)


@needs_pocket
@pytest.mark.skipif(not (DATA / "mt_bench").is_dir(), reason="no real data; set SPARSEBENCH_DATA to its folder")
def test_the_published_limit_does_not_fit_a_small_judge(tmp_path: Path) -> None:
    reference = DATA / "mt_bench" / "reference_answer_gpt-4.jsonl"
    done = sparsebench(
        "judge", reference, "--judge", "pocket", "--data-dir", DATA, "--out", tmp_path / "out", "-n", "25"
    )
    assert done.returncode == 0, done.stderr
    (model,) = summary(tmp_path / "out").models
    assert model.overall.statuses == {"no_answer": 40, "truncated_input": 10}
    assert "give a smaller --max-new-tokens" in done.stdout


def test_existing_judgements_need_no_judge(data: Path, tmp_path: Path) -> None:
    row = {
        "question_id": 81,
        "model": "a|b",
        "judge": ["gpt-4", "single-v1"],
        "judgment": "[[7]]",
        "score": 7,
        "turn": 1,
    }
    file = kit.write_lines(tmp_path / "gpt-4_single.jsonl", [row])
    done = sparsebench("judge", "--from-judgments", file, "--data-dir", data, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert r"a\|b" in done.stdout and "7 no_judgement" in done.stdout and "judge gpt-4" in done.stdout
    assert summary(tmp_path / "out").models[0].published["average"] == 7.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("x.jsonl", "--judge", "pocket", "--benchmark", "arena"), "--benchmark is mt-bench or alpaca-eval"),
        (("x.jsonl", "--judge", "pocket", "--mode", "both"), "--mode is single or pairwise"),
        (("x.json", "--judge", "pocket", "-b", "alpaca-eval", "--prompt", "mine"), "--prompt is alpaca_eval_gpt4 or"),
        (("x.jsonl", "--judge", "pocket", "--reference", "y"), "add --mode pairwise"),
        (("x.jsonl",), "name the model that judges"),
        (("x.jsonl", "--judge", "pocket"), "x.jsonl does not exist"),
        (("--judge", "pocket"), "name at least one file of answers"),
        (("x.jsonl", "--from-judgments", "y"), "takes neither ANSWERS nor --judge"),
    ],
)
def test_bad_requests(words: tuple[str, ...], message: str, data: Path, tmp_path: Path, capsys: Any) -> None:
    from harness import cli

    argv = ["sparsebench", "judge", *words, "--data-dir", str(data), "--out", str(tmp_path / "out")]
    before, sys.argv = sys.argv, argv
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    told = capsys.readouterr().err
    assert ended.value.code == 2 and message in " ".join(told.split()) and not (tmp_path / "out").exists()
