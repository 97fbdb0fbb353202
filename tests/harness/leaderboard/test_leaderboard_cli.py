"""The verb and its benchmark as a user meets them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.bench.leaderboard.run import WORLDS, Plan, results_markdown, run_benchmark
from harness.bench.leaderboard.synthetic import Shape
from harness.cli import main
from harness.leaderboard.assemble import Leaderboard, assemble
from harness.leaderboard.export import eval_results_files
from harness.leaderboard.model import Cell, Protocol
from suites.registry import load_suite, suite_hash

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
        ([REAL / "chat", "--export", "csv"], "--export is one of model-index, eval-results, lm-eval"),
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


def whole_benchmark(n: int = 1319, hash_: str = "", value: float = 0.421) -> Leaderboard:
    """A board with one entry that has n items of GSM8K's test split, of which 1,319 are all."""
    found = assemble([REAL / "base"])[0]
    settings = (("preset", "5shot"), ("suite_hash", hash_ or suite_hash(load_suite("gsm8k"), "5shot")))
    column = Protocol("gsm8k", "exact_match_flexible", "sparsebench", settings)
    cell = Cell(value, n, n, 0.01, (0.39, 0.45), "wilson", "")
    board = found.boards[0]
    row = replace(board.rows[0], cells={column: cell})
    return replace(found, boards=(replace(board, rows=(row,), columns=(column,)),))


def test_whole_benchmarks_are_exported_as_the_hub_reads_them() -> None:
    hub = pytest.importorskip("huggingface_hub")
    if not hasattr(hub, "parse_eval_result_entries"):
        pytest.skip("this huggingface_hub does not know .eval_results/")
    ((name, text),) = eval_results_files(whole_benchmark()).items()
    assert Path(name).parts[0] == "eval-results" and Path(name).parts[-2:] == (".eval_results", "gsm8k.yaml")
    data = yaml.safe_load(text)
    (entry,) = hub.parse_eval_result_entries(data)
    assert hub.eval_result_entries_to_yaml([entry]) == data
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 42.1)
    assert "95 % interval 39.00 to 45.00" in entry.notes and "preset 5shot" in entry.notes


@pytest.mark.parametrize("changes", [{"n": 300}, {"hash_": "0" * 64}])
def test_a_part_of_a_benchmark_or_another_version_of_the_suite_is_not_exported_as_it(changes: dict[str, Any]) -> None:
    assert eval_results_files(whole_benchmark(**changes)) == {}


def test_an_export_that_no_score_fits_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "leaderboard", REAL / "base", "--out", tmp_path, "--export", "eval-results") == 0
    assert "--export eval-results: no score fits it" in capsys.readouterr().out
    assert not (tmp_path / "export").exists()
