"""Our judging next to FastChat's and alpaca_eval's own code, to the item, on the real questions.

Set SPARSEBENCH_JUDGE_PEERS to a Python of its own with both: `pip install alpaca_eval fschat`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.judge.prompts import alpaca_prompt
from harness.judge.request import JudgeRequest
from harness.judge.rescore import rescore
from harness.judge.run import judge_answers

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPARSEBENCH_DATA", ROOT.parent / "shared" / "data"))
PEERS = os.environ.get("SPARSEBENCH_JUDGE_PEERS", "")
kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("judging.py"))))
peers = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("judge_peers.py"))))

pytestmark = [
    pytest.mark.skipif(not PEERS, reason="set SPARSEBENCH_JUDGE_PEERS to a Python with alpaca_eval and fschat"),
    pytest.mark.skipif(not (DATA / "alpaca_eval").is_dir(), reason="no real data; set SPARSEBENCH_DATA to its folder"),
]

RATINGS = [
    *(f"Good. Rating: [[{n}]]" for n in range(1, 11)),
    "[[7.5]]",
    "[[ 7 ]]",
    "[7]",
    "[[8.]]",
    "Seven of ten.",
    "",
    "[[3]], no, [[9]]",
    "[1] is wrong. [[2]]",
    "[[0]]",
    "[[100]]",
    "[[4/10]]",
]
WINNERS = ["[[A]]", "[[B]]", "[[C]]", "[[B]] or [[A]]", "[[a]]", "", "A is better: [[A]]", "[[B]]", "[[C]], not [[B]]"]
RANKINGS = [
    "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]",
    "[{'model': 'model_2', 'rank': 1}, {'model': 'model_1', 'rank': 2}]",
    '[{"model": "model_1", "rank": 2}, {"model": "model_2", "rank": 1}]',
    " [{'model': 'model_1', 'rank': 1}]\n",
]
WEIGHTS = [
    {"m": 0.9, "M": 0.05},
    {"m": 0.2, "M": 0.7},
    {"m": 0.5, "M": 0.5},
    {"m": 0.999, "M": 0.0},
    {"m": 0.0, "M": 0.0},
]


def run_peer(job: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    asked, told = tmp_path / "job.json", tmp_path / "result.json"
    asked.write_text(json.dumps({**job, "folder": str(tmp_path), "data_dir": str(DATA)}))
    script = Path(__file__).with_name("judge_peers.py")
    done = subprocess.run(
        [PEERS, str(script), str(asked), str(told)], capture_output=True, text=True, timeout=550, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(told.read_text())
    return found


def answer(model: str, number: int, turn: int) -> str:
    digits = hashlib.sha256(f"{model} {number} {turn}".encode()).hexdigest()
    return f"{model}: {{question}} {digits} «é» [[5]] {{answer_a}}\n\n" * (1 + int(digits[0], 16) % 3)


def test_mt_bench_equals_fastchat_to_the_row(tmp_path: Path) -> None:
    numbers = [json.loads(line)["question_id"] for line in (DATA / "mt_bench" / "question.jsonl").open()]
    files = {}
    for model in ("one", "two", "three"):
        turns = {number: (answer(model, number, 1), answer(model, number, 2)) for number in numbers}
        files[model] = str(kit.write_answers(tmp_path / f"{model}.jsonl", model, turns))
    job = {"tool": "fastchat", "answers": files, "replies": {"single": RATINGS, "pairwise": WINNERS}}
    theirs = run_peer(job, tmp_path)
    systems = set()
    for mode, replies in (("single", RATINGS), ("pairwise", WINNERS)):

        def reply(messages: Any, replies: list[str] = replies) -> str:
            systems.add(messages[0]["content"])
            return str(peers.pick(messages[1]["content"], replies))

        request = JudgeRequest("mt-bench", tuple(files.values()), DATA, tmp_path / mode, mode=mode, quiet=True)
        summary = judge_answers(request, lambda: kit.scripted(reply))
        file = next((tmp_path / mode / "model_judgment").iterdir())
        names = ("question_id", "turn", "model", "model_1", "model_2")
        ours, published = (
            {tuple(row.get(name) for name in names): row for row in rows}
            for rows in (kit.read_lines(file), theirs[mode]["rows"])
        )
        assert ours.keys() == published.keys() and len(ours) == (480 if mode == "single" else 320)
        for key, row in published.items():
            for name in row.keys() - {"tstamp", "judge"}:
                assert ours[key][name] == row[name], (key, name)
            assert ours[key]["judge"][1] == row["judge"][1]
        shown = {model.model: model.published for model in summary.models}
        for again in (
            shown,
            {m.model: m.published for m in rescore(tmp_path / f"{mode}.jsonl", tmp_path / "re").models},
        ):
            if mode == "single":
                for place, name in enumerate(("turn_1", "turn_2", "average")):
                    for row in theirs["single"]["tables"][place]:
                        assert again[row["model"]][name] == pytest.approx(row["score"], abs=1e-9)
            else:
                for row in theirs["pairwise"]["tables"][0]:
                    for name in ("win", "loss", "tie", "win_rate", "loss_rate", "win_rate_adjusted"):
                        assert again[row["model"]][name] == pytest.approx(row[name], abs=1e-9)
    assert systems == set(theirs["systems"])


def gamed(path: Path, n: int) -> Path:
    """A file in the form of `df_gamed.csv`, made up: the published one is on the hub."""
    rng = np.random.default_rng(3)
    hard = rng.normal(size=n)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline", "model"]
        )
        for model, gap in (("concise", 0.9), ("verbose", -0.9)):
            for i in range(n):
                shown = gap + rng.normal(0, 0.4)
                preference = 1 / (1 + np.exp(1.2 * np.tanh(shown) + 0.3 * hard[i] + rng.normal(0, 0.3)))
                writer.writerow([preference, i, shown, hard[i], False, model])
    return path


@pytest.mark.parametrize("model", ["gpt4", "alpaca-7b"])
def test_alpaca_eval_equals_the_package(model: str, tmp_path: Path) -> None:
    data = tmp_path / "data" / "alpaca_eval"
    data.mkdir(parents=True)
    for file in (DATA / "alpaca_eval").iterdir():
        (data / file.name).symlink_to(file)
    gamed(data / "df_gamed.csv", 805)
    sides = {"reference": "text_davinci_003_outputs.json", "model": f"{model}_outputs.json"}
    job = {
        "tool": "alpaca_eval",
        **{side: str(data / name) for side, name in sides.items()},
        "gamed": str(data / "df_gamed.csv"),
        "annotators": {
            "alpaca_eval_gpt4": "alpaca_eval_gpt4",
            "alpaca_eval_clf": "weighted_alpaca_eval_gpt4_turbo",
        },
        # Without failures: the package drops what has no verdict and then joins difficulties by row number.
        "replies": {
            "alpaca_eval_gpt4": [r for r in RANKINGS if "rank" in r and "3" not in r],
            "alpaca_eval_clf": WEIGHTS[:4],
        },
    }
    theirs = run_peer(job, tmp_path)
    for template, found in theirs.items():
        prompt = alpaca_prompt(data.parent, template)
        mine = SimpleNamespace(**job)

        def chatml(messages: Any) -> str:
            return "\n".join(f"<|im_start|>{m['role']}\n{m['content']}\n<|im_end|>" for m in messages)

        bare = {text.replace("\n<|im_end|>", "<|im_end|>").strip(): text for text in found["prompts"]}
        assert prompt.name == template and len(bare) > 700

        def said(messages: Any, replies: Any = mine.replies[template], bare: Any = bare) -> Any:
            # The judge is scripted by the published prompt: a prompt that differs by a character would not be found.
            return peers.pick(bare[chatml(messages).replace("\n<|im_end|>", "<|im_end|>")], replies)

        def weigh(messages: Any, name: str, said: Any = said) -> float:
            share = said(messages)[name]
            return float(np.log(share)) if share else -np.inf

        judge = kit.scripted(said) if template == "alpaca_eval_gpt4" else kit.weighing(weigh)
        request = JudgeRequest(
            "alpaca-eval", (job["model"],), data.parent, tmp_path / template, template=template,
            reference="text_davinci_003", quiet=True,
        )  # fmt: skip
        (result,) = judge_answers(request, lambda judge=judge: judge).models
        (file,) = (tmp_path / template).glob("*/annotations.json")
        ours = {row["instruction"]: row["preference"] for row in json.loads(file.read_text())}
        assert ours.keys() == found["preferences"].keys() and len(ours) == 805
        for instruction, preference in found["preferences"].items():
            assert ours[instruction] == pytest.approx(preference, abs=1e-12)
        numbers = found["numbers"]
        for name in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate"):
            assert result.published[name] == pytest.approx(numbers[name], abs=1e-9), name
        controlled = result.length_controlled
        assert controlled is not None and controlled.model == "length_controlled_v1"
        v1 = [result.published["length_controlled_winrate"], result.published["lc_standard_error"]]
        assert v1 == pytest.approx(numbers["length_controlled_v1"], abs=1e-6)
        (again,) = rescore(file, tmp_path / "again").models
        assert again.length_controlled is not None and again.length_controlled.model == "length_controlled_minimal"
        minimal = again.published["length_controlled_winrate"]
        assert minimal == pytest.approx(numbers["length_controlled_minimal"][0], abs=1e-6)
        print(model, template, numbers, v1, minimal)
