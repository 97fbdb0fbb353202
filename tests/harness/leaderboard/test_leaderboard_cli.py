"""The verb and its benchmark as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bench.leaderboard.run import WORLDS, Plan, results_markdown, run_benchmark
from harness.bench.leaderboard.synthetic import Shape
from harness.cli import main

REAL = Path(__file__).parent / "lm_eval_0_4_13"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["sparsebench", *map(str, arguments)])
    try:
        code = main()
    except SystemExit as done:
        code = done.code
    return int(code or 0)


def test_the_verb_writes_four_forms_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = call(
        monkeypatch, "leaderboard", REAL / "chat", REAL / "base", "--out", out, "--export", "model-index",
        "--export", "lm-eval",
    )  # fmt: skip
    said = capsys.readouterr().out
    assert code == 0 and "Board 1: sparsebench_gsm8k" in said and "lm-eval 0.4.13/model" in said
    names = {path.name for path in out.iterdir()}
    assert names == {"leaderboard.md", "leaderboard.csv", "leaderboard.parquet", "leaderboard.html", "export"}
    assert len(list((out / "export").rglob("*.yaml"))) == 2 == len(list((out / "export").rglob("*.json")))


def test_names_of_others_cannot_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = (REAL / "nochat").glob("results_*.json")
    data = json.loads(source.read_text(encoding="utf-8"))
    data["model_name"] = "org/\x1b[2Jmodel\r\nnext"
    (tmp_path / "results_2026.json").write_text(json.dumps(data), encoding="utf-8")
    assert call(monkeypatch, "leaderboard", tmp_path / "results_2026.json", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\r" not in said and "org/␛[2Jmodel␍ next" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "does not exist"),
        ([REAL / "chat", "--export", "csv"], "--export is one of model-index, lm-eval"),
        ([REAL / "chat", "--suite", "haiku"], "no result has the suite 'haiku'"),
        ([REAL / "chat", REAL / "nochat", "--strict"], "sparsebench_gsm8k was measured by 2 protocols"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[object],
    words: str,
) -> None:
    assert call(monkeypatch, "leaderboard", *arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and words in said[0]
    assert not (tmp_path / "out").exists()


def test_the_benchmark_measures_and_simulates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = dict(list(WORLDS.items())[:1] + [w for w in WORLDS.items() if w[1].worse][:1])
    monkeypatch.setattr("harness.bench.leaderboard.run.WORLDS", few)
    plan = Plan(tmp_path, Shape(variants=10, per_study=4, items=20), repeats=1, runs=5, command="sparsebench bench x")
    run_benchmark(plan, quiet=True)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["timing"]["entries"] == 10 and found["timing"]["bytes"]["leaderboard.html"] > 10_000
    assert [line["world"] for line in found["errors"]] == list(few) and found["errors"][1]["found"] is not None
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == results_markdown(found)
    found["errors"][0]["ci95"] = [0.06, 0.2]
    assert "Above 5 % beyond chance: 10 equal" in results_markdown(found)
